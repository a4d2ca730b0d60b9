//! What the spec of a container is made from: the request, and the facts of image, host and pod that somebody else has read.

use std::path::PathBuf;

use model::id::{ContainerId, PodId};
use model::request::{ContainerRequest, PodRequest};
use oci_spec::runtime::Capabilities;
use seccomp::{Architecture, KernelVersion};

use crate::seccomp_profile::SeccompPlan;
use crate::user::ResolvedUser;

/// Everything that [`crate::container_spec`] looks at.
#[derive(Debug, Clone)]
pub struct SpecInput<'a> {
    pub pod_id: &'a PodId,
    pub pod: &'a PodRequest,
    pub container_id: &'a ContainerId,
    pub container: &'a ContainerRequest,
    pub image: &'a ImageFacts,
    pub user: &'a ResolvedUser,
    pub host: &'a HostFacts,
    pub files: &'a PodFiles,
    pub namespaces: &'a NamespacePlan,
    /// The devices of the request, with what stat(2) says of their host paths. A directory is one entry for each device in it.
    pub devices: &'a [RequestedDevice],
    /// As the runtime spec's `linux.cgroupsPath`: a path, or `slice:prefix:name` for systemd.
    pub cgroups_path: &'a str,
    pub seccomp: &'a SeccompPlan,
    pub selinux: &'a SelinuxLabels,
}

/// What the image's configuration says. Hostile: an image may say anything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFacts {
    /// What the pod's author called it; goes into an annotation.
    pub name: String,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
}

/// What the machine and the daemon have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    pub hostname: String,
    pub cgroup: CgroupVersion,
    /// Of the running kernel; the default seccomp profile follows it.
    pub kernel: KernelVersion,
    pub architecture: Architecture,
    /// The daemon's bounding set: nothing outside of it can be given to a container.
    pub capabilities: Capabilities,
    /// All devices of the host, for privileged containers.
    pub devices: Vec<HostDevice>,
    /// Page sizes with a hugetlb controller, as the kernel spells them (`2MB`); empty: there is none.
    pub hugepage_sizes: Vec<String>,
    /// The lowest `oom_score_adj` that the daemon may give; none: any.
    pub oom_score_adj_floor: Option<i32>,
    /// None: the kernel does not enforce AppArmor.
    pub apparmor: Option<Apparmor>,
}

/// The labels that SELinux keeps a container apart by; none where it does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelinuxLabels {
    /// Of its processes.
    pub process: Option<String>,
    /// Of the file systems that are made for it.
    pub mount: Option<String>,
}

/// What AppArmor offers here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Apparmor {
    /// The profile for `RuntimeDefault`, where one is loaded.
    pub default_profile: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceKind {
    Block,
    Character,
    Fifo,
}

/// A device node of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    pub path: PathBuf,
    pub kind: DeviceKind,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A device that the request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedDevice {
    pub container_path: PathBuf,
    pub host: HostDevice,
    /// Of `r`, `w` and `m`; empty: all.
    pub permissions: String,
}

/// Files of the pod that its containers see. None: the container has the image's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodFiles {
    pub hosts: Option<PathBuf>,
    pub resolv_conf: Option<PathBuf>,
    pub hostname: Option<PathBuf>,
    /// The directory behind `/dev/shm`; the host's `/dev/shm` in a pod of the host's IPC namespace. None: the container has its own.
    pub shm: Option<PathBuf>,
}

/// The namespaces to join, by path; none: the host's. Mount and cgroup namespaces are always the container's own business.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespacePlan {
    pub network: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    /// That of a pod with users of its own.
    pub user: Option<PathBuf>,
    pub pid: PidPlan,
}

/// The process namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PidPlan {
    /// A new one.
    #[default]
    Own,
    /// The pod's or another container's.
    Path(PathBuf),
    Host,
}
