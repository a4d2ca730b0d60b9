//! Noticing that a pod's shim has ended without being asked to, and finding out what it still wrote down.

use std::path::Path;
use std::sync::Arc;

use model::container::Container;
use model::exit::Exit;
use model::id::{ContainerId, PodId};
use model::time::Timestamp;

use crate::actor::{Fact, Facts};
use crate::context::{Context, blocking};
use crate::pod_shim::{Ended, PodShim};
use crate::teardown;

/// Watches the shim of a pod until it ends. If nobody asked it to, the pod is over: what is left of its processes is killed.
pub(crate) fn watch(shim: PodShim, context: Arc<Context>, pod: PodId, facts: Facts) {
    tokio::spawn(async move {
        if shim.ended().await == Ended::Asked {
            return;
        }
        let why = format!("its shim (process {}) ended without being asked to", shim.pid());
        let snapshot = context.published.load();
        let containers: Vec<_> = snapshot
            .containers_of(&pod)
            .map(|container| (container.id.clone(), container.facts.cgroup.clone()))
            .collect();
        let pod_cgroup = snapshot.pods.get(&pod).map(|pod| pod.state.cgroup.clone());
        let (pod_dir, cgroups) = (context.pod_dir(&pod), context.cgroups.clone());
        let exits = blocking(move || {
            let paths: Vec<_> = containers.iter().map(|(_, cgroup)| cgroup.clone()).collect();
            if let Some(pod_cgroup) = pod_cgroup {
                teardown::end_orphans(&cgroups, &pod, &pod_dir, &pod_cgroup, &paths);
            }
            containers.iter().filter_map(|(id, _)| Some((id.clone(), recorded_exit(&pod_dir, id)?))).collect()
        })
        .await;
        let _ = facts.tell(Fact::ShimLost { why, exits }).await;
    });
}

/// Follows a container to its end, and tells the actor.
pub(crate) fn follow(shim: PodShim, id: ContainerId, facts: Facts) {
    tokio::spawn(async move {
        // A lost shim is the other watcher's to report.
        if let Ok(exit) = shim.client.wait(id.as_str()).await {
            let _ = facts.tell(Fact::Container(id, exited(&exit))).await;
        }
    });
}

/// The exit that a shim wrote down before it told anybody; `None` where it wrote none, or nothing readable.
pub(crate) fn recorded_exit(pod_dir: &Path, id: &ContainerId) -> Option<Container> {
    let bytes = std::fs::read(shim::config::exit_path(pod_dir, id.as_str())).ok()?;
    Some(exited(&serde_json::from_slice(&bytes).ok()?))
}

/// What a shim's exit record means.
pub(crate) fn exited(record: &shim::protocol::Exit) -> Container {
    let status = i32::try_from(record.code).unwrap_or(255);
    let exit = match (record.oom_killed, record.signal) {
        _ if !record.lost.is_empty() => Exit::Lost { why: record.lost.clone() },
        // A process that outlived the loss of a child, and ended well, did not run out of memory.
        (true, _) if status != 0 => Exit::OutOfMemory { status },
        (_, 0) => Exit::Code(u8::try_from(status).unwrap_or(255)),
        (_, signal) => Exit::Signal(u8::try_from(signal).unwrap_or(0)),
    };
    Container::Exited {
        exit,
        started_at: Timestamp(record.started_at_ns),
        finished_at: Timestamp(record.exited_at_ns),
    }
}
