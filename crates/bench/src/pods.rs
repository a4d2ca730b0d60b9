//! The pods that are measured, described as a kubelet describes them.

use crate::target::Target;
use anyhow::{Context, Result};
use cri::runtime_v1 as v1;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Label of every pod made here.
pub(crate) const LABEL: &str = "pintle.bench";

/// The argument of `sleep` in the containers: a number by which their processes are told from the runtime's helpers.
pub(crate) const MARKER: &str = "86397";

/// Which network a pod is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    Pod,
    Host,
}

impl Network {
    /// Its word in the report.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Network::Pod => "pod",
            Network::Host => "host",
        }
    }

    fn mode(self) -> i32 {
        match self {
            Network::Pod => v1::NamespaceMode::Pod.into(),
            Network::Host => v1::NamespaceMode::Node.into(),
        }
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A shell that ends on SIGTERM.
    Shell,
    /// `sleep` as process 1, which does not.
    Sleep,
}

/// What all pods have in common.
pub(crate) struct Plan {
    pub(crate) image: String,
    pub(crate) cgroup_parent: String,
    /// Logs and the sources of mounts.
    pub(crate) directory: PathBuf,
}

/// A pod with its container's configuration.
pub(crate) struct Described {
    pub(crate) pod: v1::PodSandboxConfig,
    pub(crate) container: v1::ContainerConfig,
}

impl Plan {
    /// Makes the files that are mounted.
    pub(crate) fn prepare(&self) -> Result<()> {
        std::fs::create_dir_all(self.directory.join("token")).context("making the pods' directory")?;
        std::fs::write(self.directory.join("hosts"), "127.0.0.1 localhost\n")?;
        std::fs::write(self.directory.join("token/token"), "x")?;
        std::fs::write(self.directory.join("termination-log"), "")?;
        Ok(())
    }

    /// A pod with a name of its own.
    pub(crate) fn describe(&self, network: Network, program: Program) -> Result<Described> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("bench-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let logs = self.directory.join("logs").join(&name);
        std::fs::create_dir_all(logs.join("main")).context("making a log directory")?;
        let namespaces = v1::NamespaceOption {
            network: network.mode(),
            pid: v1::NamespaceMode::Container.into(),
            ..Default::default()
        };
        let labels: std::collections::BTreeMap<_, _> = [
            (LABEL, "1"),
            ("io.kubernetes.pod.name", &name),
            ("io.kubernetes.pod.namespace", "bench"),
            ("io.kubernetes.pod.uid", &name),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let pod = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "bench".into(),
                attempt: 0,
            }),
            hostname: if network == Network::Pod { name.clone() } else { String::new() },
            log_directory: logs.display().to_string(),
            dns_config: Some(v1::DnsConfig {
                servers: vec!["10.96.0.10".into()],
                searches: vec!["default.svc.cluster.local".into(), "svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
            }),
            labels: labels.clone(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.cgroup_parent),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces.clone()),
                    seccomp: Some(v1::SecurityProfile::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(Described { pod, container: self.container(namespaces, program, labels) })
    }

    fn container(
        &self,
        namespaces: v1::NamespaceOption,
        program: Program,
        labels: std::collections::BTreeMap<String, String>,
    ) -> v1::ContainerConfig {
        let command: &[&str] = match program {
            Program::Shell => &["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 86397 & wait; done"],
            Program::Sleep => &["sleep", MARKER],
        };
        let text = |path: &Path| path.display().to_string();
        let mount = |host: &str, container: &str, readonly| v1::Mount {
            host_path: text(&self.directory.join(host)),
            container_path: container.into(),
            readonly,
            ..Default::default()
        };
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(v1::ImageSpec {
                image: self.image.clone(),
                user_specified_image: self.image.clone(),
                ..Default::default()
            }),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            envs: environment(),
            mounts: vec![
                mount("hosts", "/etc/hosts", false),
                mount("token", "/var/run/secrets/kubernetes.io/serviceaccount", true),
                mount("termination-log", "/dev/termination-log", false),
            ],
            labels,
            log_path: "main/0.log".into(),
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(v1::LinuxContainerResources {
                    cpu_period: 100_000,
                    cpu_quota: 100_000,
                    cpu_shares: 102,
                    memory_limit_in_bytes: 64 << 20,
                    oom_score_adj: 999,
                    ..Default::default()
                }),
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces),
                    seccomp: Some(v1::SecurityProfile::default()),
                    masked_paths: paths(&[
                        "/proc/acpi",
                        "/proc/kcore",
                        "/proc/keys",
                        "/proc/latency_stats",
                        "/proc/timer_list",
                        "/proc/scsi",
                        "/sys/firmware",
                    ]),
                    readonly_paths: paths(&[
                        "/proc/bus",
                        "/proc/fs",
                        "/proc/irq",
                        "/proc/sys",
                        "/proc/sysrq-trigger",
                    ]),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }
}

fn paths(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|&path| path.to_owned()).collect()
}

/// As many variables as a pod of a small cluster has.
fn environment() -> Vec<v1::KeyValue> {
    let names =
        ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBERNETES_PORT", "KUBERNETES_PORT_443_TCP"];
    names.iter().map(|&key| v1::KeyValue { key: key.into(), value: b"10.96.0.1".to_vec() }).collect()
}

/// The ids of a running pod.
pub(crate) struct Running {
    pub(crate) pod: String,
    pub(crate) container: String,
}

impl Running {
    /// Has the pod run, with its container.
    pub(crate) async fn start(target: &Target, described: Described) -> Result<Running> {
        let mut runtime = target.runtime();
        let run = v1::RunPodSandboxRequest { config: Some(described.pod.clone()), ..Default::default() };
        let pod = runtime.run_pod_sandbox(run).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
        let create = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(described.container),
            sandbox_config: Some(described.pod),
        };
        let answer = runtime.create_container(create).await.context("CreateContainer")?;
        let container = answer.into_inner().container_id;
        let start = v1::StartContainerRequest { container_id: container.clone() };
        runtime.start_container(start).await.context("StartContainer")?;
        Ok(Running { pod, container })
    }

    /// Removes it without measuring.
    pub(crate) async fn remove(&self, target: &Target) -> Result<()> {
        let stop = v1::StopContainerRequest { container_id: self.container.clone(), timeout: 0 };
        target.runtime().stop_container(stop).await.context("StopContainer")?;
        let id = self.pod.clone();
        let stop = v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
        target.runtime().stop_pod_sandbox(stop).await.context("StopPodSandbox")?;
        let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: id };
        target.runtime().remove_pod_sandbox(remove).await.context("RemovePodSandbox")?;
        Ok(())
    }
}

/// Removes the control groups of the pods in every hierarchy: the runtimes leave what a kubelet would have made.
pub(crate) fn remove_control_groups(parent: &str) {
    let name = parent.trim_matches('/');
    let hierarchies =
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in std::iter::once(PathBuf::from("/sys/fs/cgroup")).chain(hierarchies) {
        let group = hierarchy.join(name);
        // Without a name it would be the hierarchy itself.
        if !name.is_empty()
            && group.is_dir()
            && let Err(error) = remove_tree(&group)
        {
            eprintln!("removing {}: {error}", group.display());
        }
    }
}

fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match std::fs::remove_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
