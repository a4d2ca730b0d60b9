//! What the actor has to say before containers of its pod are checkpointed.

use std::time::Instant;

use model::container;
use model::id::ContainerId;
use model::pod::{Pod, Verdict};

use super::{Actor, Answer, absent, failed};
use crate::checkpoint::{self, Order, Target};
use crate::error::CheckpointError;
use crate::join::Operation;

impl Actor {
    /// One at a time, of a pod that stands and containers that run.
    pub(super) fn checkpoint(
        &mut self,
        containers: &[ContainerId],
        target: Target,
        deadline: Instant,
    ) -> Operation<Answer<(), CheckpointError>> {
        let pod = || self.record.id.clone();
        if self.checkpointing.as_ref().is_some_and(|running| !running.is_finished()) {
            return failed(CheckpointError::Busy { pod: pod() });
        }
        let shim = self.shim.borrow().clone();
        let (Pod::Ready, None, Some(shim)) = (&self.record.state.pod, &self.stopping, shim) else {
            return failed(CheckpointError::PodNotReady { pod: pod() });
        };
        let mut records = Vec::new();
        for id in containers {
            let Some(slot) = self.slots.get(id) else { return failed(absent(id).into()) };
            if let Verdict::Refuse(state) = container::exec(&slot.record.state.container) {
                return failed(CheckpointError::NotRunning { id: id.clone(), state });
            }
            records.push(slot.record.clone());
        }
        let order = Order { pod: self.record.clone(), containers: records, shim, target, deadline };
        let operation = Operation::begin(checkpoint::run(self.context.clone(), order));
        self.checkpointing = Some(operation.clone());
        operation
    }
}
