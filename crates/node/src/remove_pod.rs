//! Removing a pod: stopped, emptied, taken down, forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::id::ContainerId;
use nri::api::Event;

use crate::actor::{Answer, Fact, Facts};
use crate::context::Context;
use crate::error::{CreateContainerError, Fault, RemoveContainerError, RemovePodError, StopPodError};
use crate::join::Operation;
use crate::record::PodRecord;
use crate::{plugins, teardown};

pub(crate) struct Order {
    pub(crate) record: Arc<PodRecord>,
    pub(crate) stopped: Operation<Answer<(), StopPodError>>,
    /// The removals of its containers, under way.
    pub(crate) containers: Vec<Operation<Answer<(), RemoveContainerError>>>,
    /// Creations under way; with the pod's shim gone they fail and clean up behind themselves.
    pub(crate) creating: Vec<Operation<Answer<ContainerId, CreateContainerError>>>,
    pub(crate) facts: Facts,
    /// As in [`crate::stop_pod::Order`].
    pub(crate) told: Arc<AtomicBool>,
}

pub(crate) async fn run(context: Arc<Context>, order: Order) -> Answer<(), RemovePodError> {
    let pod = order.record.id.clone();
    let failed = |stage, fault| Err(Arc::new(RemovePodError::Failed { pod: pod.clone(), stage, fault }));
    match order.stopped.result().await {
        Some(Ok(())) => {}
        Some(Err(why)) => return Err(Arc::new(RemovePodError::Stop(why))),
        None => return failed("stopping", Fault::Vanished),
    }
    for creating in order.creating {
        creating.result().await;
    }
    for removal in order.containers {
        match removal.result().await {
            Some(Ok(())) => {}
            Some(Err(why)) => return Err(Arc::new(RemovePodError::Container { pod, why })),
            None => return failed("removing its containers", Fault::Vanished),
        }
    }
    if let Err(left) = teardown::pod(&context, &pod, &order.record.state.cgroup, None).await {
        return failed(left.stage, left.fault);
    }
    // A pod that was over before anybody stopped it.
    if !order.told.swap(true, Ordering::Relaxed) {
        plugins::pod_stopping(&context, &order.record).await;
    }
    let pass = context.nri.enter().await;
    if pass.wants(Event::RemovePodSandbox) {
        pass.remove_pod(&order.record.message(&context)).await;
    }
    order.facts.tell(Fact::PodGone).await.or_else(|fault| failed("forgetting it", fault))
}
