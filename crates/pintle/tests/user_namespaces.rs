//! Pods with users of their own: root in them is nobody on the host, and everything that a pod is made of belongs to its users.

mod support;

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use cri::runtime_v1 as v1;
use support::{Daemon, Setup, in_own_network};
use tonic::Code;

const UIDS: u32 = 300_000;
const GIDS: u32 = 400_000;
const COUNT: u32 = 65_536;

fn map(host_id: u32, container_id: u32, length: u32) -> v1::IdMapping {
    v1::IdMapping { host_id, container_id, length }
}

fn users() -> v1::UserNamespace {
    v1::UserNamespace {
        mode: v1::NamespaceMode::Pod.into(),
        uids: vec![map(UIDS, 0, COUNT)],
        gids: vec![map(GIDS, 0, COUNT)],
    }
}

fn options(config: &mut v1::PodSandboxConfig) -> &mut v1::NamespaceOption {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default()
}

/// A pod with users of its own, whose containers have pids of their own, as the kubelet asks for it.
fn pod_of(daemon: &Daemon, name: &str) -> v1::PodSandboxConfig {
    let mut config = daemon.pod(name);
    let options = options(&mut config);
    options.userns_options = Some(users());
    options.pid = v1::NamespaceMode::Container.into();
    config
}

fn container_of(
    daemon: &Daemon,
    pod: &v1::PodSandboxConfig,
    name: &str,
    script: &str,
) -> v1::ContainerConfig {
    let mut config = daemon.container(name, script);
    let asked = pod.linux.clone().unwrap().security_context.unwrap().namespace_options;
    let context = v1::LinuxContainerSecurityContext { namespace_options: asked, ..Default::default() };
    config.linux.get_or_insert_default().security_context = Some(context);
    config
}

async fn run(
    daemon: &Daemon,
    pod: &str,
    sandbox: &v1::PodSandboxConfig,
    config: &v1::ContainerConfig,
) -> String {
    let id = daemon.create(pod, sandbox, config).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    id
}

async fn pid_of(daemon: &Daemon, id: &str) -> String {
    let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = daemon.runtime().container_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].to_string()
}

