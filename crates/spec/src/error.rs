//! Why no spec can be made of a request.

use std::path::PathBuf;

use crate::path::BadPath;
use crate::resources::ResourceError;
use crate::seccomp_profile::ProfileError;

/// Why a container request is refused. Each variant names the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("no command: neither the request nor the image names one; set `command` or `args`")]
    NoCommand,
    #[error("{field}[{index}] holds a NUL byte, which no argument can")]
    ArgumentWithNul { field: &'static str, index: usize },
    #[error("environment variable {name:?}: {why}")]
    Environment { name: String, why: &'static str },
    #[error("working directory of the {from}: {path}")]
    WorkingDir { from: &'static str, path: BadPath },
    #[error("mounts[{index}].container_path: {path}")]
    MountTarget { index: usize, path: BadPath },
    #[error("mounts[{index}]: nothing can be mounted on {target:?}: {why}")]
    MountTargetForbidden { index: usize, target: PathBuf, why: &'static str },
    #[error("mounts[{index}].host_path for {target:?}: {path}")]
    MountSource { index: usize, target: PathBuf, path: BadPath },
    #[error("mounts[{index}] and mounts[{first}] are both mounted on {target:?}; remove one")]
    MountTwice { first: usize, index: usize, target: PathBuf },
    #[error("mounts[{index}] on {target:?}: recursive_read_only needs {needs}")]
    RecursiveReadOnly { index: usize, target: PathBuf, needs: &'static str },
    #[error("mounts[{index}] on {target:?}: option {option:?} is not one of noexec, nodev, nosuid")]
    MountOption { index: usize, target: PathBuf, option: String },
    #[error("mounts[{index}] on {target:?}: id mapping {why}")]
    MountIdMapping { index: usize, target: PathBuf, why: &'static str },
    #[error(
        "mounts[{index}] on {target:?}: bidirectional propagation is not possible in a pod with a user namespace"
    )]
    MountPropagation { index: usize, target: PathBuf },
    #[error("mounts[{index}] on {target:?} is made of an image: {why}")]
    ImageVolume { index: usize, target: PathBuf, why: &'static str },
    #[error("{list}: no capability is called {name:?}")]
    UnknownCapability { list: &'static str, name: String },
    #[error("{list}: CAP_{name} cannot be given, because this node's runtime does not have it itself")]
    CapabilityNotHeld { list: &'static str, name: String },
    #[error(
        "a privileged container needs a privileged pod; set `privileged` in the security context of both"
    )]
    PrivilegedInPlainPod,
    #[error("the container asks for the host's {namespace} namespace, but its pod does not; both must")]
    HostNamespace { namespace: &'static str },
    #[error(
        "the container asks for another user namespace than its pod has; leave userns_options out, or repeat the pod's"
    )]
    UserNamespace,
    #[error("{what} {id} is nobody in the pod's user namespace, which has {count} of them")]
    UnmappedId { what: &'static str, id: u32, count: u32 },
    #[error("device {path:?}: permissions {permissions:?} are not made of r, w and m, each once")]
    DevicePermissions { path: PathBuf, permissions: String },
    #[error("devices[{index}].container_path: {path}")]
    DevicePath { index: usize, path: BadPath },
    #[error("two different devices are to be at {path:?}; remove one")]
    DeviceTwice { path: PathBuf },
    #[error("{list}[{index}]: {path}")]
    ProtectedPath { list: &'static str, index: usize, path: BadPath },
    #[error("AppArmor profile {profile:?}: {why}")]
    Apparmor { profile: String, why: &'static str },
    #[error(transparent)]
    Resources(#[from] ResourceError),
    #[error(transparent)]
    Seccomp(#[from] ProfileError),
}

/// What kind of refusal a [`SpecError`] is; the protocol's code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request itself is wrong.
    Invalid,
    /// The request is right, but this machine or daemon cannot do it.
    HostLacks,
}

impl SpecError {
    /// Whose fault it is.
    pub fn refusal(&self) -> Refusal {
        use SpecError::*;
        match self {
            NoCommand
            | ArgumentWithNul { .. }
            | Environment { .. }
            | WorkingDir { .. }
            | MountTarget { .. }
            | MountTargetForbidden { .. }
            | MountSource { .. }
            | MountTwice { .. }
            | RecursiveReadOnly { .. }
            | MountOption { .. }
            | MountIdMapping { .. }
            | MountPropagation { .. }
            | ImageVolume { .. }
            | UserNamespace
            | UnmappedId { .. }
            | UnknownCapability { .. }
            | PrivilegedInPlainPod
            | HostNamespace { .. }
            | DevicePermissions { .. }
            | DevicePath { .. }
            | DeviceTwice { .. }
            | ProtectedPath { .. }
            | Seccomp(_) => Refusal::Invalid,
            CapabilityNotHeld { .. } | Apparmor { .. } => Refusal::HostLacks,
            Resources(error) => error.refusal(),
        }
    }
}
