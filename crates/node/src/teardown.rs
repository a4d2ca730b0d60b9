//! Taking away what was made for a container or a pod: the one way of it, for a failed making, a removal and a recovery alike.
//!
//! Every step is idempotent. A step that fails keeps none of the later ones from being tried, and the first failure is reported; as
//! the record stays then, all of it is tried again by whoever asks next, also after a restart.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::id::{ContainerId, PodId};
use tracing::warn;

use crate::context::{Context, blocking, remove_tree};
use crate::error::Fault;
use crate::pod_shim::PodShim;
use crate::record::PodCgroup;
use crate::shim_client::ShimError;
use crate::stage::stage;

/// How long a cgroup may stay busy after its last process has ended.
const CGROUP_BUSY: Duration = Duration::from_secs(5);

/// How long the end of a container may take once it is under way: longer than its shim waits for the last output.
const ENDING: Duration = Duration::from_secs(10);

/// How long to wait before a shim that is ending is asked again.
const AGAIN: Duration = Duration::from_millis(10);

/// The first and the longest pause between two attempts to take down what stays owed.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The step that failed first.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(crate) stage: &'static str,
    pub(crate) fault: Fault,
}

/// Remembers the first failure of several steps and logs them all.
#[derive(Default)]
struct Steps {
    first: Option<Leftover>,
}

impl Steps {
    fn note(&mut self, object: &str, stage: &'static str, result: Result<(), Fault>) {
        if let Err(fault) = result {
            warn!(object, stage, %fault, "could not be taken down; it stays owed");
            self.first.get_or_insert(Leftover { stage, fault });
        }
    }

    fn finish(self) -> Result<(), Leftover> {
        self.first.map_or(Ok(()), Err)
    }
}

/// Takes away a container: its process, its root file system and its bundle. Its row is the caller's.
pub(crate) async fn container(
    context: &Context,
    pod: &PodId,
    id: &ContainerId,
    shim: Option<&PodShim>,
) -> Result<(), Leftover> {
    let mut steps = Steps::default();
    if let Some(shim) = shim {
        let deleted = stage("container down", pod, delete(shim, id)).await;
        steps.note(id.as_str(), "its process", deleted);
    }
    let (images, owner, bundle) = (context.images.clone(), id.clone(), context.bundle(pod, id));
    let removed = blocking(move || {
        let rootfs = images.rootfs().remove(owner.as_str()).map_err(Fault::Rootfs);
        (rootfs, remove_tree(&bundle).map_err(|source| Fault::File { path: bundle, source }))
    });
    let (rootfs, bundle) = stage("rootfs down", pod, removed).await;
    steps.note(id.as_str(), "its root file system", rootfs);
    steps.note(id.as_str(), "its bundle", bundle);
    steps.finish()
}

/// Has the shim forget the container, after its end where that is under way: an init whose command could not be executed is known as
/// ended a moment before it has.
async fn delete(shim: &PodShim, id: &ContainerId) -> Result<(), Fault> {
    let mut deleted = shim.client.delete(id.as_str()).await;
    if deleted.as_ref().is_err_and(ShimError::is_wrong_state) {
        let _ = tokio::time::timeout(ENDING, shim.client.wait(id.as_str())).await;
        deleted = shim.client.delete(id.as_str()).await;
    }
    // The pod's own stop may be ending the shim: asked again, it is not there, and everything in it has ended.
    let begun = Instant::now();
    while deleted.as_ref().is_err_and(ShimError::is_ending) && begun.elapsed() < ENDING {
        tokio::time::sleep(AGAIN).await;
        deleted = shim.client.delete(id.as_str()).await;
    }
    match deleted {
        Err(error) if error.is_gone() => Ok(()),
        other => other.map(drop).map_err(Fault::from),
    }
}

/// Takes down a pod that did not come to be, or is not known any more. What fails is tried again until it works; if the daemon ends
/// before that, the next one finds the pod's folder or its network attachment without a pod, and goes on.
pub(crate) async fn abandoned_pod(
    context: &Arc<Context>,
    id: &PodId,
    cgroup: &PodCgroup,
    shim: Option<&PodShim>,
) {
    if pod(context, id, cgroup, shim).await.is_ok() {
        return;
    }
    let (context, id, cgroup, shim) = (context.clone(), id.clone(), cgroup.clone(), shim.cloned());
    tokio::spawn(async move {
        let mut pause = RETRY.0;
        loop {
            tokio::time::sleep(pause).await;
            if pod(&context, &id, &cgroup, shim.as_ref()).await.is_ok() {
                return;
            }
            pause = (pause * 2).min(RETRY.1);
        }
    });
}

