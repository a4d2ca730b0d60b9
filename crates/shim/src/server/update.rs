//! Update: changes the limits of a container whose runtime is somebody else's.

use super::Shim;
use super::container::Phase;
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::reap::Purpose;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::message;
use crate::protocol::{CallError, Empty, ErrorCode, UpdateRequest};

impl Shim {
    pub(super) fn update(&mut self, request: UpdateRequest) -> Result<Outcome, CallError> {
        let container = &self.containers[self.find(&request.id)?];
        let Some(foreign) = self.foreign.clone() else {
            let what = "the limits of this container are in its cgroup, and changed there";
            return Err(CallError::new(ErrorCode::WrongState, what));
        };
        if !matches!(container.phase, Phase::Created | Phase::Running) {
            let what = format!(
                "container {} is {}; its limits cannot be changed",
                request.id,
                container.phase_name()
            );
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        let (target, call) = (container.target(), self.serial());
        self.start_helper(Purpose::Update { call }, Handed::default(), move |_| {
            Report::of(foreign.update(&target, &request.resources_json))
        })
        .map_err(|cause| CallError::new(ErrorCode::UpdateFailed, cause.to_string()).at("helper"))?;
        Ok(Outcome::Later(Key::Updated(call)))
    }

    /// What the helper said.
    pub(super) fn updated(&mut self, call: u32, report: Report) {
        let result = match report {
            Report::Done { .. } => message(&Empty {}),
            other => Err(other.into_error(ErrorCode::UpdateFailed)),
        };
        self.answer(Key::Updated(call), result);
    }
}
