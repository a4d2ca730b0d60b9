//! Stopping a pod: its processes first, then its network, then its shim; only its records and its containers' file systems stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::id::ContainerId;
use model::pod::Pod;

use crate::actor::{Answer, Fact, Facts};
use crate::context::{Context, blocking};
use crate::error::{Fault, StopContainerError, StopPodError};
use crate::join::Operation;
use crate::pod_shim::PodShim;
use crate::record::{PodRecord, PodState};
use crate::{plugins, teardown};

pub(crate) struct Order {
    pub(crate) record: Arc<PodRecord>,
    pub(crate) shim: Option<PodShim>,
    /// The stops of its containers, under way.
    pub(crate) containers: Vec<(ContainerId, Operation<Answer<(), StopContainerError>>)>,
    pub(crate) facts: Facts,
    /// Plugins have been told that the pod stops; they are once, however often that is tried.
    pub(crate) told: Arc<AtomicBool>,
}

pub(crate) async fn run(context: Arc<Context>, order: Order) -> Answer<(), StopPodError> {
    let pod = order.record.id.clone();
    let failed = |stage, fault| Err(Arc::new(StopPodError::Failed { pod: pod.clone(), stage, fault }));
    for (container, stop) in order.containers {
        match stop.result().await {
            Some(Ok(())) => {}
            None => return failed("stopping its containers", Fault::Vanished),
            Some(Err(why)) => match &*why {
                StopContainerError::Stuck { waited, stuck, .. } => {
                    let (waited, stuck) = (*waited, stuck.clone());
                    return Err(Arc::new(StopPodError::Stuck { pod, container, waited, stuck }));
                }
                other => return failed("stopping its containers", Fault::Other(other.to_string())),
            },
        }
    }
    if !order.told.swap(true, Ordering::Relaxed) {
        plugins::pod_stopping(&context, &order.record).await;
    }
    // Connections drained while the processes still had their network; now nobody needs it.
    let network = teardown::network(&context, &pod).await;
    if let Err(fault) = teardown::end_shim(&context, &pod, order.shim.as_ref()).await {
        return failed("ending its shim", fault);
    }
    let shm = context.pod_dir(&pod).join("shm");
    if let Err(fault) = blocking(move || teardown::unmount(&shm)).await {
        return failed("unmounting its shared memory", fault);
    }
    let stopped = PodState {
        pod: match &order.record.state.pod {
            Pod::Ready => Pod::Stopped { why: None },
            already => already.clone(),
        },
        network_owed: network.is_err(),
        shim_pid: 0,
        ..order.record.state.clone()
    };
    if let Err(fault) = order.facts.tell(Fact::Pod(Box::new(stopped))).await {
        return failed("recording it", fault);
    }
    match network {
        Ok(()) => Ok(()),
        Err(Fault::Network(source)) => Err(Arc::new(StopPodError::Network { pod, source })),
        Err(fault) => failed("taking down its network", fault),
    }
}
