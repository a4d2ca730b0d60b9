//! Coming back after the daemon was away: what the records say is held against what the shims say, and the shims are right.
//!
//! What was half made is taken down, what lives is adopted, what ended meanwhile gets its exit from the shim or from the exit record
//! that the shim wrote before it told anybody. A record that cannot be read stays where it is and keeps nothing else from starting.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::container::Container;
use model::exit::Exit;
use model::id::{ContainerId, PodId};
use model::pod::Pod;
use model::time::Timestamp;
use shim::protocol::{ContainerState as ShimContainerState, InfoResponse};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::actor::Actor;
use crate::context::{Context, blocking};
use crate::events::{self, EventKind};
use crate::pod_shim::PodShim;
use crate::record::{ContainerRecord, ContainerState, PodCgroup, PodRecord, PodState};
use crate::records::Loaded;
use crate::{lost, teardown};

/// How long one shim may take to answer. A shim is a poll loop: one that takes longer is stopped or stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings the node to what is true. Pods are looked at side by side.
pub(crate) async fn run(context: &Arc<Context>) -> Result<(), store::StoreError> {
    let Loaded { pods, containers, unfinished_pods, unfinished_containers, unreadable } =
        context.records.load().await?;
    for what in &unreadable {
        warn!(what, "a record cannot be read and is left as it is");
    }
    let mut known: Vec<PodId> = pods.iter().map(|pod| pod.id.clone()).collect();
    let mut work = JoinSet::new();
    let mut by_pod = std::collections::HashMap::<PodId, Vec<ContainerRecord>>::new();
    for container in containers {
        by_pod.entry(container.pod.clone()).or_default().push(container);
    }
    let count = pods.len();
    pods.iter().for_each(|pod| context.confinement.keep(pod));
    for pod in pods {
        let containers = by_pod.remove(&pod.id).unwrap_or_default();
        let unfinished =
            unfinished_containers.iter().filter(|(of, _)| *of == pod.id).map(|(_, id)| id.clone()).collect();
        work.spawn(adopt(context.clone(), pod, containers, unfinished));
    }
    for pod in unfinished_pods {
        known.push(pod.clone());
        work.spawn(abandon(context.clone(), pod));
    }
    while let Some(done) = work.join_next().await {
        if let Err(panic) = done {
            warn!(%panic, "a pod could not be looked at");
        }
    }
    sweep(context, known).await;
    if count > 0 {
        info!(pods = count, "pods recovered");
    }
    Ok(())
}

/// Takes up one pod where it is.
async fn adopt(
    context: Arc<Context>,
    pod: PodRecord,
    containers: Vec<ContainerRecord>,
    unfinished: Vec<ContainerId>,
) {
    let pod_dir = context.pod_dir(&pod.id);
    let (shim, info) = match &pod.state.pod {
        Pod::Stopped { .. } => (None, None),
        Pod::Ready => match connect(&pod_dir).await {
            Ok((shim, info)) => (Some(shim), Some(info)),
            Err(why) => {
                warn!(pod = %pod.id, why, "its shim cannot be reached: the pod is over");
                (None, None)
            }
        },
    };
    for id in unfinished {
        if teardown::container(&context, &pod.id, &id, shim.as_ref()).await.is_ok() {
            let _ = context.records.forget_container(&id).await;
        }
    }
    let (pod, pod_steps): (_, &[EventKind]) = match (&pod.state.pod, &shim) {
        (Pod::Ready, None) => (end(&context, pod, &containers).await, &[EventKind::Stopped]),
        _ => (pod, &[]),
    };
    let pod = Arc::new(pod);
    context.published.put_pod(&pod, &[]);
    let mut settled = Vec::with_capacity(containers.len());
    let mut steps = Vec::with_capacity(containers.len());
    for record in containers {
        let before = record.state.container.clone();
        let record = Arc::new(settle(&context, &pod_dir, record, info.as_ref()).await);
        steps.push(events::steps(&before, &record.state.container));
        context.published.put_container(&pod, &record, &[]);
        settled.push(record);
    }
    // What happened while no daemon was there is told once all of it is known.
    for (record, steps) in settled.iter().zip(steps) {
        context.published.put_container(&pod, record, steps);
    }
    context.published.put_pod(&pod, pod_steps);
    let handle = Actor::begin(context.clone(), pod.clone(), settled.clone(), shim.clone());
    if let Some(shim) = shim {
        for record in &settled {
            if !matches!(record.state.container, Container::Exited { .. }) {
                lost::follow(shim.clone(), record.id.clone(), handle.facts.clone());
            }
        }
        lost::watch(shim, context.clone(), pod.id.clone(), handle.facts.clone());
    }
    context.adopt(pod.id.clone(), handle);
}

