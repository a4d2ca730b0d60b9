//! Checkpoints with a real CRIU: what ran goes on, what is restored goes on where it was, and a failure leaves nothing.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use support::{Daemon, Setup, in_own_network};
use tonic::Code;

/// Counts into its log, holds a file open, and listens on a port.
const COUNTER: &str = "echo begun > /tmp/state; exec 7>>/tmp/open; (while true; do echo hello | nc -l -p 8000; done) & \
    i=0; while true; do i=$((i+1)); echo $i; echo $i >&7; echo $i > /tmp/last; sleep 0.05; done";

/// A limit of memory for a container that is restored, in bytes.
const LIMIT: i64 = 64 << 20;

/// What it is inside, with either version of control groups.
const MEMORY_LIMIT: &str = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; true";

/// Prints the groups, other than the container's own, of processes that are in the container.
fn elsewhere(container: &str) -> String {
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let hierarchy = if version_2 { "^0::" } else { ":memory:" };
    // Other containers of the pod are in the same process namespace; with version 1 groups are seen from the host's root.
    format!(
        "for p in /proc/[0-9]*; do [ \"$(readlink $p/ns/mnt)\" = \"$(readlink /proc/self/ns/mnt)\" ] \
        && grep '{hierarchy}' $p/cgroup; done | grep -v -E ':/$|/{container}$'; true"
    )
}

/// CRIU, named by `PINTLE_TEST_CRIU` or in `PATH`, or why there is none.
fn criu() -> Result<PathBuf, String> {
    let name = std::env::var_os("PINTLE_TEST_CRIU").map_or_else(|| PathBuf::from("criu"), PathBuf::from);
    let path = runtime::locate_criu(&name);
    runtime::check_criu(&path).map(|()| path)
}

macro_rules! needs_criu {
    () => {{
        needs_a_node!();
        match criu() {
            Ok(path) => path,
            Err(why) => {
                println!("SKIPPED: {why}");
                return;
            }
        }
    }};
}

async fn start(criu: &Path) -> Daemon {
    let config = format!("[checkpoint]\ncriu = {criu:?}\n");
    Daemon::start_as(Setup { config, ..Setup::default() }).await
}

async fn checkpoint(daemon: &Daemon, id: &str, location: &Path, timeout: i64) -> Result<(), tonic::Status> {
    let request = v1::CheckpointContainerRequest {
        container_id: id.into(),
        location: location.display().to_string(),
        timeout,
    };
    daemon.runtime().checkpoint_container(request).await.map(drop)
}

async fn checkpoint_pod(
    daemon: &Daemon,
    pod: &str,
    containers: &[&str],
    folder: &Path,
    limit: Duration,
) -> Result<(), tonic::Status> {
    let mut request = tonic::Request::new(v1::CheckpointPodRequest {
        pod_sandbox_id: pod.into(),
        output_path: folder.display().to_string(),
        container_ids: containers.iter().map(ToString::to_string).collect(),
        options: BTreeMap::new(),
    });
    request.set_timeout(limit);
    daemon.runtime().checkpoint_pod(request).await.map(drop)
}

async fn restore_pod(
    daemon: &Daemon,
    folder: &Path,
    sandbox: &v1::PodSandboxConfig,
    containers: Vec<v1::ContainerConfig>,
) -> Result<(String, BTreeMap<String, String>), tonic::Status> {
    let mut request = tonic::Request::new(v1::RestorePodRequest {
        checkpoint_path: folder.display().to_string(),
        config: Some(sandbox.clone()),
        container_configs: containers,
        ..Default::default()
    });
    request.set_timeout(Duration::from_secs(60));
    let restored = daemon.runtime().restore_pod(request).await?.into_inner();
    let names =
        restored.restored_containers.into_iter().map(|restored| (restored.name, restored.container_id));
    Ok((restored.pod_sandbox_id, names.collect()))
}

