//! What the daemon tells a new shim on its standard input, and the files a shim leaves in its pod's folder.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file of a bundle with variables that are not text.
pub use runtime::RAW_ENVIRONMENT;

/// The version of [`ShimConfig`] this shim understands.
pub const CONFIG_VERSION: u32 = 1;

/// The longest configuration that is read.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Everything a shim has to know before its first call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    pub version: u32,
    pub pod_id: String,
    /// The pod's folder below the state directory, absolute; it exists.
    pub pod_dir: PathBuf,
    /// Set in the pod's own uts namespace; ignored with the host's.
    pub hostname: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    pub namespaces: PodNamespaces,
    /// The pod's own users; none: the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<PodUsers>,
    /// Written below /proc/sys from inside the pod's namespaces; keys are dotted, as `net.ipv4.ip_forward`.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// The shim's own; clamped to what the kernel allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// None: what the shim is labelled with is as good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux: Option<PodLabels>,
    #[serde(default)]
    pub log_level: LogLevel,
    /// Where this host's control groups are, as `cgroup::Host::mounts` tells: so that nobody looks for them for each container. Empty: they do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cgroup_mounts: String,
    /// Who runs the containers, where that is not this program's own runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Foreign>,
}

/// A runtime of somebody else that runs a pod's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Foreign {
    /// A program with the command line of OCI runtimes.
    Oci(OciProgram),
    /// A containerd shim v2.
    Task(TaskShim),
}

/// A program with the command line of OCI runtimes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciProgram {
    /// Absolute.
    pub path: PathBuf,
    /// Words for every call, before everything else.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Where it keeps its state.
    pub root: PathBuf,
    #[serde(default)]
    pub systemd_cgroup: bool,
    /// Whether one process runs all containers of a pod, made with a container that stands for the pod: gVisor's way. The ends of the others are
    /// asked for by its command `wait`.
    #[serde(default)]
    pub pause: bool,
    /// How long one call of it may take.
    pub deadline_secs: u64,
}

/// Which namespaces the pod has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNamespaces {
    pub net: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts: NamespaceMode,
    pub pid: PidMode,
}

/// SELinux' labels of what stands for the pod among its containers: the first process of the pid namespace that they share, and its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodLabels {
    pub process: String,
    pub file: String,
}

/// The id maps of a pod's user namespace, in which its other namespaces are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUsers {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

/// A line of an id map (user_namespaces(7)): `count` ids from `inside` on are the host's from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

impl IdRange {
    pub(crate) fn to_sys(self) -> sys::users::IdRange {
        sys::users::IdRange { inside: self.inside, outside: self.outside, count: self.count }
    }
}

/// Whether the shim makes a namespace or stays in the one it was started in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    New,
    Host,
}

/// Where the containers' processes are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PidMode {
    /// Each container has its own namespace, made by the runtime.
    PerContainer,
    /// One for the pod, whose first process the shim forks.
    Pod,
    Host,
}

/// What the shim says on its standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    #[default]
    Warn,
    Info,
    Debug,
}

/// `shim.json`: how a daemon that was started anew finds the shim and knows that it is not another process of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Of this record.
    pub version: u32,
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub start_time: u64,
}

/// The socket a shim listens on.
pub fn socket_path(pod_dir: &Path) -> PathBuf {
    pod_dir.join("shim.sock")
}

/// The [`ShimRecord`].
pub fn record_path(pod_dir: &Path) -> PathBuf {
    pod_dir.join("shim.json")
}

/// The exit record of a container: a [`crate::protocol::Exit`] as JSON. It is there before anybody is told of the exit.
pub fn exit_path(pod_dir: &Path, container_id: &str) -> PathBuf {
    pod_dir.join("exits").join(format!("{container_id}.json"))
}

/// A containerd shim v2, of which one is started for the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskShim {
    /// The program, absolute.
    pub path: PathBuf,
    #[serde(default)]
    pub options: TaskOptions,
    /// Whether it wants a container that stands for the pod, before all others.
    #[serde(default)]
    pub pause: bool,
    /// Where it may make its socket, if it asks.
    pub socket_dir: PathBuf,
    /// How long one call of it may take.
    pub deadline_secs: u64,
}

/// What a shim is told of how to run containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskOptions {
    #[default]
    None,
    /// For runc's shim.
    Runc { binary: Option<PathBuf>, root: PathBuf, systemd_cgroup: bool },
    /// For those with a file of their own.
    Generic { type_url: String, config_path: PathBuf },
}

/// `task.json`: where the pod's foreign shim is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Of the Task service.
    pub version: i32,
    pub address: String,
    pub pid: u32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub start_time: u64,
}

/// The [`TaskRecord`].
pub fn task_record_path(pod_dir: &Path) -> PathBuf {
    pod_dir.join("task.json")
}

/// `sandbox.json`: the process that stands for a pod in a foreign runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
    pub start_time: u64,
}

/// The [`SandboxRecord`].
pub fn sandbox_record_path(pod_dir: &Path) -> PathBuf {
    pod_dir.join("sandbox.json")
}

/// The fifo that is a container's standard stream of that name, for a foreign shim.
pub(crate) fn stream_path(bundle: &Path, name: &str) -> PathBuf {
    bundle.join(name)
}

/// Where the root file systems of a foreign runtime's containers are attached, each in a folder of its container's name.
pub fn roots_path(pod_dir: &Path) -> PathBuf {
    pod_dir.join("roots")
}

/// Where the root file system of a container is attached for a foreign runtime.
pub fn root_path(pod_dir: &Path, container_id: &str) -> PathBuf {
    roots_path(pod_dir).join(container_id)
}

/// The same of the volume of that number. No id of a container has a colon.
pub fn volume_path(pod_dir: &Path, container_id: &str, number: usize) -> PathBuf {
    roots_path(pod_dir).join(format!("{container_id}:{number}"))
}

/// Where the runtime keeps the state of this pod's containers.
pub fn runtime_state_root(pod_dir: &Path) -> PathBuf {
    pod_dir.join("runtime")
}