fn namespace(pid: &str, kind: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = std::fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_in_the_pod_is_nobody_on_the_host() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let mut config = pod_of(&daemon, "users");
    let linux = config.linux.as_mut().unwrap();
    linux.sysctls = [("net.ipv4.ip_unprivileged_port_start", "81"), ("kernel.shmmax", "123456789")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked =
        container_of(&daemon, &config, "one", "echo said; echo again > /dev/stdout; exec sleep 1000");
    let context = asked.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    let add = vec!["NET_ADMIN".to_owned(), "SYS_ADMIN".to_owned()];
    context.capabilities = Some(v1::Capability { add_capabilities: add, ..Default::default() });
    let one = run(&daemon, &pod, &config, &asked).await;

    let pid = pid_of(&daemon, &one).await;
    assert_eq!(owner(Path::new(&format!("/proc/{pid}"))), (UIDS, GIDS));
    for kind in ["user", "net", "ipc", "uts", "pid", "mnt"] {
        assert_ne!(namespace(&pid, kind), namespace("thread-self", kind), "{kind}");
    }
    let looks = "cat /proc/self/uid_map; id -u; stat -c %u:%g / /etc/hosts /etc/resolv.conf /dev/shm /bin/busybox /tmp";
    let seen = daemon.sh(&one, looks).await;
    let mut lines = seen.lines();
    let words: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(words, ["0", "300000", "65536"]);
    assert_eq!(lines.collect::<Vec<_>>(), ["0", "0:0", "0:0", "0:0", "0:0", "0:0", "0:0"]);
    // The network and its sysctls are the pod's own, and so are the messages of ipc.
    daemon.sh(&one, "ip link add dummy0 type dummy; ip link set lo down; ip link set lo up").await;
    let sysctls =
        daemon.sh(&one, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmax").await;
    assert_eq!(sysctls, "81\n123456789\n");
    // What it writes belongs to its users, in every place where it may.
    daemon
        .sh(&one, "echo x > /new; echo x > /dev/shm/new; echo 127.0.0.1 me >> /etc/hosts; echo > /dev/null")
        .await;
    daemon
        .sh(
            &one,
            "head -c 9 /dev/urandom | wc -c; ls /sys/class/net /dev/mqueue /dev/pts/ptmx; test -c /dev/tty",
        )
        .await;
    let upper = daemon.path(&format!("root/rootfs/{one}/upper"));
    assert_eq!(owner(&upper), (UIDS, GIDS));
    assert_eq!(owner(&upper.join("new")), (UIDS, GIDS));
    let log = daemon.log_of("users", "one");
    assert_eq!(log, "said\nagain\n", "a stream can be opened again by its name");
    // It may not what only the host's root may.
    for script in [
        "mknod /tmp/d c 1 3",
        "echo 1 > /proc/sys/kernel/panic",
        "mount -o remount,rw /sys",
        "echo 5 > /proc/1/oom_score_adj && echo -999 > /proc/1/oom_score_adj",
    ] {
        let done = daemon.exec(&one, &["sh", "-c", script], 10).await.unwrap();
        assert_ne!(done.exit_code, 0, "{script}");
    }

    // A second container shares what containers of a pod share, as another user.
    let mut asked = container_of(&daemon, &config, "two", "id; sleep 1000");
    let context = asked.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.run_as_username = "user".into();
    let two = run(&daemon, &pod, &config, &asked).await;
    assert_eq!(
        daemon
            .sh(
                &two,
                "cat /dev/shm/new; id -u; touch /tmp/mine; stat -c %u:%g /tmp/mine; echo out > /dev/stdout"
            )
            .await,
        "x\n1000\n1000:1000\nout\n"
    );
    let second = pid_of(&daemon, &two).await;
    for kind in ["user", "net", "ipc", "uts"] {
        assert_eq!(namespace(&pid, kind), namespace(&second, kind), "{kind}");
    }
    let user = daemon.status(&two).await.unwrap().user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 1000, vec![1000, 2000]));
    // Statuses and statistics are as for any pod, also for a daemon that was started anew, and the pod takes further containers.
    daemon.kill();
    daemon.launch().await;
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = daemon.runtime().pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    let shown = status.linux.unwrap().namespaces.unwrap().options.unwrap();
    assert_eq!(shown.userns_options, Some(users()));
    assert!(!status.network.unwrap().ip.is_empty());
    let stats = daemon
        .runtime()
        .container_stats(v1::ContainerStatsRequest { container_id: one.clone() })
        .await
        .unwrap();
    assert!(stats.into_inner().stats.unwrap().memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert_eq!(daemon.sh(&one, "cat /new").await, "x\n");
    let three = run(&daemon, &pod, &config, &container_of(&daemon, &config, "three", "sleep 1000")).await;
    assert_eq!(daemon.sh(&three, "cat /dev/shm/new; stat -c %u /").await, "x\n0\n");
    assert_eq!(namespace(&pid, "user"), namespace(&pid_of(&daemon, &three).await, "user"));
    daemon.stop_container(&three, 0).await.unwrap();
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_one_process_namespace_see_each_other() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let mut config = pod_of(&daemon, "pids");
    options(&mut config).pid = v1::NamespaceMode::Pod.into();
    let pod = daemon.run_pod(&config).await.unwrap();
    let one = run(&daemon, &pod, &config, &container_of(&daemon, &config, "one", "exec sleep 1234")).await;
    let two = run(&daemon, &pod, &config, &container_of(&daemon, &config, "two", "exec sleep 5678")).await;
    let processes = daemon.sh(&two, "cat /proc/1/comm; cat /proc/*/cmdline | tr '\\000' ' '").await;
    assert!(processes.starts_with("pintle-init\n") && processes.contains("sleep 1234"), "{processes}");
    assert_eq!(daemon.sh(&two, "stat -c %u /proc/1").await, "0\n");
    daemon.sh(&two, "kill -9 $(grep -l 1234 /proc/[0-9]*/cmdline | cut -d/ -f3 | sort -n | head -n 1)").await;
    assert_eq!(daemon.exited(&one).await.exit_code, 137);
    // Another one's processes by name: a third container in the second's namespace.
    let mut asked = container_of(&daemon, &config, "three", "exec sleep 1000");
    let options =
        asked.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    (options.pid, options.target_id) = (v1::NamespaceMode::Target.into(), two.clone());
    let three = run(&daemon, &pod, &config, &asked).await;
    assert!(daemon.sh(&three, "cat /proc/*/cmdline | tr '\\000' ' '").await.contains("sleep 5678"));
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[test]
fn users_of_its_own_in_the_hosts_network() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let mut config = pod_of(&daemon, "host");
        options(&mut config).network = v1::NamespaceMode::Node.into();
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = run(&daemon, &pod, &config, &container_of(&daemon, &config, "c", "exec sleep 1000")).await;
        let pid = pid_of(&daemon, &id).await;
        assert_eq!(namespace(&pid, "net"), namespace("thread-self", "net"));
        assert_ne!(namespace(&pid, "user"), namespace("thread-self", "user"));
        assert_eq!(owner(Path::new(&format!("/proc/{pid}"))), (UIDS, GIDS));
        assert!(daemon.sh(&id, "ls /sys/class/net; cat /etc/hosts").await.contains("lo\n"));
        let done =
            daemon.exec(&id, &["sh", "-c", "ip link set lo down || echo x > /sys/kernel/mm/ksm/run"], 10);
        assert_ne!(done.await.unwrap().exit_code, 0, "the network is not its own");
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_in_volumes_are_mapped_as_asked() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let volume = daemon.path("volume");
    std::fs::create_dir(&volume).unwrap();
    for (name, id) in [("root", 0), ("user", 1000), ("far", 70_000), ("mapped", UIDS)] {
        std::fs::write(volume.join(name), name).unwrap();
        chown(volume.join(name), Some(id), Some(id)).unwrap();
    }
    let config = pod_of(&daemon, "volumes");
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = container_of(&daemon, &config, "c", "exec sleep 1000");
    let mount = |target: &str| v1::Mount {
        container_path: target.into(),
        host_path: volume.display().to_string(),
        ..Default::default()
    };
    let users = users();
    asked.mounts = vec![
        v1::Mount { uid_mappings: users.uids.clone(), gid_mappings: users.gids.clone(), ..mount("/mapped") },
        mount("/plain"),
    ];
    let id = run(&daemon, &pod, &config, &asked).await;
    let owners = daemon
        .sh(&id, "cd /mapped; stat -c %u root user far mapped; cd /plain; stat -c %u root user far mapped")
        .await;
    let (nobody, plain) = ("65534", ["65534", "65534", "65534", "0"]);
    let mapped = ["0", "1000", nobody, nobody];
    assert_eq!(owners.lines().collect::<Vec<_>>(), [mapped, plain].concat());
    daemon.sh(&id, "echo x > /mapped/new; echo x >> /mapped/root; mv /mapped/user /mapped/moved").await;
    assert_eq!(owner(&volume.join("new")), (0, 0));
    for script in
        ["echo x >> /mapped/far", "chmod 666 /mapped/far", "echo x > /plain/other", "echo x >> /plain/root"]
    {
        let done = daemon.exec(&id, &["sh", "-c", script], 10).await.unwrap();
        assert_ne!(done.exit_code, 0, "{script}");
    }
    let before = daemon.inventory().await;
    for bad in [
        v1::Mount { uid_mappings: users.uids.clone(), ..mount("/m") },
        v1::Mount { uid_mappings: vec![map(0, 0, COUNT)], gid_mappings: users.gids.clone(), ..mount("/m") },
        v1::Mount {
            uid_mappings: vec![map(u32::MAX, 0, COUNT)],
            gid_mappings: users.gids.clone(),
            ..mount("/m")
        },
        v1::Mount { propagation: v1::MountPropagation::PropagationBidirectional.into(), ..mount("/m") },
    ] {
        let mut asked = container_of(&daemon, &config, "bad", "true");
        asked.mounts = vec![bad];
        let error = daemon.create(&pod, &config, &asked).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("mounts[0]"), "{error}");
        assert_eq!(daemon.changed_since(&before, error.message()).await, None);
    }
    daemon.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn maps_that_cannot_be_are_refused() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let before = daemon.inventory().await;
    let (pod, node) = (v1::NamespaceMode::Pod, v1::NamespaceMode::Node);
    let good = map(UIDS, 0, COUNT);
    for (mode, uids, gids, field) in [
        (v1::NamespaceMode::Container, vec![good], vec![good], "userns_options.mode"),
        (v1::NamespaceMode::Target, vec![good], vec![good], "userns_options.mode"),
        (v1::NamespaceMode::Container, vec![], vec![], "userns_options.mode"),
        (node, vec![good], vec![good], "userns_options.uids"),
        (pod, vec![], vec![], "userns_options.uids"),
        (pod, vec![good], vec![], "userns_options.gids"),
        (pod, vec![good, map(9, COUNT, 1)], vec![good], "userns_options.uids"),
        (pod, vec![good, good], vec![good, good], "userns_options.uids"),
        (pod, vec![map(UIDS, 1, COUNT)], vec![good], "userns_options.uids"),
        (pod, vec![map(UIDS, 0, 0)], vec![good], "userns_options.uids"),
        (pod, vec![good], vec![map(u32::MAX, 0, 1)], "userns_options.gids"),
        (pod, vec![map(UIDS, 0, u32::MAX)], vec![good], "userns_options.uids"),
    ] {
        let mut config = daemon.pod("bad");
        options(&mut config).userns_options = Some(v1::UserNamespace { mode: mode.into(), uids, gids });
        let error = daemon.run_pod(&config).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(field), "{field}: {error}");
    }
    for change in [
        |o: &mut v1::NamespaceOption| o.pid = v1::NamespaceMode::Node.into(),
        |o: &mut v1::NamespaceOption| o.ipc = v1::NamespaceMode::Node.into(),
    ] {
        let mut config = pod_of(&daemon, "bad");
        change(options(&mut config));
        assert_eq!(daemon.run_pod(&config).await.unwrap_err().code(), Code::InvalidArgument);
    }
    // What only the kernel knows: it sets none of the sysctls of a namespace that is not the host's.
    let mut config = pod_of(&daemon, "bad");
    config.linux.as_mut().unwrap().sysctls = [("net.ipv4.no_such_thing".to_owned(), "1".to_owned())].into();
    assert_eq!(daemon.run_pod(&config).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(daemon.changed_since(&before, "refused pods").await, None);

    let mut config = pod_of(&daemon, "small");
    let small = v1::UserNamespace { uids: vec![map(UIDS, 0, 10)], gids: vec![map(GIDS, 0, 10)], ..users() };
    options(&mut config).userns_options = Some(small);
    let id = daemon.run_pod(&config).await.unwrap();
    let before = daemon.inventory().await;
    let mut other = container_of(&daemon, &config, "other", "true");
    let context = other.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().userns_options = Some(users());
    let mut nobody = container_of(&daemon, &config, "nobody", "true");
    nobody.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user =
        Some(v1::Int64Value { value: 10 });
    let mut group = container_of(&daemon, &config, "group", "true");
    group.linux.as_mut().unwrap().security_context.as_mut().unwrap().supplemental_groups = vec![10];
    for (asked, words) in [(other, "user namespace"), (nobody, "user 10"), (group, "group 10")] {
        let error = daemon.create(&id, &config, &asked).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains(words), "{error}");
        assert_eq!(daemon.changed_since(&before, words).await, None);
    }
    // Ten users are enough for what needs only some.
    let id = run(&daemon, &id, &config, &container_of(&daemon, &config, "some", "exec sleep 1000")).await;
    assert_eq!(daemon.sh(&id, "stat -c %u /").await, "0\n");
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_containers_and_devices_have_the_hosts_nodes() {
    needs_a_node!();
    let daemon = Daemon::start_as(Setup::default()).await;
    let mut config = pod_of(&daemon, "devices");
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = container_of(&daemon, &config, "plain", "exec sleep 1000");
    let device = |inside: &str| v1::Device {
        host_path: "/dev/zero".into(),
        container_path: inside.into(),
        permissions: "r".into(),
    };
    asked.devices = vec![device("/dev/nought"), device("/dev/zero")];
    let plain = run(&daemon, &pod, &config, &asked).await;
    assert_eq!(
        daemon.sh(&plain, "head -c 3 /dev/nought | wc -c; head -c 3 /dev/zero | wc -c").await,
        "3\n3\n"
    );
    let mut asked = container_of(&daemon, &config, "privileged", "exec sleep 1000");
    asked.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let id = run(&daemon, &pod, &config, &asked).await;
    assert_eq!(
        daemon
            .sh(&id, "id -u; mount -t tmpfs x /tmp; echo x > /tmp/x; cat /proc/self/uid_map | tr -s ' '")
            .await,
        "0\n 0 300000 65536\n"
    );
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kubelet_is_told_that_they_are_possible() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let status = daemon.runtime().status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner();
    let features = status.runtime_handlers[0].features.unwrap();
    assert!(features.user_namespaces && features.recursive_read_only_mounts);
    assert!(status.features.unwrap().user_namespaces_host_network);
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert_eq!(config["stateDir"], daemon.path("state").display().to_string());
}
