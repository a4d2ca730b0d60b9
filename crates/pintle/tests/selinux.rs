//! SELinux: labels of containers, levels that keep pods apart, and volumes that are relabelled. Where SELinux is off there is nothing to see.

mod support;

use std::path::Path;

use cri::runtime_v1 as v1;
use support::Daemon;
use tonic::Code;

const LABEL: &str = "tr -d '\\0' < /proc/self/attr/current";

macro_rules! needs_selinux {
    () => {
        needs_a_node!();
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            println!("SKIPPED: SELinux is not enabled");
            return;
        }
        if std::fs::write("/sys/fs/selinux/context", "system_u:system_r:container_t:s0").is_err() {
            println!("SKIPPED: SELinux's policy has no types for containers");
            return;
        }
    };
}

/// A container of the pod that goes on until it is stopped.
async fn create(
    daemon: &Daemon,
    pod: (&str, &v1::PodSandboxConfig),
    name: &str,
    change: impl FnOnce(&mut v1::ContainerConfig),
) -> Result<String, tonic::Status> {
    let mut config = daemon.container(name, "exec sleep 1000");
    change(&mut config);
    let id = daemon.create(pod.0, pod.1, &config).await?;
    daemon.start_container(&id).await?;
    Ok(id)
}

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn volume(config: &mut v1::ContainerConfig, host: &Path, selinux_relabel: bool) {
    let (host_path, container_path) = (host.display().to_string(), "/data".into());
    config.mounts.push(v1::Mount { host_path, container_path, selinux_relabel, ..Default::default() });
}

