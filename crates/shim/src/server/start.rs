//! Start: tells init to become the command, and learns without waiting whether it did.

use super::Shim;
use super::container::Phase;
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::reap::Purpose;
use crate::foreign::{self, Target};
use crate::parent::handed::Handed;
use crate::parent::helper::{Report, Speaker};
use crate::parent::poller::{READ, Token};
use crate::parent::work::{stage, start_error};
use crate::parent::{message, now_ns};
use crate::protocol::{CallError, ErrorCode, StartRequest, StartResponse};
use std::io;

impl Shim {
    pub(super) fn start(&mut self, request: StartRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let container = &self.containers[index];
        let (serial, hooks) = (container.serial, container.start_in_helper);
        if !matches!(container.phase, Phase::Created) || container.exit.is_some() {
            let what =
                format!("container {} is {} and cannot be started", request.id, container.phase_name());
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        let failed = |cause: io::Error| {
            CallError::new(ErrorCode::StartFailed, format!("container {}: {cause}", request.id))
        };
        let phase = if hooks {
            let (root, target, foreign) =
                (self.runtime_root.clone(), container.target(), self.foreign.clone());
            let purpose = Purpose::Start { container: serial };
            let waits = foreign.as_ref().is_some_and(|foreign| foreign.is_shared());
            let handed = std::mem::take(&mut self.containers[index].at_start);
            self.start_speaking_helper(purpose, handed, waits, move |handed, speaker| match foreign {
                Some(foreign) => start_foreign(&foreign, &target, handed, speaker),
                None => match runtime::start(&root, &target.id) {
                    Ok(()) => Report::Done { warnings: Vec::new() },
                    Err(error) => Report::failed(ErrorCode::StartFailed, stage(&error), error),
                },
            })
            .map_err(failed)?;
            Phase::StartingInHelper
        } else {
            let attempt =
                runtime::begin_start(&self.runtime_root, &request.id).map_err(|error| start_error(&error))?;
            self.poller.add(&attempt, Token::Start(serial), READ).map_err(|cause| failed(cause.into()))?;
            Phase::Starting(Box::new(attempt))
        };
        self.containers[index].phase = phase;
        Ok(Outcome::Later(Key::Started(serial)))
    }

    /// The outcome of a start may be known.
    pub(super) fn start_readable(&mut self, serial: u32) {
        let Some(container) = self.containers.iter_mut().find(|container| container.serial == serial) else {
            return;
        };
        let Phase::Starting(attempt) = &mut container.phase else {
            return;
        };
        let Some(result) = attempt.try_finish() else {
            return;
        };
        self.poller.remove(&**attempt);
        self.started(serial, result.map_err(|error| start_error(&error)));
    }

    /// Init is dead: a start that was under way ends now, whatever its outcome.
    pub(super) fn resolve_start(&mut self, serial: u32) {
        self.start_readable(serial);
        if let Some(container) = self.container(serial)
            && let Phase::Starting(_) = container.phase
        {
            let what = format!("container {} ended before its command ran", container.id);
            if let Some(container) = self.containers.iter().find(|container| container.serial == serial)
                && let Phase::Starting(attempt) = &container.phase
            {
                self.poller.remove(&**attempt);
            }
            self.started(serial, Err(CallError::new(ErrorCode::StartFailed, what)));
        }
    }

    /// What a helper said that started a container with hooks.
    pub(super) fn started_by_helper(&mut self, serial: u32, report: Report) {
        let result = match report {
            Report::Done { .. } => Ok(()),
            other => Err(other.into_error(ErrorCode::StartFailed)),
        };
        self.started(serial, result);
        self.publish_if_drained(serial);
    }

    fn started(&mut self, serial: u32, result: Result<(), CallError>) {
        let now = now_ns();
        let Some(container) = self.container(serial) else {
            return;
        };
        if result.is_ok() {
            container.started_at_ns = now;
            if let Some(exit) = &mut container.exit {
                exit.started_at_ns = now;
                exit.exited_at_ns = exit.exited_at_ns.max(now);
            }
        }
        if matches!(container.phase, Phase::Starting(_) | Phase::StartingInHelper) {
            container.phase = if result.is_ok() { Phase::Running } else { Phase::Created };
        }
        let answer = result.and_then(|()| message(&StartResponse { started_at_ns: now }));
        self.answer(Key::Started(serial), answer);
    }
}

/// Runs in the helper.
fn start_foreign(
    foreign: &foreign::Runtime,
    target: &Target,
    mut handed: Handed,
    speaker: Speaker<'_>,
) -> Report {
    if let Err(cause) = handed.wire() {
        return Report::failed(ErrorCode::StartFailed, "standard streams", cause);
    }
    let started = Report::of(foreign.start(target));
    // From now on the container alone has its streams, and their end is seen.
    if let Err(cause) = Handed::default().wire() {
        return Report::failed(ErrorCode::StartFailed, "standard streams", cause);
    }
    let runs = matches!(started, Report::Done { .. });
    if !foreign.is_shared() || !runs || speaker.say(&started).is_err() {
        return started;
    }
    foreign.wait(target, None).into()
}
