//! Shutdown: kills and removes everything of the pod, takes away the shim's own files, and ends.

use super::Shim;
use super::container::Phase;
use super::dispatch::Key;
use super::dispatch::Outcome;
use crate::config::{record_path, socket_path};
use crate::messages::{info, warning};
use crate::parent::message;
use crate::protocol::{CallError, Empty, ErrorCode, ShutdownRequest};
use std::time::{Duration, Instant};

/// How long killing and removing may take before the caller is told what hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shim is ending.
pub(super) struct Ending {
    until: Instant,
    finished: bool,
}

impl Ending {
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.until)
    }
}

impl Shim {
    pub(super) fn has_ended(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.finished)
    }

    pub(super) fn shutdown(&mut self, _: ShutdownRequest) -> Outcome {
        if self.ending.is_none() {
            info!("pod {} is shut down", self.pod.config.pod_id);
            self.ending = Some(Ending { until: Instant::now() + PATIENCE, finished: false });
            for index in 0..self.containers.len() {
                self.end_container(index);
            }
        }
        Outcome::Later(Key::ShutDown)
    }

    /// The first step towards the end of one container; its exit and its removal follow.
    fn end_container(&mut self, index: usize) {
        let container = &self.containers[index];
        match container.phase {
            Phase::Creating { .. } => self.cancel(container.serial),
            Phase::Created | Phase::Starting(_) | Phase::StartingInHelper | Phase::Running => {
                const KILL: i32 = 9;
                let id = container.id.clone();
                if let Err(cause) = self.kill_by_helper(&id, KILL, true) {
                    warning!("container {id} was not killed: {cause}");
                }
            }
            Phase::Draining { .. } | Phase::Exited | Phase::Deleting => {}
        }
    }

    /// Deletes what has exited; when nothing is left, ends.
    pub(super) fn go_on_ending(&mut self, now: Instant) {
        let Some(ending) = &self.ending else {
            return;
        };
        if now >= ending.until {
            let left: Vec<_> = self
                .containers
                .iter()
                .map(|container| format!("{} is {}", container.id, container.phase_name()))
                .collect();
            let what = format!("after {} s of killing: container {}", PATIENCE.as_secs(), left.join(", "));
            self.ending_failed(CallError::new(ErrorCode::DeleteFailed, what));
            return;
        }
        let exited: Vec<_> = self
            .containers
            .iter()
            .filter(|container| matches!(container.phase, Phase::Exited))
            .map(|container| container.serial)
            .collect();
        for serial in exited {
            self.begin_delete(serial, true);
        }
        if self.containers.is_empty() && self.helpers.is_empty() && self.has_ended_foreign_pod() {
            self.finish();
        }
    }

    /// The pod cannot be removed now: tells so, and serves on.
    pub(super) fn ending_failed(&mut self, error: CallError) {
        if self.ending.take().is_some() {
            self.answer(Key::ShutDown, Err(error));
        }
    }

    fn finish(&mut self) {
        if let Some(init) = self.pod.pid_init.take() {
            init.kill_and_reap();
        }
        let folder = &self.pod.config.pod_dir;
        for path in [socket_path(folder), record_path(folder)] {
            if let Err(cause) = rustix::fs::unlink(&path) {
                warning!("{} cannot be removed: {cause}", path.display());
            }
        }
        // Absent if there never was a container.
        let _ = rustix::fs::rmdir(&self.runtime_root);
        self.answer(Key::ShutDown, message(&Empty {}));
        if let Some(ending) = &mut self.ending {
            ending.finished = true;
        }
    }
}
