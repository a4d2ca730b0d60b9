//! A container as its pod's actor keeps it: its record, what is going on with it, and how its end gets around.

use std::sync::Arc;

use model::container::Container;
use model::exit::Exit;
use nri::api::Event;
use tokio::sync::watch;

use crate::actor::Answer;
use crate::context::Context;
use crate::error::{RemoveContainerError, StartContainerError, StopContainerError};
use crate::join::Operation;
use crate::plugins;
use crate::record::ContainerRecord;
use crate::stop_container::StopOrder;

type Stop = Operation<Answer<(), StopContainerError>>;

/// A container and what is going on with it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) record: Arc<ContainerRecord>,
    /// Its exit once it has ended: what a stop waits for.
    pub(crate) ended: watch::Sender<Option<Exit>>,
    /// True once plugins have been told of that: what a removal waits for, too.
    pub(crate) told: watch::Sender<bool>,
    pub(crate) starting: Option<Operation<Answer<(), StartContainerError>>>,
    pub(crate) stopping: Option<(Arc<StopOrder>, Stop)>,
    pub(crate) removing: Option<Operation<Answer<(), RemoveContainerError>>>,
}

impl Slot {
    pub(crate) fn new(record: Arc<ContainerRecord>) -> Slot {
        let ended = exit_of(&record.state.container);
        Slot {
            record,
            told: watch::Sender::new(ended.is_some()),
            ended: watch::Sender::new(ended),
            starting: None,
            stopping: None,
            removing: None,
        }
    }

    /// Has plugins hear that the container has ended, after they heard that it was started.
    pub(crate) fn tell_of_end(&self, context: &Arc<Context>) {
        if context.nri.try_enter().is_some_and(|pass| !pass.wants(Event::StopContainer)) {
            self.told.send_replace(true);
            return;
        }
        let (context, record, starting) = (context.clone(), self.record.clone(), self.starting.clone());
        let told = Told(self.told.clone());
        tokio::spawn(async move {
            if let Some(starting) = starting {
                starting.result().await;
            }
            plugins::container_ended(&context, &record).await;
            drop(told);
        });
    }

    /// Waits until plugins have heard of the end.
    pub(crate) fn end_is_told(&self) -> impl Future<Output = Answer<(), StopContainerError>> + Send + use<> {
        let mut told = self.told.subscribe();
        async move {
            let _ = told.wait_for(|told| *told).await;
            Ok(())
        }
    }
}

/// Says that plugins were told, also where telling them went wrong.
struct Told(watch::Sender<bool>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

/// The exit of a container that has ended.
pub(crate) fn exit_of(container: &Container) -> Option<Exit> {
    match container {
        Container::Exited { exit, .. } => Some(exit.clone()),
        Container::Created { .. } | Container::Running { .. } | Container::Unreadable { .. } => None,
    }
}
