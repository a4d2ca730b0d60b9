//! What a client asks for: the pod and the container as the kubelet describes them, in words of our own.
//!
//! These types are compared to tell a retry from another request, and stored, so that a daemon started later knows what was asked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A pod to run (CRI `PodSandboxConfig` and the runtime handler).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodRequest {
    pub name: PodName,
    /// Empty: the built-in handler.
    pub handler: String,
    /// Empty: the pod has the host's name (host network) or its id's first digits.
    pub hostname: String,
    /// Where its containers' log files go; none: nothing is logged.
    pub log_directory: Option<PathBuf>,
    /// None: the host's resolv.conf is taken over.
    pub dns: Option<Dns>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// The cgroup below which the pod's containers go; none: one of the pod's own.
    pub cgroup_parent: Option<String>,
    pub sysctls: BTreeMap<String, String>,
    pub namespaces: Namespaces,
    pub privileged: bool,
    pub selinux: Option<SelinuxLabel>,
    pub user: UserChoice,
    pub seccomp: SecurityProfile,
    pub resources: Option<Resources>,
    pub overhead: Option<Resources>,
}

/// What names a pod uniquely on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PodName {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub attempt: u32,
}

impl std::fmt::Display for PodName {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{} (uid {}, attempt {})", self.namespace, self.name, self.uid, self.attempt)
    }
}

/// Lines of a resolv.conf(5).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the host that leads to one of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_port: u16,
    /// None: every address of the host.
    pub host_ip: Option<IpAddr>,
}

/// Whose namespace a pod or a container is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// The pod's own, shared by its containers.
    #[default]
    Pod,
    /// The container's own.
    Container,
    /// The host's.
    Host,
}

/// The process namespace of a container; another container's can be joined.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PidNamespace {
    /// One for all containers of the pod.
    Pod,
    #[default]
    Container,
    Host,
    /// That of the container with this id, in the same pod.
    Target(String),
}

/// The namespaces that a request chooses. Network and IPC are the pod's or the host's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    pub network: NamespaceMode,
    pub ipc: NamespaceMode,
    pub pid: PidNamespace,
    /// None: the host's users.
    pub user: Option<UserNamespace>,
}

/// Id maps of a pod with users of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UserNamespace {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

impl UserNamespace {
    /// The host's user that is `uid` inside; none: it is nobody there.
    pub fn host_uid(&self, uid: u32) -> Option<u32> {
        host_id(&self.uids, uid)
    }

    /// The host's group that is `gid` inside; none: it is nobody's there.
    pub fn host_gid(&self, gid: u32) -> Option<u32> {
        host_id(&self.gids, gid)
    }
}

fn host_id(mappings: &[IdMapping], id: u32) -> Option<u32> {
    mappings.iter().find_map(|mapping| {
        let offset = id.checked_sub(mapping.container_id).filter(|offset| *offset < mapping.length)?;
        mapping.host_id.checked_add(offset)
    })
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SelinuxLabel {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SecurityProfile {
    /// None was named.
    #[default]
    Unspecified,
    RuntimeDefault,
    Unconfined,
    /// A file of the node (seccomp) or a loaded profile (AppArmor).
    Localhost(String),
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UserChoice {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Looked up in the image; empty: none. With `uid` set, that goes first.
    pub username: String,
    pub supplemental_groups: Vec<u32>,
    pub groups_policy: GroupsPolicy,
}

/// Whether the image's `/etc/group` adds groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GroupsPolicy {
    #[default]
    Merge,
    Strict,
}

/// A container to create in a pod (CRI `ContainerConfig`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerRequest {
    pub name: String,
    pub attempt: u32,
    pub image: ImageChoice,
    /// Empty: the image's entrypoint.
    pub command: Vec<String>,
    /// Empty with an empty `command`: the image's command.
    pub args: Vec<String>,
    /// Empty: the image's, else `/`.
    pub working_dir: String,
    /// In order, later ones win. Values are bytes: an environment may hold anything but NUL.
    pub environment: Vec<(String, Vec<u8>)>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Fully qualified CDI names.
    pub cdi_devices: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Below the pod's log directory; empty: nothing is logged.
    pub log_path: PathBuf,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// A signal's number; none: the image's, else SIGTERM.
    pub stop_signal: Option<u8>,
    pub resources: Resources,
    pub security: ContainerSecurity,
}

/// Which image, and what the user called it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageChoice {
    /// What is resolved: an image id or a reference.
    pub image: String,
    /// What the pod's author wrote.
    pub user_specified: String,
    pub handler: String,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSecurity {
    pub privileged: bool,
    pub namespaces: Namespaces,
    pub selinux: Option<SelinuxLabel>,
    pub user: UserChoice,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub add_ambient_capabilities: Vec<String>,
    pub readonly_rootfs: bool,
    pub no_new_privileges: bool,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub seccomp: SecurityProfile,
    pub apparmor: SecurityProfile,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

/// A path of the host, or an image, in the container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub selinux_relabel: bool,
    pub propagation: Propagation,
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
    /// An image volume; `host_path` is empty then.
    pub image: Option<ImageChoice>,
    pub image_sub_path: PathBuf,
    /// `noexec`, `nodev`, `nosuid`.
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Device {
    pub container_path: PathBuf,
    pub host_path: PathBuf,
    /// Of `r`, `w` and `m`; empty: all.
    pub permissions: String,
}

/// Limits (CRI `LinuxContainerResources`). Zero and empty mean "not set", as in CRI.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub cpu_period_us: i64,
    pub cpu_quota_us: i64,
    pub cpu_shares: i64,
    pub memory_limit_bytes: i64,
    pub memory_swap_limit_bytes: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    /// Page size as the kernel spells it (`2MB`) and bytes.
    pub hugepage_limits: Vec<(String, u64)>,
    /// cgroup v2 files and what to write to them.
    pub unified: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_inside_have_one_outside() {
        let map = |host_id, length| vec![IdMapping { host_id, container_id: 0, length }];
        let users = UserNamespace { uids: map(100_000, 10), gids: map(u32::MAX, 10) };
        assert_eq!(
            [users.host_uid(0), users.host_uid(9), users.host_uid(10)],
            [Some(100_000), Some(100_009), None]
        );
        assert_eq!([users.host_gid(0), users.host_gid(1)], [Some(u32::MAX), None]);
    }
}
