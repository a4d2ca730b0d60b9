//! Delete: removes what is left of a container that does not run, or cancels its creation.

use super::Shim;
use super::container::Phase;
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::reap::Purpose;
use crate::config::exit_path;
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::work::remove;
use crate::parent::{message, now_ns};
use crate::protocol::{CallError, DeleteRequest, DeleteResponse, ErrorCode};

impl Shim {
    pub(super) fn delete(&mut self, request: DeleteRequest, buffer: &mut [u8]) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let container = &mut self.containers[index];
        let serial = container.serial;
        match &mut container.phase {
            Phase::Creating { .. } => self.cancel(serial),
            phase @ (Phase::Created | Phase::Exited) => {
                // An init that could not become its command may still be on its way out, and looks as if it ran.
                let force = matches!(phase, Phase::Created);
                container.drain(buffer, &self.poller);
                self.begin_delete(serial, force);
            }
            Phase::Deleting => {}
            Phase::Starting(_) | Phase::StartingInHelper | Phase::Running | Phase::Draining { .. } => {
                let what = format!(
                    "container {} is {}; kill it and wait for its exit",
                    request.id,
                    container.phase_name()
                );
                return Err(CallError::new(ErrorCode::WrongState, what));
            }
        }
        Ok(Outcome::Later(Key::Deleted(serial)))
    }

    /// Stops the creation of a container. What is half made is removed when the helper is dead.
    pub(super) fn cancel(&mut self, serial: u32) {
        if let Some(container) = self.container(serial) {
            container.phase = Phase::Creating { cancelled: true };
        }
        self.kill_helpers(serial, |_| true);
    }

    /// Ends what is under way for a container. Otherwise a hook or a path that hangs would keep it for ever.
    pub(super) fn kill_helpers(&self, serial: u32, which: impl Fn(Purpose) -> bool) {
        self.helpers.kill(|purpose| match *purpose {
            Purpose::Create { container }
            | Purpose::Start { container }
            | Purpose::Exec { container, .. } => container == serial && which(*purpose),
            _ => false,
        });
    }

    /// Lets a helper remove the container; with `force` whatever its state is.
    pub(super) fn begin_delete(&mut self, serial: u32, force: bool) {
        // Whoever waits for its end is to see it.
        self.kill_helpers(serial, |purpose| !matches!(purpose, Purpose::Create { .. }));
        let root = self.runtime_root.clone();
        let Some(container) = self.container(serial) else {
            return;
        };
        container.phase = Phase::Deleting;
        let target = container.target();
        let (purpose, foreign) = (Purpose::Delete { container: serial }, self.foreign.clone());
        let work = move |_| match foreign {
            Some(foreign) => Report::of(foreign.delete(&target)),
            None => remove(&root, &target.id, &target.bundle, force),
        };
        if let Err(cause) = self.start_helper(purpose, Handed::default(), work) {
            let error = CallError::new(ErrorCode::DeleteFailed, cause.to_string()).at("helper");
            self.delete_failed(serial, error);
        }
    }

    /// What the helper said.
    pub(super) fn deleted(&mut self, serial: u32, report: Report, buffer: &mut [u8]) {
        match report {
            Report::Done { warnings } => {
                // A container that was never started was killed by the helper: its end is known here at once, if not noticed yet.
                self.children_changed(buffer);
                for what in warnings {
                    warning!("{what}");
                }
                // A runtime that is another program may say so and have ended nobody. Where its process stands for others too, nobody is killed.
                let is_ours = !self.foreign.as_ref().is_some_and(|foreign| foreign.waits());
                if let Some(pid) = self
                    .container(serial)
                    .filter(|container| is_ours && container.has_init())
                    .and_then(|container| rustix::process::Pid::from_raw(container.pid))
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                // A kubelet that lost its container takes a log for that of an earlier run, and counts a restart.
                if let Some(container) =
                    self.container(serial).filter(|container| container.started_at_ns == 0)
                {
                    container.log.take_back();
                }
                self.forget(serial);
            }
            other => self.delete_failed(serial, other.into_error(ErrorCode::DeleteFailed)),
        }
    }

    fn delete_failed(&mut self, serial: u32, error: CallError) {
        if let Some(container) = self.container(serial) {
            // A later delete may do better.
            container.phase = if container.has_init() { Phase::Created } else { Phase::Exited };
        }
        self.answer(Key::Deleted(serial), Err(error.clone()));
        self.ending_failed(error);
    }

    /// Removes a container from the list and tells everybody who waits for anything of it.
    pub(super) fn forget(&mut self, serial: u32) {
        let Some(index) = self.containers.iter().position(|container| container.serial == serial) else {
            return;
        };
        let mut container = self.containers.swap_remove(index);
        container.close_outputs(now_ns(), &self.poller);
        container.detach_all(&self.poller);
        self.kill_helpers(serial, |_| true);
        // A pod that is shut down keeps its exit records: nobody has said yet that he knows them.
        if self.ending.is_none() {
            let _ = rustix::fs::unlink(exit_path(&self.pod.config.pod_dir, &container.id));
        }
        let gone = || CallError::new(ErrorCode::NotFound, format!("container {} was deleted", container.id));
        for exec in &container.execs {
            self.answer(Key::ExecStarted(exec.serial), Err(gone()));
            self.answer(Key::ExecExited(exec.serial), Err(gone()));
        }
        self.answer(Key::Exited(serial), Err(gone()));
        self.answer(Key::Deleted(serial), message(&DeleteResponse { exit: container.exit }));
    }
}