fn last(log: &str) -> i64 {
    log.lines().filter_map(|line| line.trim().parse().ok()).next_back().unwrap_or(0)
}

/// Waits until the container has counted on from `from`.
async fn counts_on(daemon: &Daemon, pod: &str, container: &str, from: i64) -> i64 {
    let begun = Instant::now();
    loop {
        let now = last(&daemon.log_of(pod, container));
        if now > from + 3 {
            return now;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it stands at {now}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Everything below a folder, with sizes and times.
fn contents(folder: &Path) -> Vec<(PathBuf, u64, i64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        found.push((entry.path(), metadata.len(), metadata.mtime_nsec()));
        if metadata.is_dir() {
            found.extend(contents(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_running_container_becomes_an_archive_and_goes_on() {
    let criu = needs_criu!();
    in_own_network(async {
        let daemon = start(&criu).await;
        let sandbox = daemon.pod("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "counter", COUNTER).await;
        counts_on(&daemon, "a", "counter", 0).await;
        daemon.sh(&id, "rm /bin/cut; echo x > /etc/made").await;
        let location = daemon.path("checkpoint.tar");
        std::fs::write(&location, "of before").unwrap();
        checkpoint(&daemon, &id, &location, 0).await.unwrap();
        counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        let metadata = std::fs::metadata(&location).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.uid()), (0o600, 0));
        let list = tar(&["tf", location.to_str().unwrap()]);
        for name in ["config.dump", "spec.dump", "network.status", "status.dump", "dump.log", "deleted.files"]
        {
            assert!(list.lines().any(|line| line == name), "{name} in {list}");
        }
        assert!(
            list.contains("checkpoint/inventory.img") && list.contains("checkpoint/pstree.img"),
            "{list}"
        );
        let out = daemon.path("out");
        std::fs::create_dir(&out).unwrap();
        tar(&["xf", location.to_str().unwrap(), "-C", out.to_str().unwrap()]);
        let changes = tar(&["tf", out.join("rootfs-diff.tar").to_str().unwrap()]);
        assert!(changes.lines().any(|line| line == "etc/made") && changes.contains("tmp/state"), "{changes}");
        let json = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(out.join(name)).unwrap()).unwrap()
        };
        assert_eq!(json("deleted.files"), serde_json::json!(["bin/cut"]));
        assert_eq!(
            (&json("config.dump")["id"], &json("config.dump")["name"]),
            (&id.as_str().into(), &"counter".into())
        );
        assert_eq!(json("spec.dump")["process"]["args"][0], "/bin/sh");
        // Nothing else was left beside it, and nothing where it was put together.
        assert_eq!(std::fs::read_dir(daemon.path("root/checkpoints")).unwrap().count(), 0);
        assert!(
            !std::fs::read_dir(daemon.path(""))
                .unwrap()
                .flatten()
                .any(|entry| { entry.file_name().to_string_lossy().ends_with(".partial") })
        );
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

fn tar(words: &[&str]) -> String {
    let done = std::process::Command::new("tar").args(words).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn what_cannot_be_checkpointed_is_refused_and_runs_on() {
    let criu = needs_criu!();
    in_own_network(async {
        let daemon = start(&criu).await;
        let sandbox = daemon.pod("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "counter", COUNTER).await;
        let ended = daemon.run(&pod, &sandbox, "ended", "true").await;
        daemon.exited(&ended).await;
        let waiting =
            daemon.create(&pod, &sandbox, &daemon.container("waiting", "sleep 1000")).await.unwrap();
        let at = |name: &str| daemon.path(name);
        std::os::unix::fs::symlink("/etc/passwd", at("link")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let code = async |id: &str, location: &Path, timeout| {
            checkpoint(&daemon, id, location, timeout).await.map_err(|why| why.code())
        };
        assert_eq!(code(&ended, &at("x"), 0).await, Err(Code::FailedPrecondition));
        assert_eq!(code(&waiting, &at("x"), 0).await, Err(Code::FailedPrecondition));
        assert_eq!(code("absent", &at("x"), 0).await, Err(Code::NotFound));
        assert_eq!(code(&id, Path::new("relative"), 0).await, Err(Code::InvalidArgument));
        assert_eq!(code(&id, &at("x"), -1).await, Err(Code::InvalidArgument));
        for bad in ["link", "folder", "absent/x"] {
            assert_eq!(code(&id, &at(bad), 0).await, Err(Code::InvalidArgument), "{bad}");
        }
        assert_eq!(std::fs::read_link(at("link")).unwrap(), Path::new("/etc/passwd"));
        // Of a pod.
        let long = Duration::from_secs(60);
        let pod_code = async |ids: &[&str], folder: &Path| {
            checkpoint_pod(&daemon, &pod, ids, folder, long).await.map_err(|why| why.code())
        };
        assert_eq!(pod_code(&[], &at("folder")).await, Err(Code::InvalidArgument));
        assert_eq!(pod_code(&[&id, &id], &at("folder")).await, Err(Code::InvalidArgument));
        assert_eq!(pod_code(&[&id, &ended], &at("folder")).await, Err(Code::FailedPrecondition));
        assert_eq!(pod_code(&[&id], &at("absent")).await, Err(Code::InvalidArgument));
        std::fs::write(at("folder/mine"), "kept").unwrap();
        assert_eq!(pod_code(&[&id], &at("folder")).await, Err(Code::InvalidArgument));
        assert_eq!(std::fs::read(at("folder/mine")).unwrap(), b"kept");
        let request = v1::CheckpointPodRequest {
            pod_sandbox_id: pod.clone(),
            output_path: at("folder").display().to_string(),
            container_ids: vec![id.clone()],
            ..Default::default()
        };
        let no_deadline = daemon.runtime().checkpoint_pod(request.clone()).await.unwrap_err();
        assert_eq!(no_deadline.code(), Code::InvalidArgument, "{no_deadline}");
        let mut unknown = tonic::Request::new(v1::CheckpointPodRequest {
            options: [("a".to_string(), "b".to_string())].into(),
            ..request
        });
        unknown.set_timeout(long);
        let refused = daemon.runtime().checkpoint_pod(unknown).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        daemon.empty().await;
    });
}

#[test]
fn a_pod_is_restored_and_goes_on_where_it_was() {
    let criu = needs_criu!();
    in_own_network(async {
        let daemon = start(&criu).await;
        let sandbox = daemon.pod("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let counter = daemon.run(&pod, &sandbox, "counter", COUNTER).await;
        let other_script = "echo shared > /dev/shm/note; rm /bin/cut; trap '' TERM; i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";
        let other = daemon.run(&pod, &sandbox, "other", other_script).await;
        counts_on(&daemon, "a", "counter", 5).await;
        counts_on(&daemon, "a", "other", 0).await;
        let folder = daemon.path("saved");
        std::fs::create_dir(&folder).unwrap();
        checkpoint_pod(&daemon, &pod, &[&counter, &other], &folder, Duration::from_secs(60)).await.unwrap();
        let at = counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        daemon.remove_pod(&pod).await.unwrap();
        let before = contents(&folder);
        // The same pod again, as the kubelet would make it: another uid, another log directory.
        let restored_sandbox = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: "b".into(),
                uid: "uid-b".into(),
                namespace: "test".into(),
                attempt: 0,
            }),
            ..daemon.pod("b")
        };
        let mut containers =
            vec![daemon.container("other", other_script), daemon.container("counter", COUNTER)];
        // Limits are those of the request, in groups of the new containers' own.
        for (config, limit) in containers.iter_mut().zip([LIMIT + (1 << 20), LIMIT]) {
            config.linux.get_or_insert_default().resources =
                Some(v1::LinuxContainerResources { memory_limit_in_bytes: limit, ..Default::default() });
        }
        let (pod, names) = restore_pod(&daemon, &folder, &restored_sandbox, containers).await.unwrap();
        assert_eq!(names.keys().collect::<Vec<_>>(), ["counter", "other"]);
        for id in names.values() {
            assert_eq!(daemon.status(id).await.unwrap().state(), v1::ContainerState::ContainerCreated);
        }
        // Nothing of it runs before it is started.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(daemon.log_of("b", "counter"), "");
        daemon.start_container(&names["counter"]).await.unwrap();
        let log = daemon.log_of("b", "counter");
        let first: i64 = loop {
            if let Some(first) = daemon.log_of("b", "counter").lines().find_map(|line| line.parse().ok()) {
                break first;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert!(first > 5 && first <= at, "it goes on at {first}, it was at {at}: {log}");
        counts_on(&daemon, "b", "counter", first).await;
        assert_eq!(daemon.log_of("b", "other"), "", "only what was started runs");
        daemon.start_container(&names["other"]).await.unwrap();
        counts_on(&daemon, "b", "other", 0).await;
        assert_eq!(daemon.sh(&names["counter"], "cat /tmp/state").await, "begun\n");
        assert_eq!(daemon.sh(&names["counter"], "cat /dev/shm/note").await, "shared\n");
        assert_eq!(daemon.sh(&names["other"], "test ! -e /bin/cut && echo gone").await, "gone\n");
        for (name, limit) in [("other", LIMIT + (1 << 20)), ("counter", LIMIT)] {
            assert_eq!(daemon.sh(&names[name], MEMORY_LIMIT).await.trim(), limit.to_string(), "{name}");
            // Whoever was restored and whoever is executed.
            assert_eq!(daemon.sh(&names[name], &elsewhere(&names[name])).await, "", "{name}");
        }
        let open = daemon.sh(&names["counter"], "cat /tmp/last").await;
        assert!(open.trim().parse::<i64>().unwrap() >= first);
        assert_eq!(daemon.sh(&names["counter"], "nc 127.0.0.1 8000 < /dev/null").await, "hello\n");
        assert_eq!(contents(&folder), before, "the checkpoint is as it was");
        assert_eq!(
            daemon.start_container(&names["other"]).await.unwrap_err().code(),
            Code::FailedPrecondition
        );
        daemon.stop_container(&names["other"], 1).await.unwrap();
        assert_eq!(daemon.exited(&names["other"]).await.exit_code, 137);
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn a_restore_that_does_not_fit_leaves_nothing() {
    let criu = needs_criu!();
    in_own_network(async {
        let daemon = start(&criu).await;
        let sandbox = daemon.pod("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "counter", COUNTER).await;
        counts_on(&daemon, "a", "counter", 0).await;
        let folder = daemon.path("saved");
        std::fs::create_dir(&folder).unwrap();
        checkpoint_pod(&daemon, &pod, &[&id], &folder, Duration::from_secs(60)).await.unwrap();
        let inventory = daemon.inventory().await;
        let target = daemon.pod("b");
        let code = async |containers: Vec<v1::ContainerConfig>, folder: &Path| {
            let refused = restore_pod(&daemon, folder, &target, containers).await.unwrap_err();
            assert_eq!(daemon.changed_since(&inventory, refused.message()).await, None);
            (refused.code(), refused.message().to_owned())
        };
        let same = || daemon.container("counter", COUNTER);
        let (first, why) = code(vec![daemon.container("another", COUNTER)], &folder).await;
        assert_eq!(first, Code::FailedPrecondition, "{why}");
        assert_eq!(code(vec![], &folder).await.0, Code::InvalidArgument);
        assert_eq!(code(vec![same(), same()], &folder).await.0, Code::InvalidArgument);
        let (third, why) = code(vec![daemon.container("counter", "something else")], &folder).await;
        assert_eq!(third, Code::FailedPrecondition);
        assert!(why.contains("command is not what it was"), "{why}");
        let mut with_mount = same();
        with_mount.mounts.push(v1::Mount {
            container_path: "/data".into(),
            host_path: daemon.path("saved").display().to_string(),
            ..Default::default()
        });
        assert_eq!(code(vec![with_mount], &folder).await.0, Code::FailedPrecondition);
        assert_eq!(code(vec![same()], &daemon.path("absent")).await.0, Code::InvalidArgument);
        std::fs::create_dir(daemon.path("empty")).unwrap();
        assert_eq!(code(vec![same()], &daemon.path("empty")).await.0, Code::FailedPrecondition);
        // Something in it is broken: what was made until that was noticed is taken away.
        let broken = daemon.path("broken");
        let copied = std::process::Command::new("cp").arg("-a").arg(&folder).arg(&broken).status().unwrap();
        assert!(copied.success());
        let image = broken.join("container-0/checkpoint/pstree.img");
        std::fs::write(&image, b"nonsense").unwrap();
        let (_, why) = code(vec![same()], &broken).await;
        assert!(why.contains("restoring the processes"), "{why}");
        std::fs::write(broken.join("container-0/rootfs-diff.tar"), b"nonsense").unwrap();
        assert_eq!(code(vec![same()], &broken).await.0, Code::DataLoss);
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn neither_a_deadline_nor_the_end_of_the_daemon_leaves_a_pod_frozen() {
    let criu = needs_criu!();
    in_own_network(async {
        let slow = PathBuf::from(format!("{}/slow-criu", std::env::temp_dir().display()));
        // As slow as CRIU would be with a large container.
        std::fs::write(
            &slow,
            format!("#!/bin/sh\n[ \"$1\" = swrk ] && sleep 3\nexec {} \"$@\"\n", criu.display()),
        )
        .unwrap();
        std::fs::set_permissions(&slow, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut daemon = start(&slow).await;
        let sandbox = daemon.pod("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "counter", COUNTER).await;
        counts_on(&daemon, "a", "counter", 0).await;
        let folder = daemon.path("saved");
        std::fs::create_dir(&folder).unwrap();
        let late =
            checkpoint_pod(&daemon, &pod, &[&id], &folder, Duration::from_millis(700)).await.unwrap_err();
        assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
        counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        // The container runs again a moment before the first attempt is over.
        let begun = Instant::now();
        let late = loop {
            let late = checkpoint(&daemon, &id, &daemon.path("x.tar"), 1).await.unwrap_err();
            let early = late.message().contains("being checkpointed already");
            if !early || begun.elapsed() > Duration::from_secs(10) {
                break late;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
        assert!(!daemon.path("x.tar").exists());
        counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left of a failure");
        // The daemon is killed while everything is frozen.
        let (mut runtime, asked) = (daemon.runtime(), daemon.path("y.tar"));
        let request = v1::CheckpointContainerRequest {
            container_id: id.clone(),
            location: asked.display().to_string(),
            timeout: 60,
        };
        let asking = tokio::spawn(async move { runtime.checkpoint_container(request).await });
        tokio::time::sleep(Duration::from_millis(700)).await;
        let stands = last(&daemon.log_of("a", "counter"));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(last(&daemon.log_of("a", "counter")), stands, "it is frozen");
        daemon.kill();
        assert!(asking.await.unwrap().is_err());
        counts_on(&daemon, "a", "counter", stands).await;
        daemon.launch().await;
        assert!(!asked.exists());
        assert_eq!(std::fs::read_dir(daemon.path("root/checkpoints")).unwrap().count(), 0);
        // And it works again.
        checkpoint(&daemon, &id, &asked, 60).await.unwrap();
        counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
        std::fs::remove_file(&slow).unwrap();
    });
}

#[test]
fn a_full_disk_is_told_and_nothing_stays_on_it() {
    let criu = needs_criu!();
    in_own_network(async {
        let daemon = start(&criu).await;
        let sandbox = daemon.pod("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let script = format!("dd if=/dev/urandom of=/tmp/big bs=1M count=3; {COUNTER}");
        let id = daemon.run(&pod, &sandbox, "counter", &script).await;
        counts_on(&daemon, "a", "counter", 0).await;
        let small = daemon.path("small");
        std::fs::create_dir(&small).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("test", &small, "tmpfs", flags, Some(c"size=2m")).unwrap();
        let full = checkpoint(&daemon, &id, &small.join("x.tar"), 0).await;
        let folder = small.join("saved");
        std::fs::create_dir(&folder).unwrap();
        let full_pod = checkpoint_pod(&daemon, &pod, &[&id], &folder, Duration::from_secs(60)).await;
        let left = contents(&small);
        rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
        assert_eq!(full.unwrap_err().code(), Code::ResourceExhausted);
        let full_pod = full_pod.unwrap_err();
        assert!(matches!(full_pod.code(), Code::ResourceExhausted | Code::FailedPrecondition), "{full_pod}");
        assert_eq!(left.len(), 1, "{left:?}");
        counts_on(&daemon, "a", "counter", last(&daemon.log_of("a", "counter"))).await;
        daemon.empty().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_criu_the_calls_say_what_to_install() {
    needs_a_node!();
    let daemon = start(Path::new("/absent/criu")).await;
    let sandbox = daemon.pod("a");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = daemon.run(&pod, &sandbox, "c", "sleep 1000").await;
    let folder = daemon.path("saved");
    std::fs::create_dir(&folder).unwrap();
    let all = [
        checkpoint(&daemon, &id, &daemon.path("x.tar"), 0).await.unwrap_err(),
        checkpoint_pod(&daemon, &pod, &[&id], &folder, Duration::from_secs(5)).await.unwrap_err(),
        restore_pod(&daemon, &folder, &daemon.pod("b"), vec![daemon.container("c", "x")]).await.unwrap_err(),
    ];
    for refused in all {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("install CRIU"), "{refused}");
    }
    daemon.empty().await;
}

#[test]
fn a_terminal_and_process_namespaces_of_containers_come_back() {
    let criu = needs_criu!();
    in_own_network(async {
        let daemon = start(&criu).await;
        // Without a word, as in the other tests, the containers of a pod share one.
        let pid = v1::NamespaceMode::Container.into();
        let options = Some(v1::NamespaceOption { pid, ..Default::default() });
        let shared = |name: &str| {
            let mut sandbox = daemon.pod(name);
            let context =
                v1::LinuxSandboxSecurityContext { namespace_options: options.clone(), ..Default::default() };
            sandbox.linux.as_mut().unwrap().security_context = Some(context);
            sandbox
        };
        let container = |name: &str| {
            let mut config =
                daemon.container(name, "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done");
            config.tty = name == "terminal";
            config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
                namespace_options: options.clone(),
                ..Default::default()
            });
            config
        };
        let sandbox = shared("a");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let mut ids = Vec::new();
        for name in ["terminal", "plain"] {
            let id = daemon.create(&pod, &sandbox, &container(name)).await.unwrap();
            daemon.start_container(&id).await.unwrap();
            counts_on(&daemon, "a", name, 5).await;
            ids.push(id);
        }
        let folder = daemon.path("saved");
        std::fs::create_dir(&folder).unwrap();
        let all: Vec<&str> = ids.iter().map(String::as_str).collect();
        checkpoint_pod(&daemon, &pod, &all, &folder, Duration::from_secs(60)).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        let both = vec![container("terminal"), container("plain")];
        let (pod, names) = restore_pod(&daemon, &folder, &shared("b"), both).await.unwrap();
        for name in ["terminal", "plain"] {
            daemon.start_container(&names[name]).await.unwrap();
            assert!(counts_on(&daemon, "b", name, 5).await > 5);
            let first = daemon.log_of("b", name).lines().find_map(|line| line.trim().parse::<i64>().ok());
            assert!(first.is_some_and(|first| first > 5), "{first:?}");
        }
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