/// Takes down what is left of a pod once its containers have ended: network, shim, shared memory, cgroup and folder. Its row is the
/// caller's.
pub(crate) async fn pod(
    context: &Context,
    id: &PodId,
    cgroup: &PodCgroup,
    shim: Option<&PodShim>,
) -> Result<(), Leftover> {
    let mut steps = Steps::default();
    steps.note(id.as_str(), "its network", network(context, id).await);
    steps.note(id.as_str(), "its shim", end_shim(context, id, shim).await);
    let pod_dir = context.pod_dir(id);
    let removed = blocking(move || {
        end_foreign_shim(&pod_dir);
        unmount(&pod_dir.join("shm"))?;
        // Of a foreign runtime's containers, with all that is attached below.
        unmount(&shim::config::roots_path(&pod_dir))?;
        shim::unmount_below(&shim::config::runtime_state_root(&pod_dir));
        remove_tree(&pod_dir).map_err(|source| Fault::File { path: pod_dir, source })
    })
    .await;
    steps.note(id.as_str(), "its folder", removed);
    if cgroup.ours {
        let removed = remove_cgroup(context, &cgroup.path).await;
        steps.note(id.as_str(), "its cgroup", removed);
    }
    steps.finish()
}

/// Gives the pod's addresses and host ports back. Idempotent: the network knows what it owes.
pub(crate) async fn network(context: &Context, id: &PodId) -> Result<(), Fault> {
    let (networks, id) = (context.networks.clone(), id.clone());
    // Without the namespace: it goes with the shim in a moment, which is quicker than deleting interfaces one by one.
    let (pod, detached) = (id.clone(), blocking(move || networks.detach(id.as_str(), None)));
    stage("network down", &pod, detached).await.map_err(Fault::Network)
}

/// Ends the pod's shim and every process below it, known by its connection or by what it wrote down.
pub(crate) async fn end_shim(context: &Context, id: &PodId, shim: Option<&PodShim>) -> Result<(), Fault> {
    let end = async {
        match shim {
            Some(shim) => shim.end().await,
            None => crate::pod_shim::end_recorded(&context.pod_dir(id)).await,
        }
    };
    stage("shim down", id, end).await
}

/// Ends a foreign shim that outlived ours, which otherwise ends it. What it parents is in the cgroups of containers, or ends with it.
pub(crate) fn end_foreign_shim(pod_dir: &Path) {
    let Ok(bytes) = std::fs::read(shim::config::task_record_path(pod_dir)) else { return };
    let Ok(record) = serde_json::from_slice::<shim::config::TaskRecord>(&bytes) else { return };
    kill(record.pid.cast_signed(), record.start_time);
}

/// Ends the process that stands for a pod in a foreign runtime, and with some runs all its containers: it may be in no cgroup of its own.
fn end_foreign_sandbox(pod_dir: &Path) {
    let Ok(bytes) = std::fs::read(shim::config::sandbox_record_path(pod_dir)) else { return };
    let Ok(record) = serde_json::from_slice::<shim::config::SandboxRecord>(&bytes) else { return };
    kill(record.pid, record.start_time);
}

fn kill(pid: i32, start_time: u64) {
    if let Ok(pidfd) = sys::process::open_pidfd(pid, start_time) {
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        sys::process::wait_for_end(pidfd.as_fd(), 2000);
    }
}

/// Ends what a lost shim left of a pod: the foreign shim first, where there is one, which would otherwise see the rest end.
pub(crate) fn end_orphans(
    cgroups: &cgroup::Host,
    pod: &PodId,
    pod_dir: &Path,
    pod_cgroup: &PodCgroup,
    containers: &[String],
) {
    const KILLING: Duration = Duration::from_secs(5);
    end_foreign_shim(pod_dir);
    end_foreign_sandbox(pod_dir);
    for path in containers {
        if let Ok(cgroup) = cgroups.open(path) {
            let _ = cgroup.kill_all(KILLING);
        }
    }
    // Of what stood for the pod in it.
    let name = crate::handlers::cgroup_name(pod_cgroup, pod);
    let path = name.and_then(|name| pod_cgroup.driver().path(&name).ok()).unwrap_or_default();
    if !path.is_empty()
        && let Ok(cgroup) = cgroups.open(&path)
    {
        let _ = cgroup.kill_all(KILLING);
        let _ = cgroups.delete(&path, KILLING);
    }
}

/// Unmounts what is mounted at `path`, lazily; that nothing is mounted or there is no such path is fine.
pub(crate) fn unmount(path: &Path) -> Result<(), Fault> {
    use rustix::io::Errno;
    match rustix::mount::unmount(
        path,
        rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW,
    ) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(Fault::File { path: path.to_owned(), source: error.into() }),
    }
}

async fn remove_cgroup(context: &Context, path: &str) -> Result<(), Fault> {
    let (host, path) = (context.cgroups.clone(), path.to_owned());
    blocking(move || host.delete(&path, CGROUP_BUSY)).await.map_err(Fault::Cgroup)
}
