//! Removing a container: once it has ended, everything that was made for it is taken away.

use std::sync::Arc;

use nri::api::Event;

use crate::actor::{Answer, Fact, Facts};
use crate::context::Context;
use crate::error::{Fault, RemoveContainerError, StopContainerError};
use crate::join::Operation;
use crate::plugins::About;
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;
use crate::teardown;

pub(crate) async fn run(
    context: Arc<Context>,
    record: Arc<ContainerRecord>,
    shim: Option<PodShim>,
    stopped: Operation<Answer<(), StopContainerError>>,
    facts: Facts,
) -> Answer<(), RemoveContainerError> {
    let id = record.id.clone();
    let failed = |stage, fault| Err(Arc::new(RemoveContainerError::Failed { id: id.clone(), stage, fault }));
    match stopped.result().await {
        Some(Ok(())) => {}
        Some(Err(why)) => return Err(Arc::new(RemoveContainerError::Stop(why))),
        None => return failed("stopping", Fault::Vanished),
    }
    // Put together while there is a bundle to read it from.
    let about = match context.nri.wants(Event::RemoveContainer) {
        true => Some(About::container(&context, &record).await),
        false => None,
    };
    if let Err(leftover) = teardown::container(&context, &record.pod, &id, shim.as_ref()).await {
        return failed(leftover.stage, leftover.fault);
    }
    let pass = context.nri.enter().await;
    if let Some(About { pod, container }) = &about {
        pass.remove_container(pod, container).await;
    }
    facts.tell(Fact::ContainerGone(id.clone())).await.or_else(|fault| failed("forgetting it", fault))
}
