//! Pods whose cgroups systemd makes: where they are, what they outlive, and what a kubelet of the other driver is told.

mod support;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use serde_json::json;
use support::{Daemon, Setup};
use tonic::Code;

const MIB: i64 = 1 << 20;

macro_rules! needs_systemd {
    () => {
        needs_a_node!();
        if !cgroup::systemd::runs() {
            println!("SKIPPED: systemd is not this machine's init");
            return;
        }
    };
}

fn setup(driver: &str) -> Setup {
    Setup { config: format!("[runtime]\ncgroup_driver = \"{driver}\"\n"), ..Setup::default() }
}

fn systemctl(words: &[&str]) -> Output {
    Command::new("systemctl").args(words).output().unwrap()
}

fn property(unit: &str, name: &str) -> String {
    String::from_utf8(systemctl(&["show", "-P", name, unit]).stdout).unwrap().trim().to_owned()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn limits(memory: i64) -> Option<v1::LinuxContainerResources> {
    let no_swap = memory;
    Some(v1::LinuxContainerResources {
        memory_limit_in_bytes: memory,
        memory_swap_limit_in_bytes: no_swap,
        cpu_period: 100_000,
        cpu_quota: 12_000,
        cpu_shares: 512,
        ..Default::default()
    })
}

async fn limited(
    daemon: &Daemon,
    (pod, sandbox): (&str, &v1::PodSandboxConfig),
    (name, script): (&str, &str),
    memory: i64,
) -> String {
    let mut config = daemon.container(name, script);
    config.linux.get_or_insert_default().resources = limits(memory);
    let id = daemon.create(pod, sandbox, &config).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    id
}

/// Of a container's scope, as the kernel has it.
fn file(slice: &str, container: &str, name: &str) -> String {
    let file = format!("/sys/fs/cgroup{slice}/pintle-{container}.scope/{name}");
    std::fs::read_to_string(&file).unwrap_or_else(|why| panic!("{file}: {why}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_slices_and_containers_scopes() {
    needs_systemd!();
    let mut daemon = Daemon::start_as(setup("auto")).await;
    let answer = daemon.runtime().runtime_config(v1::RuntimeConfigRequest {}).await.unwrap().into_inner();
    let sandbox = daemon.pod("unit");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = limited(&daemon, (&pod, &sandbox), ("c", "exec sleep 1000"), 64 * MIB).await;
    assert_eq!(answer.linux.unwrap().cgroup_driver(), v1::CgroupDriver::Systemd);
    let slice = format!("/pintle.slice/pintle-pod.slice/pintle-pod-{pod}.slice");
    let scope = format!("pintle-{id}.scope");
    assert_eq!(property(&scope, "ControlGroup"), format!("{slice}/{scope}"));
    assert_eq!(property(&scope, "MemoryMax"), (64 * MIB).to_string());
    let set = || ["memory.max", "cpu.max", "cpu.weight"].map(|name| file(&slice, &id, name));
    let before = set();
    assert_eq!(before[..2], [(64 * MIB).to_string(), "12000 100000".to_owned()]);
    // A device that nobody allowed it, with every right to make its node.
    let denied =
        "mknod /tmp/d b 7 0 2>/dev/null; ! head -c 1 /tmp/d 2>/dev/null; head -c 1 /dev/zero | wc -c";
    assert_eq!(daemon.sh(&id, denied).await, "1\n");

    for again in ["daemon-reload", "daemon-reexec"] {
        assert!(systemctl(&[again]).status.success());
        daemon.kill();
        assert!(systemctl(&[again]).status.success());
        daemon.launch().await;
        assert_eq!(set(), before, "{again}");
        assert_eq!(daemon.sh(&id, denied).await, "1\n", "{again}");
    }
    let more = v1::LinuxContainerResources {
        memory_limit_in_bytes: 128 * MIB,
        memory_swap_limit_in_bytes: 128 * MIB,
        ..Default::default()
    };
    let update = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(more),
        ..Default::default()
    };
    daemon.runtime().update_container_resources(update).await.unwrap();
    assert_eq!(property(&scope, "MemoryMax"), (128 * MIB).to_string());
    assert!(systemctl(&["daemon-reload"]).status.success());
    assert_eq!(file(&slice, &id, "memory.max"), (128 * MIB).to_string());
    let stats = v1::ContainerStatsRequest { container_id: id.clone() };
    let stats = daemon.runtime().container_stats(stats).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);

    daemon.stop_container(&id, 0).await.unwrap();
    assert_eq!(daemon.status(&id).await.unwrap().exit_code, 137);
    until("an ended container's scope is forgotten", || property(&scope, "LoadState") == "not-found").await;
    daemon.remove_container(&id).await.unwrap();
    daemon.empty().await;
    until("a removed pod's slice is forgotten", || {
        property(&format!("pintle-pod-{pod}.slice"), "LoadState") == "not-found"
            || property(&format!("pintle-pod-{pod}.slice"), "ActiveState") == "inactive"
    })
    .await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

/// A slice as the kubelet makes one for a pod, and what it is in; both end with the test.
struct KubeletSlice(String);

impl KubeletSlice {
    fn new() -> KubeletSlice {
        let root = format!("pintlekube{}", std::process::id());
        let made = KubeletSlice(root);
        let host = cgroup::Host::detect().unwrap();
        let resources: oci_spec::runtime::LinuxResources =
            serde_json::from_value(json!({"memory": {"limit": 256 * MIB}})).unwrap();
        let path = made.path();
        cgroup::Driver::Systemd.create(&host, &path, &resources, &[]).unwrap();
        made
    }

    fn name(&self) -> String {
        format!("{}-besteffort-pod1.slice", self.0)
    }

    fn path(&self) -> String {
        cgroup::systemd::slice_path(&self.name()).unwrap()
    }
}

impl Drop for KubeletSlice {
    fn drop(&mut self) {
        systemctl(&["stop", &format!("{}.slice", self.0)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelets_slices_are_used_and_left_to_it() {
    needs_systemd!();
    let slice = KubeletSlice::new();
    let daemon = Daemon::start_as(setup("auto")).await;
    for (at, parent) in [slice.path(), slice.name()].into_iter().enumerate() {
        let mut sandbox = daemon.pod(&format!("kube-{at}"));
        sandbox.linux.get_or_insert_default().cgroup_parent = parent;
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "c", "exec sleep 1000").await;
        let scope = format!("pintle-{id}.scope");
        assert_eq!(property(&scope, "ControlGroup"), format!("{}/{scope}", slice.path()));
        assert_eq!(property(&scope, "Slice"), slice.name());
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(property(&slice.name(), "MemoryMax"), (256 * MIB).to_string());
        assert_eq!(property(&slice.name(), "ActiveState"), "active");
    }

    // The other driver's parents, and what to do.
    let refused = |parent: &str| {
        let mut sandbox = daemon.pod("other");
        sandbox.linux.get_or_insert_default().cgroup_parent = parent.into();
        sandbox
    };
    let error = daemon.run_pod(&refused("/kubepods/besteffort/pod1")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    for word in ["cgroup_parent", "/kubepods/besteffort/pod1", "cgroupDriver: systemd"] {
        assert!(error.message().contains(word), "{error}");
    }
    let error = daemon.run_pod(&refused("/a.slice/b.slice")).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_was_told_is_used() {
    needs_a_node!();
    let mut daemon = Daemon::start_as(setup("cgroupfs")).await;
    let answer = daemon.runtime().runtime_config(v1::RuntimeConfigRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.linux.unwrap().cgroup_driver(), v1::CgroupDriver::Cgroupfs);
    let mut sandbox = daemon.pod("slice");
    sandbox.linux.get_or_insert_default().cgroup_parent = "/kubepods.slice/kubepods-pod1.slice".into();
    let error = daemon.run_pod(&sandbox).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    for word in ["kubepods-pod1.slice", "cgroupDriver: cgroupfs", "cgroup_driver = \"systemd\""] {
        assert!(error.message().contains(word), "{error}");
    }
    let sandbox = daemon.pod("plain");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = daemon.run(&pod, &sandbox, "c", "exec sleep 1000").await;
    // A pod goes on as it was begun when the daemon's driver is another.
    let runs = cgroup::systemd::runs();
    daemon.kill();
    let config = std::fs::read_to_string(daemon.path("config.toml")).unwrap();
    let other = config.replace("cgroup_driver = \"cgroupfs\"", "cgroup_driver = \"systemd\"");
    std::fs::write(daemon.path("config.toml"), &other).unwrap();
    if runs {
        daemon.launch().await;
        let second = daemon.run(&pod, &sandbox, "second", "exec sleep 1000").await;
        for id in [&id, &second] {
            let init = daemon.shim_of(id);
            assert!(init > 0);
        }
        daemon.kill();
    } else {
        let mut refused = Command::new(env!("CARGO_BIN_EXE_pintle"));
        refused.arg("serve").args(["--config"]).arg(daemon.path("config.toml"));
        refused.arg("--root").arg(daemon.path("root")).arg("--state").arg(daemon.path("state"));
        let output = refused.arg("--socket").arg(daemon.socket()).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && words.contains("systemd does not run on this machine"),
            "{words}"
        );
    }
    std::fs::write(daemon.path("config.toml"), &config).unwrap();
    daemon.launch().await;
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_ran_out_is_told_though_the_scope_is_gone() {
    needs_systemd!();
    let daemon = Daemon::start_as(setup("auto")).await;
    let sandbox = daemon.pod("oom");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let pod = (pod.as_str(), &sandbox);
    let beside = limited(&daemon, pod, ("beside", "exec sleep 1000"), 64 * MIB).await;
    for round in 0..3 {
        let name = format!("eats-{round}");
        let eats = "x=a; while :; do x=$x$x; done";
        let id = limited(&daemon, pod, (&name, &format!("exec sh -c '{eats}'")), 16 * MIB).await;
        let status = daemon.exited(&id).await;
        assert_eq!((status.reason.as_str(), status.exit_code), ("OOMKilled", 137), "round {round}");
        // Killed by somebody, not for want of memory.
        let name = format!("killed-{round}");
        let id = limited(&daemon, pod, (&name, "exec sleep 1000"), 64 * MIB).await;
        daemon.stop_container(&id, 0).await.unwrap();
        let status = daemon.status(&id).await.unwrap();
        assert_eq!((status.reason.as_str(), status.exit_code), ("Error", 137), "round {round}");
    }
    assert_eq!(daemon.status(&beside).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

/// Our OCI runtime's command line, as Docker, Podman and containerd call it with `--systemd-cgroup`.
#[test]
fn the_command_line_makes_scopes() {
    needs_systemd!();
    let folder = tempfile::Builder::new().prefix("pintle-test-").tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("rootfs/bin")).unwrap();
    std::fs::create_dir_all(at("rootfs/proc")).unwrap();
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|file| std::path::Path::new(file).exists());
    std::fs::copy(busybox.unwrap(), at("rootfs/bin/busybox")).unwrap();
    let id = format!("cli{}", std::process::id());
    let config = |limit: i64, pids: i64| {
        json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["/bin/busybox", "sleep", "1000"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": format!("pintlecli.slice:test:{id}"),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "cgroup"}],
                "resources": {"memory": {"limit": limit}, "pids": {"limit": pids}},
            },
        })
    };
    let oci = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
        command.arg("oci").arg("--root").arg(at("state")).arg("--systemd-cgroup").args(words);
        // What a container keeps open would keep its caller waiting.
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let errors = std::fs::File::create(at("errors")).unwrap();
        let status = command.stderr(errors).status().unwrap();
        (status.success(), std::fs::read_to_string(at("errors")).unwrap())
    };
    let bundle = folder.path().to_str().unwrap();
    let scope = format!("test-{id}.scope");
    // One process is all that may be in it: whoever keeps the scope until then must not count.
    std::fs::write(at("config.json"), config(64 * MIB, 1).to_string()).unwrap();
    for _ in 0..2 {
        assert_eq!(oci(&["create", "--bundle", bundle, &id]), (true, String::new()));
        assert_eq!(property(&scope, "ControlGroup"), format!("/pintlecli.slice/{scope}"));
        assert_eq!(oci(&["start", &id]), (true, String::new()));
        let group = format!("/sys/fs/cgroup/pintlecli.slice/{scope}");
        let members = std::fs::read_to_string(format!("{group}/cgroup.procs")).unwrap();
        assert_eq!(members.lines().count(), 1, "{members}");
        assert!(oci(&["update", "--memory", "134217728", &id]).0);
        assert_eq!(property(&scope, "MemoryMax"), (128 * MIB).to_string());
        assert!(oci(&["kill", &id, "KILL"]).0);
        let begun = Instant::now();
        while !oci(&["delete", &id]).0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", oci(&["delete", &id]).1);
        }
        assert!(!std::path::Path::new(&group).exists());
    }
    // A name that is no unit's.
    let mut bad = config(64 * MIB, 1);
    bad["linux"]["cgroupsPath"] = "/a/b".into();
    std::fs::write(at("config.json"), bad.to_string()).unwrap();
    let (created, words) = oci(&["create", "--bundle", bundle, &id]);
    assert!(!created && words.contains("slice:prefix:name"), "{words}");
    // What fails after the scope was made leaves none.
    let mut bad = config(64 * MIB, 1);
    bad["process"]["args"] = json!(["/absent"]);
    std::fs::write(at("config.json"), bad.to_string()).unwrap();
    assert!(!oci(&["create", "--bundle", bundle, &id]).0 || !oci(&["start", &id]).0);
    oci(&["delete", "--force", &id]);
    let begun = Instant::now();
    while property(&scope, "LoadState") != "not-found" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", property(&scope, "ActiveState"));
    }
    systemctl(&["stop", "pintlecli.slice"]);
}
