//! Delete: removes what is left of a container that does not run, or cancels its creation.

use super::Shim;
use super::container::Phase;
use super::create::Handed;
use super::dispatch::Outcome;
use super::helper::{Purpose, Report};
use super::pending::Key;
use super::{message, now_ns};
use crate::config::exit_path;
use crate::messages::warning;
use crate::protocol::{CallError, DeleteRequest, DeleteResponse, ErrorCode};
use std::path::Path;

impl Shim {
    pub(super) fn delete(&mut self, request: DeleteRequest, buffer: &mut [u8]) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let container = &mut self.containers[index];
        let serial = container.serial;
        match &mut container.phase {
            Phase::Creating { .. } => self.cancel(serial),
            Phase::Created | Phase::Exited => {
                container.drain(buffer, &self.poller);
                self.begin_delete(serial, false);
            }
            Phase::Deleting => {}
            Phase::Starting(_) | Phase::StartingWithHooks | Phase::Running | Phase::Draining { .. } => {
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
        let purpose = Purpose::Create { container: serial };
        for helper in self.helpers.iter().filter(|helper| helper.purpose == purpose) {
            helper.kill();
        }
    }

    /// Lets a helper remove the container; with `force` whatever its state is.
    pub(super) fn begin_delete(&mut self, serial: u32, force: bool) {
        let root = self.runtime_root.clone();
        let Some(container) = self.container(serial) else {
            return;
        };
        container.phase = Phase::Deleting;
        let id = container.id.clone();
        let purpose = Purpose::Delete { container: serial };
        if let Err(cause) = self.start_helper(purpose, Handed::default(), move |_| remove(&root, &id, force))
        {
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

/// Runs in the helper.
fn remove(root: &Path, id: &str, force: bool) -> Report {
    match runtime::delete(root, id, force) {
        Ok(deleted) => {
            let warning = |warning: &runtime::Warning| format!("container {id}: {warning}");
            Report::Done { warnings: deleted.warnings.iter().map(warning).collect() }
        }
        // Its creation did not come so far.
        Err(runtime::DeleteError::Lookup(runtime::Lookup::NotFound { .. })) => {
            Report::Done { warnings: Vec::new() }
        }
        Err(error) => {
            let stage = match &error {
                runtime::DeleteError::Failed { failure, .. } => failure.stage.to_string(),
                runtime::DeleteError::Lookup(_) | runtime::DeleteError::Running { .. } => "state".into(),
            };
            Report::failed(ErrorCode::DeleteFailed, stage, error)
        }
    }
}
