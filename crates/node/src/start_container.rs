//! Starting a created container: its waiting init executes the command, or the container has ended without running.

use std::sync::Arc;

use model::container::Container;
use model::exit::Exit;
use model::time::Timestamp;
use nri::api::Event;

use crate::actor::{Answer, Fact, Facts};
use crate::context::Context;
use crate::error::{Fault, StartContainerError};
use crate::plugins::About;
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;
use crate::stage::stage;

pub(crate) async fn run(
    context: Arc<Context>,
    record: Arc<ContainerRecord>,
    shim: PodShim,
    facts: Facts,
) -> Answer<(), StartContainerError> {
    let pass = context.nri.enter().await;
    let about = match pass.wants(Event::StartContainer) || pass.wants(Event::PostStartContainer) {
        true => Some(About::container(&context, &record).await),
        false => None,
    };
    if let Some(About { pod, container }) = &about {
        let agreed = pass.start_container(pod, container).await;
        agreed.map_err(|source| StartContainerError::Refused { id: record.id.clone(), source })?;
    }
    start(&record, &shim, &facts).await?;
    if let Some(About { pod, container }) = &about {
        pass.post_start(pod, container).await;
    }
    Ok(())
}

async fn start(record: &ContainerRecord, shim: &PodShim, facts: &Facts) -> Answer<(), StartContainerError> {
    let id = record.id.clone();
    let failed = |fault| Err(Arc::new(StartContainerError::Failed { id: id.clone(), fault }));
    let Container::Created { pid } = record.state.container else {
        return Err(Arc::new(StartContainerError::NotCreated { id, state: "not created" }));
    };
    match stage("start", &record.pod, shim.client.start(id.as_str())).await {
        Ok(started_at_ns) => {
            let running = Container::Running { pid, started_at: Timestamp(started_at_ns) };
            facts.tell(Fact::Container(id.clone(), running)).await.or_else(failed)
        }
        Err(error) if error.is_refusal() => {
            let why = error.to_string();
            let ended = Container::Exited {
                exit: Exit::NotStarted { why: why.clone() },
                started_at: Timestamp::NEVER,
                finished_at: crate::clock::now(),
            };
            match facts.tell(Fact::Container(id.clone(), ended)).await {
                Ok(()) => Err(Arc::new(StartContainerError::NotExecuted { id, why })),
                Err(fault) => failed(fault),
            }
        }
        Err(error) => failed(Fault::Shim(error)),
    }
}
