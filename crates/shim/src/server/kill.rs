//! Kill, and what else is done to a container from outside: reopening its log, waiting for it.

use super::Shim;
use super::container::Phase;
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::reap::Purpose;
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::work::signal;
use crate::parent::{message, now_ns};
use crate::protocol::{
    CallError, Empty, ErrorCode, Exit, KillRequest, ReopenLogRequest, WaitRequest, WaitResponse,
};
use rustix::process::{Pid, Signal};
use std::io;

impl Shim {
    pub(super) fn kill(&mut self, request: KillRequest, buffer: &mut [u8]) -> Result<Outcome, CallError> {
        let number = signal(request.signal)?;
        let index = self.find(&request.id)?;
        let container = &mut self.containers[index];
        let foreign = self.foreign.as_deref();
        let is_shared = foreign.is_some_and(|foreign| foreign.is_shared());
        let is_killed = foreign.is_some_and(|foreign| foreign.waits()) && number == Signal::KILL;
        match container.phase {
            // Whoever is waited for may not tell of the end of what never ran.
            Phase::Created if (is_shared || is_killed) && container.exit.is_none() => {
                container.at_start = Handed::default();
                container.close_outputs(now_ns(), &self.poller);
                let (serial, pid) = (container.serial, container.pid.cast_unsigned());
                let (code, signal) = (128 + request.signal, request.signal);
                let exit = Exit { code, signal, pid, exited_at_ns: now_ns(), ..Exit::default() };
                if !is_shared {
                    self.kill_by_helper(&request.id, number.as_raw(), request.all)
                        .map_err(|cause| CallError::new(ErrorCode::KillFailed, cause.to_string()))?;
                }
                self.container_ended(serial, exit, buffer);
                return Ok(Outcome::Now(message(&Empty {})));
            }
            Phase::Creating { .. } => {
                let what = format!("container {} is being created; delete it to cancel that", request.id);
                return Err(CallError::new(ErrorCode::WrongState, what));
            }
            Phase::Draining { .. } | Phase::Exited | Phase::Deleting => {
                return Ok(Outcome::Now(message(&Empty {})));
            }
            Phase::Created | Phase::Starting(_) | Phase::StartingInHelper | Phase::Running => {}
        }
        let failed = |why: &dyn std::fmt::Display| {
            let what = format!("signal {} was not sent to container {}: {why}", request.signal, request.id);
            CallError::new(ErrorCode::KillFailed, what)
        };
        // A foreign runtime's first process may stand for others that the signal is meant for.
        if request.all || number == Signal::KILL || self.foreign.is_some() {
            let call = self.kill_by_helper(&request.id, number.as_raw(), request.all);
            return call.map(|call| Outcome::Later(Key::Killed(call))).map_err(|cause| failed(&cause));
        }
        // Init is our child and not reaped, so the number can mean nobody else.
        let pid = Pid::from_raw(container.pid).ok_or_else(|| failed(&"it has no process"))?;
        rustix::process::kill_process(pid, number).map_err(|cause| failed(&cause))?;
        Ok(Outcome::Now(message(&Empty {})))
    }

    /// For what concerns the whole cgroup: its processes, or that it is frozen. The number of the call that is answered then.
    pub(super) fn kill_by_helper(&mut self, id: &str, number: i32, all: bool) -> io::Result<u32> {
        let call = self.serial();
        let target = self.find(id).map(|index| self.containers[index].target()).map_err(io::Error::other)?;
        let (root, foreign) = (self.runtime_root.clone(), self.foreign.clone());
        self.start_helper(Purpose::Kill { call }, Handed::default(), move |_| match foreign {
            Some(foreign) => Report::of(foreign.kill(&target, number, all)),
            None => match runtime::kill(&root, &target.id, number, all) {
                Ok(()) | Err(runtime::KillError::NotRunning { .. }) => Report::Done { warnings: Vec::new() },
                Err(error @ (runtime::KillError::Lookup(_) | runtime::KillError::Failed { .. })) => {
                    Report::failed(ErrorCode::KillFailed, "", error)
                }
            },
        })?;
        Ok(call)
    }

    /// For a further process that is somebody else's child.
    pub(super) fn kill_exec_by_helper(&mut self, id: &str, exec_id: String, number: i32) -> io::Result<u32> {
        let target = self.find(id).map(|index| self.containers[index].target()).map_err(io::Error::other)?;
        let (call, foreign) = (self.serial(), self.foreign.clone());
        self.start_helper(Purpose::Kill { call }, Handed::default(), move |_| {
            Report::of(foreign.map_or(Ok(()), |foreign| foreign.kill_exec(&target, &exec_id, number)))
        })?;
        Ok(call)
    }

    /// What the helper said.
    pub(super) fn killed(&mut self, call: u32, report: Report) {
        let result = match report {
            Report::Done { .. } => message(&Empty {}),
            other => Err(other.into_error(ErrorCode::KillFailed)),
        };
        if let Err(error) = &result {
            warning!("{error}");
        }
        self.answer(Key::Killed(call), result);
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
