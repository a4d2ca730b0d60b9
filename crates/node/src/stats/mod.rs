//! What pods and containers use: read from their cgroups through files that stay open, from their network namespace, and from the size of
//! their writable layers. Nothing is read unless somebody asks.

use std::sync::Arc;

use cgroup::Usage;
use model::container::Container;
use model::id::{ContainerId, PodId};
use model::pod::Pod;
use model::request::NamespaceMode;
use model::time::Timestamp;
use network::InterfaceStats;

use crate::context::{Context, blocking};
use crate::record::{ContainerRecord, PodRecord};

mod layers;
mod measure;
mod processes;
mod samples;

pub(crate) use layers::Layers;
pub(crate) use measure::measure;
pub use measure::{ContainerMeasurement, FileSystem, Measurements, PodMeasurement};
pub use processes::Processes;
pub(crate) use samples::Samples;

/// One container's use at one moment.
#[derive(Debug, Clone)]
pub struct ContainerStats {
    pub record: Arc<ContainerRecord>,
    pub at: Timestamp,
    /// None: it does not run.
    pub usage: Option<Usage>,
    /// CPU use over the time since the last look, in billionths of a core; none at the first look.
    pub usage_nano_cores: Option<u64>,
    /// None: it is being measured for the first time.
    pub writable_layer: Option<Layer>,
}

/// The size of a writable layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    pub bytes: u64,
    pub inodes: u64,
    pub at: Timestamp,
}

/// One pod's use at one moment.
#[derive(Debug, Clone)]
pub struct PodStats {
    pub record: Arc<PodRecord>,
    pub at: Timestamp,
    /// Of the cgroup that its containers are below; none where there is none, or not yet.
    pub usage: Option<Usage>,
    /// As [`ContainerStats::usage_nano_cores`].
    pub usage_nano_cores: Option<u64>,
    /// How many processes are in that cgroup.
    pub processes: Option<u64>,
    /// Of its own network namespace; empty in the host's network, and when it does not run.
    pub interfaces: Vec<InterfaceStats>,
    /// Those that run.
    pub containers: Vec<ContainerStats>,
}

/// How old a writable layer's size may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerAge {
    /// As it is known; what is out of date is measured behind the caller's back.
    Any,
    /// Measured now, where it is out of date.
    Fresh,
}

/// Looks at these containers now.
pub(crate) async fn of_containers(
    context: &Arc<Context>,
    records: Vec<Arc<ContainerRecord>>,
    layers: LayerAge,
) -> Vec<ContainerStats> {
    let shared = context.clone();
    let looked = blocking(move || {
        let looked: Vec<_> = records.into_iter().map(|record| container(&shared, record, layers)).collect();
        shared.samples.keep_only(&shared.published.load());
        looked
    })
    .await;
    layers::refresh(context);
    looked
}

/// Looks at these pods and their containers now.
pub(crate) async fn of_pods(context: &Arc<Context>, records: Vec<Arc<PodRecord>>) -> Vec<PodStats> {
    let shared = context.clone();
    let looked = blocking(move || {
        let snapshot = shared.published.load();
        let look = |record: Arc<PodRecord>| {
            let containers = snapshot.containers_of(&record.id).filter(|container| is_alive(container));
            let containers = containers.cloned().collect::<Vec<_>>();
            pod(&shared, record, containers)
        };
        let looked: Vec<_> = records.into_iter().map(look).collect();
        shared.samples.keep_only(&snapshot);
        looked
    })
    .await;
    layers::refresh(context);
    looked
}

/// What all writable layers take together, in bytes and inodes.
pub(crate) async fn of_layers(context: &Arc<Context>) -> (u64, u64) {
    let context = context.clone();
    blocking(move || {
        let snapshot = context.published.load();
        let layers =
            snapshot.containers.keys().filter_map(|id| context.layers.get(&context, id, LayerAge::Fresh));
        layers.fold((0, 0), |(bytes, inodes), layer| (bytes + layer.bytes, inodes + layer.inodes))
    })
    .await
}

fn container(context: &Context, record: Arc<ContainerRecord>, age: LayerAge) -> ContainerStats {
    let seen = if is_alive(&record) {
        context.samples.containers.look(&context.cgroups, &record.id, &record.facts.cgroup)
    } else {
        None
    };
    ContainerStats {
        at: crate::clock::now(),
        usage_nano_cores: seen.as_ref().and_then(|seen| seen.nano_cores),
        usage: seen.map(|seen| seen.usage),
        writable_layer: context.layers.get(context, &record.id, age),
        record,
    }
}

fn pod(context: &Context, record: Arc<PodRecord>, containers: Vec<Arc<ContainerRecord>>) -> PodStats {
    let ready = record.state.pod == Pod::Ready;
    let path = &record.state.cgroup.path;
    let seen = if ready { context.samples.pods.look(&context.cgroups, &record.id, path) } else { None };
    let look = |record| container(context, record, LayerAge::Any);
    PodStats {
        at: crate::clock::now(),
        processes: seen.as_ref().and_then(|seen| seen.meter.processes().ok()),
        usage_nano_cores: seen.as_ref().and_then(|seen| seen.nano_cores),
        usage: seen.map(|seen| seen.usage),
        interfaces: interfaces(context, &record),
        containers: containers.into_iter().map(look).collect(),
        record,
    }
}

/// The counters of the interfaces in the pod's own network namespace.
fn interfaces(context: &Context, record: &PodRecord) -> Vec<InterfaceStats> {
    let own = record.request.namespaces.network != NamespaceMode::Host;
    let shim = context.handle(&record.id).filter(|_| own).and_then(|handle| handle.shim.borrow().clone());
    let Some(shim) = shim else { return Vec::new() };
    shim.interfaces().unwrap_or_else(|error| {
        tracing::debug!(pod = %record.id, %error, "its interfaces could not be looked at");
        Vec::new()
    })
}

/// It runs, or waits to be started: it has a cgroup.
pub(crate) fn is_alive(record: &ContainerRecord) -> bool {
    matches!(record.state.container, Container::Running { .. } | Container::Created { .. })
}

/// What is kept of all pods and containers between two looks, under their ids.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) containers: Samples<ContainerId>,
    pub(crate) pods: Samples<PodId>,
}

impl Kept {
    fn keep_only(&self, snapshot: &crate::snapshot::Snapshot) {
        let alive = |id: &ContainerId| snapshot.containers.get(id).is_some_and(|record| is_alive(record));
        self.containers.keep_only(alive);
        self.pods.keep_only(|id| snapshot.pods.get(id).is_some_and(|pod| pod.state.pod == Pod::Ready));
    }
}
