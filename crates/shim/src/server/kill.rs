//! Kill, and what else is done to a container from outside: reopening its log, waiting for it.

use super::Shim;
use super::container::Phase;
use super::dispatch::Outcome;
use super::message;
use super::pending::Key;
use crate::protocol::{
    CallError, Empty, ErrorCode, KillRequest, ReopenLogRequest, WaitRequest, WaitResponse,
};
use rustix::process::Signal;

/// The signal of that number, which is 1 to 64.
pub(super) fn signal(number: u32) -> Result<Signal, CallError> {
    let raw = i32::try_from(number).unwrap_or(0);
    Signal::from_named_raw(raw)
        .or_else(|| (34..=64).contains(&raw).then(|| sys::signal::real_time(raw)).flatten())
        .ok_or_else(|| {
            CallError::new(ErrorCode::InvalidArgument, format!("signal: there is none with number {number}"))
        })
}

impl Shim {
    pub(super) fn kill(&mut self, request: KillRequest) -> Result<Outcome, CallError> {
        let number = signal(request.signal)?.as_raw();
        let container = &self.containers[self.find(&request.id)?];
        match container.phase {
            Phase::Creating { .. } => {
                let what = format!("container {} is being created; delete it to cancel that", request.id);
                return Err(CallError::new(ErrorCode::WrongState, what));
            }
            Phase::Draining { .. } | Phase::Exited | Phase::Deleting => {}
            Phase::Created | Phase::Starting(_) | Phase::StartingWithHooks | Phase::Running => {
                match runtime::kill(&self.runtime_root, &request.id, number, request.all) {
                    Ok(()) | Err(runtime::KillError::NotRunning { .. }) => {}
                    Err(error @ (runtime::KillError::Lookup(_) | runtime::KillError::Failed { .. })) => {
                        return Err(CallError::new(ErrorCode::KillFailed, error.to_string()));
                    }
                }
            }
        }
        Ok(Outcome::Now(message(&Empty {})))
    }

    pub(super) fn wait(&mut self, request: WaitRequest) -> Result<Outcome, CallError> {
        let container = &self.containers[self.find(&request.id)?];
        Ok(match container.published_exit() {
            Some(exit) => Outcome::Now(message(&WaitResponse { exit: Some(exit.clone()) })),
            None => Outcome::Later(Key::Exited(container.serial)),
        })
    }

    pub(super) fn reopen_log(&mut self, request: ReopenLogRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let container = &mut self.containers[index];
        if container.outputs.iter().all(Option::is_none) && container.console.is_none() {
            let what = format!("container {} writes no log any more", request.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        container.log.reopen().map_err(|cause| {
            CallError::new(ErrorCode::LogFailed, format!("container {}: {cause}", request.id))
        })?;
        Ok(Outcome::Now(message(&Empty {})))
    }
}
