//! What every operation on this node may use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::id::{ContainerId, PodId};

use crate::actor::{Actors, PodHandle};
use crate::records::Records;
use crate::shim_client::ShimBinary;
use crate::snapshot::Published;

/// How the node is set up. Everything here is settled before the first pod.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// What a reboot should forget: sockets, bundles, exit records. On tmpfs.
    pub state_dir: PathBuf,
    /// Who makes cgroups, which the kubelet is told to do in the same way.
    pub cgroup_driver: cgroup::Driver,
    /// Where files describe CDI devices, the later the more they count.
    pub cdi_dirs: Vec<PathBuf>,
    /// Where files say which hooks containers get.
    pub hooks_dirs: Vec<PathBuf>,
    pub checkpoint: CheckpointConfig,
    /// How long layers and kept blobs stay that nobody needs.
    pub gc_after: std::time::Duration,
    pub security: SecurityConfig,
    /// The runtime handlers that pods may ask for beside the empty one.
    pub handlers: Vec<crate::handlers::HandlerConfig>,
    /// Which of them pods mean that ask for none; empty: the runtime of this program, with nothing changed.
    pub default_handler: String,
}

/// What the kernel's security modules are used for.
#[derive(Debug, Clone)]
pub struct SecurityConfig {
    /// The AppArmor profile of containers that name none; `unconfined` for none.
    pub apparmor_profile: String,
    /// Whether containers are labelled where the kernel has SELinux on.
    pub selinux: bool,
}

impl Default for SecurityConfig {
    fn default() -> SecurityConfig {
        SecurityConfig { apparmor_profile: lsm::apparmor::DEFAULT_PROFILE.into(), selinux: true }
    }
}

/// How containers are checkpointed and restored.
#[derive(Debug, Clone)]
pub struct CheckpointConfig {
    /// The program CRIU: a path, or a name that is looked for where programs are.
    pub criu: PathBuf,
    /// Where checkpoints are put together. It belongs to this daemon, which empties it when it starts.
    pub work_dir: PathBuf,
}

pub(crate) struct Context {
    pub(crate) config: NodeConfig,
    pub(crate) records: Records,
    pub(crate) published: Published,
    pub(crate) images: Arc<image::Images>,
    pub(crate) networks: Arc<network::Networks>,
    /// The plugins that are told of every pod and container; possibly none.
    pub(crate) nri: nri::Nri,
    /// The devices that files describe.
    pub(crate) devices: cdi::Registry,
    /// The hooks that the node's administrator gives containers.
    pub(crate) hooks: hooks::Folders,
    pub(crate) handlers: crate::handlers::Handlers,
    pub(crate) shim: ShimBinary,
    pub(crate) cgroups: cgroup::Host,
    pub(crate) host: spec::HostFacts,
    pub(crate) confinement: crate::confinement::Confinement,
    pub(crate) actors: Mutex<Actors>,
    pub(crate) open_files: crate::open_files::Inherited,
    pub(crate) samples: crate::stats::Kept,
    pub(crate) layers: crate::stats::Layers,
    pub(crate) criu: crate::checkpoint::Criu,
    /// Whether pods can have users of their own, once somebody has asked.
    pub(crate) can_map_ids: std::sync::OnceLock<bool>,
}

impl Context {
    /// The pod's folder below the state directory.
    pub(crate) fn pod_dir(&self, pod: &PodId) -> PathBuf {
        self.config.state_dir.join("pods").join(pod.as_str())
    }

    /// The OCI bundle of a container: its `config.json`.
    pub(crate) fn bundle(&self, pod: &PodId, container: &ContainerId) -> PathBuf {
        self.pod_dir(pod).join("containers").join(container.as_str())
    }

    pub(crate) fn handle(&self, pod: &PodId) -> Option<PodHandle> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).get(pod).cloned()
    }

    pub(crate) fn adopt(&self, pod: PodId, handle: PodHandle) {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).insert(pod, handle);
    }

    /// Takes a removed pod out of everything that is read.
    pub(crate) fn forget(&self, pod: &Arc<crate::record::PodRecord>) {
        self.published.remove_pod(pod);
        self.confinement.release(&pod.id);
        self.actors.lock().unwrap_or_else(PoisonError::into_inner).remove(&pod.id);
    }

    pub(crate) fn new_pod_id(&self) -> PodId {
        PodId::from_random(random())
    }

    pub(crate) fn new_container_id(&self) -> ContainerId {
        ContainerId::from_random(random())
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Context").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A name for one further process of a container.
pub(crate) fn new_exec_id() -> String {
    ContainerId::from_random(random()).short().to_owned()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // getrandom(2) fails only before the kernel's pool is ready, and then it is worth waiting for.
        if let Ok(got) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
        {
            filled += got;
        }
    }
    bytes
}

/// Runs `work`, which may wait for a disk, where it holds up no other call.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// Removes a tree of our own; that it is gone already is fine.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