/// The label's type and level, that is what follows it.
fn parts(label: &str) -> (&str, &str) {
    let mut parts = label.splitn(4, ':').skip(2);
    (parts.next().unwrap(), parts.next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_a_level_of_its_own_for_as_long_as_it_lives() {
    needs_selinux!();
    let mut daemon = Daemon::start().await;
    let (one, other) = (daemon.pod("one"), daemon.pod("other"));
    let ids = [daemon.run_pod(&one).await.unwrap(), daemon.run_pod(&other).await.unwrap()];
    let pods = [(ids[0].as_str(), &one), (ids[1].as_str(), &other)];
    // Its command is process 1 then.
    let pid = v1::NamespaceMode::Container.into();
    let own = v1::NamespaceOption { pid, ..Default::default() };
    let alone = |config: &mut v1::ContainerConfig| security(config).namespace_options = Some(own);
    let first = create(&daemon, pods[0], "first", alone).await.unwrap();
    let label = daemon.sh(&first, LABEL).await;
    let (kind, level) = parts(&label);
    assert_eq!(kind, "container_t");
    assert!(level.starts_with("s0:c") && level.contains(','), "{level}");
    // Its command and what is executed beside it, and all that was mounted for it.
    assert_eq!(daemon.sh(&first, "tr -d '\\0' < /proc/1/attr/current").await, label);
    let mounts = daemon.sh(&first, "cat /proc/self/mountinfo").await;
    for place in [" / / ", " /dev ", " /dev/shm "] {
        let line =
            mounts.lines().find(|line| line.contains(place)).unwrap_or_else(|| panic!("{place}:\n{mounts}"));
        assert!(line.contains(&format!("object_r:container_file_t:{level}\"")), "{line}");
    }
    daemon
        .sh(&first, "echo x > /new; echo x > /dev/shm/new; cat /etc/hosts /etc/resolv.conf /etc/hostname")
        .await;

    let another = create(&daemon, pods[1], "another", |_| ()).await.unwrap();
    let different = daemon.sh(&another, LABEL).await;
    assert_ne!(parts(&different).1, level);

    // A daemon that starts later gives the pod's containers the same.
    daemon.kill();
    daemon.launch().await;
    let second = create(&daemon, pods[0], "second", |_| ()).await.unwrap();
    assert_eq!(daemon.sh(&second, LABEL).await, label);
    assert_eq!(daemon.sh(&second, "cat /dev/shm/new").await, "x\n");
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_for_the_pod_that_it_was_relabelled_for() {
    needs_selinux!();
    let daemon = Daemon::start().await;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("deep")).unwrap();
    std::fs::write(data.join("deep/file"), "hello\n").unwrap();
    let (one, other) = (daemon.pod("one"), daemon.pod("other"));
    let ids = [daemon.run_pod(&one).await.unwrap(), daemon.run_pod(&other).await.unwrap()];
    let pods = [(ids[0].as_str(), &one), (ids[1].as_str(), &other)];
    let read = async |id: &str| {
        let done =
            daemon.exec(id, &["sh", "-c", "cat /data/deep/file && echo more >> /data/deep/file"], 20).await;
        done.unwrap().exit_code == 0
    };

    let plain = create(&daemon, pods[0], "plain", |config| volume(config, &data, false)).await.unwrap();
    assert!(!read(&plain).await, "what is the host's is denied");
    let mine = create(&daemon, pods[0], "mine", |config| volume(config, &data, true)).await.unwrap();
    assert!(read(&mine).await && read(&plain).await, "the pod's own");
    let stranger = create(&daemon, pods[1], "stranger", |config| volume(config, &data, false)).await.unwrap();
    assert!(!read(&stranger).await, "another pod's");
    let thief = create(&daemon, pods[1], "taken", |config| volume(config, &data, true)).await.unwrap();
    assert!(read(&thief).await && !read(&mine).await, "relabelled for another");

    for host in ["/etc", "/usr/bin"] {
        let refused = create(&daemon, pods[0], "host", |config| volume(config, Path::new(host), true)).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().contains("selinux_relabel") && refused.message().contains(host),
            "{refused}"
        );
    }
    daemon.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_count_and_wrong_ones_are_refused() {
    needs_selinux!();
    let daemon = Daemon::start().await;
    let mut sandbox = daemon.pod("options");
    let context = sandbox.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.privileged = true;
    let level = "s0:c7,c77".to_owned();
    context.selinux_options = Some(v1::SeLinuxOption { level, ..Default::default() });
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let pod = (pod.as_str(), &sandbox);
    let label = async |id: &str| daemon.sh(id, LABEL).await;

    let plain = create(&daemon, pod, "plain", |_| ()).await.unwrap();
    assert_eq!(label(&plain).await, "system_u:system_r:container_t:s0:c7,c77");
    let own =
        v1::SeLinuxOption { level: "s0:c8".into(), r#type: "svirt_lxc_net_t".into(), ..Default::default() };
    let own =
        create(&daemon, pod, "own", |config| security(config).selinux_options = Some(own)).await.unwrap();
    assert_eq!(label(&own).await, "system_u:system_r:container_t:s0:c8");
    for id in [&own, &plain] {
        daemon.sh(id, "cat /etc/hosts /etc/hostname /etc/resolv.conf").await;
    }
    // Keeping a privileged container apart would only break it.
    let strong = create(&daemon, pod, "strong", |config| security(config).privileged = true).await.unwrap();
    assert_eq!(parts(&label(&strong).await).0, "spc_t");

    let wrong = v1::SeLinuxOption { level: "s0,c4,c5".into(), ..Default::default() };
    let refused =
        create(&daemon, pod, "wrong", |config| security(config).selinux_options = Some(wrong.clone())).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("container_t:s0,c4,c5"), "{refused}");
    let mut bad = daemon.pod("bad");
    bad.linux.get_or_insert_default().security_context.get_or_insert_default().selinux_options = Some(wrong);
    assert_eq!(daemon.run_pod(&bad).await.unwrap_err().code(), Code::InvalidArgument);

    let mut shared = daemon.pod("host-pids");
    let namespaces = v1::NamespaceOption { pid: v1::NamespaceMode::Node.into(), ..Default::default() };
    let context = shared.linux.get_or_insert_default().security_context.get_or_insert_default();
    context.namespace_options = Some(namespaces.clone());
    let pod = daemon.run_pod(&shared).await.unwrap();
    let sees = |config: &mut v1::ContainerConfig| security(config).namespace_options = Some(namespaces);
    let id = create(&daemon, (&pod, &shared), "sees", sees).await.unwrap();
    assert_eq!(parts(&label(&id).await).0, "spc_t");
    daemon.empty().await;
}