async fn connect(pod_dir: &Path) -> Result<(PodShim, InfoResponse), String> {
    match tokio::time::timeout(PATIENCE, PodShim::connect(pod_dir)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {PATIENCE:?}")),
    }
}

/// A pod whose shim is gone is over: whatever of it still runs is ended, so that nothing runs that nobody watches.
async fn end(context: &Arc<Context>, pod: PodRecord, containers: &[ContainerRecord]) -> PodRecord {
    if let Err(fault) = teardown::end_shim(context, &pod.id, None).await {
        warn!(pod = %pod.id, %fault, "what its shim left could not be ended");
    }
    let paths: Vec<_> = containers.iter().map(|container| container.facts.cgroup.clone()).collect();
    let (host, id, pod_dir) = (context.cgroups.clone(), pod.id.clone(), context.pod_dir(&pod.id));
    let pod_cgroup = pod.state.cgroup.clone();
    blocking(move || teardown::end_orphans(&host, &id, &pod_dir, &pod_cgroup, &paths)).await;
    let why = Some("its shim ended while the daemon was away".to_owned());
    let state = PodState { pod: Pod::Stopped { why }, shim_pid: 0, ..pod.state.clone() };
    if let Err(error) = context.records.settle_pod(&pod.id, &state).await {
        warn!(pod = %pod.id, %error, "its end could not be recorded");
    }
    PodRecord { state, ..pod }
}

/// What is true of a container now.
async fn settle(
    context: &Context,
    pod_dir: &Path,
    record: ContainerRecord,
    info: Option<&InfoResponse>,
) -> ContainerRecord {
    if matches!(record.state.container, Container::Exited { .. }) {
        return record;
    }
    let told = info.and_then(|info| info.containers.iter().find(|told| told.id == record.id.as_str()));
    let container = match told.map(|told| (told.state(), told)) {
        Some((ShimContainerState::Running, told)) => Container::Running {
            pid: i32::try_from(told.pid).unwrap_or(0),
            started_at: Timestamp(told.started_at_ns),
        },
        Some((ShimContainerState::Created | ShimContainerState::Creating, told)) => {
            Container::Created { pid: i32::try_from(told.pid).unwrap_or(0) }
        }
        Some((ShimContainerState::Exited | ShimContainerState::Deleting, told)) => {
            told.exit.as_ref().map_or_else(|| unseen(&record), lost::exited)
        }
        None => lost::recorded_exit(pod_dir, &record.id).unwrap_or_else(|| unseen(&record)),
    };
    if container == record.state.container {
        return record;
    }
    let state = ContainerState { container, ..record.state.clone() };
    if let Err(error) = context.records.advance_container(&record.id, &state).await {
        warn!(container = %record.id, %error, "its state could not be recorded");
    }
    ContainerRecord { state, ..record }
}

fn unseen(record: &ContainerRecord) -> Container {
    Container::Exited {
        exit: Exit::Lost {
            why: "nobody saw it end: its shim was gone, or the machine was started anew".into(),
        },
        started_at: record.started_at(),
        finished_at: crate::clock::now(),
    }
}

/// A pod that was being made when the daemon ended: its client never got an answer, and its retry starts from nothing.
async fn abandon(context: Arc<Context>, id: PodId) {
    // Which cgroup it would have had does not matter: no container was in it.
    let cgroup = PodCgroup::own(context.config.cgroup_driver, &id);
    teardown::abandoned_pod(&context, &id, &cgroup, None).await;
    let _ = context.records.forget_pod(&id).await;
}

/// Takes down what has no owner: folders of pods that no record knows, and network attachments of theirs.
async fn sweep(context: &Arc<Context>, known: Vec<PodId>) {
    let pods = context.config.state_dir.join("pods");
    let found = blocking(move || {
        let names = std::fs::read_dir(&pods).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.filter_map(|name| PodId::parse(name.to_str()?).ok()).collect::<Vec<_>>()
    })
    .await;
    for id in found.into_iter().filter(|id| !known.contains(id)) {
        warn!(pod = %id, "a folder of a pod that no record knows is taken down");
        abandon(context.clone(), id).await;
    }
    let networks = context.networks.clone();
    let report = blocking(move || networks.gc(known.iter().map(PodId::as_str))).await;
    for error in &report.failed {
        warn!(%error, "a network attachment without a pod could not be taken down");
    }
    for error in &report.unreadable {
        warn!(%error, "a network attachment's record cannot be read and is left as it is");
    }
}
