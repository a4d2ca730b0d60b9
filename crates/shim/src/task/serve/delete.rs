//! Delete: removes a task that does not run, or a further process of one.

use super::dispatch::Outcome;
use super::process::{Phase, exited_at};
use super::reap::Purpose;
use super::{Key, Server};
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::work::remove;
use crate::parent::{message, now_ns};
use crate::protocol::{CallError, ErrorCode, Exit};
use crate::task::{bundle, rootfs};
use std::time::{Duration, Instant};
use task::events::TaskDelete;
use task::{DeleteRequest, DeleteResponse};

/// How long the rest of a task's output is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a further process, whose output others may hold open.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

/// What a process that never ran is said to have ended with: 128 + SIGKILL.
const KILLED: u32 = 137;

impl Server {
    pub(super) fn delete(&mut self, request: DeleteRequest, buffer: &mut [u8]) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let at = self.tasks[index].find(&request.exec_id)?;
        let process = &mut self.tasks[index].processes[at];
        let serial = process.serial;
        match (&mut process.phase, at) {
            (Phase::Making { cancelled }, 0) => {
                *cancelled = true;
                self.kill_helpers(|purpose| *purpose == Purpose::Create { task: serial });
            }
            (Phase::Created, 0) => self.begin_delete(serial, true),
            (Phase::Stopped, 0) => {
                process.streams.drain(buffer, &self.poller);
                self.begin_delete(serial, false);
            }
            (Phase::Added, _) => {
                process.exit = Some(Exit { exited_at_ns: now_ns(), ..Exit::default() });
                process.phase = Phase::Deleting { until: Instant::now(), removed: true };
            }
            (Phase::Stopped, _) => {
                process.streams.let_break();
                process.streams.drain(buffer, &self.poller);
                process.phase = Phase::Deleting { until: Instant::now() + SHORT_PATIENCE, removed: true };
            }
            (Phase::Deleting { .. }, _) => {}
            (
                Phase::Making { .. }
                | Phase::Created
                | Phase::Starting(_)
                | Phase::StartingInHelper
                | Phase::Running
                | Phase::Ending { .. },
                _,
            ) => return Err(self.tasks[index].wrong_state(at, "kill it and wait for its exit")),
        }
        Ok(Outcome::Later(Key::Deleted(serial)))
    }

    /// Lets a helper remove the task; with `force` whatever its state is.
    pub(super) fn begin_delete(&mut self, serial: u32, force: bool) {
        self.kill_helpers(|purpose| {
            matches!(purpose, Purpose::Create { task } | Purpose::Start { task } if *task == serial)
        });
        self.stop_watching_memory(serial);
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        let (id, bundle, mounted) = (task.id.clone(), task.bundle.clone(), !task.rootfs.is_empty());
        let first = task.first_mut();
        first.phase = Phase::Deleting { until: Instant::now() + PATIENCE, removed: false };
        first.streams.let_break();
        let started = self.start_helper(Purpose::Delete { task: serial }, Handed::default(), move |_| {
            let root = bundle::state_root(&bundle);
            let report = remove(&root, &id, &bundle, force);
            let _ = rustix::fs::rmdir(&root);
            match (report, mounted.then(|| rootfs::unmount(&bundle.join(bundle::ROOTFS)))) {
                (Report::Done { .. }, Some(Err(cause))) => {
                    Report::failed(ErrorCode::DeleteFailed, "root file system", format!("task {id}: {cause}"))
                }
                (report, _) => report,
            }
        });
        if let Err(cause) = started {
            self.removed(serial, Report::failed(ErrorCode::DeleteFailed, "helper", cause), &mut []);
        }
    }

    /// What the helper said.
    pub(super) fn removed(&mut self, serial: u32, report: Report, buffer: &mut [u8]) {
        let error = match report {
            Report::Done { warnings } => {
                warnings.iter().for_each(|what| warning!("{what}"));
                // A task that was never started was killed by the helper: its end is known here at once, if not noticed yet.
                self.children_changed(buffer);
                if let Some(first) = self.process_of(serial)
                    && let Phase::Deleting { removed, .. } = &mut first.phase
                {
                    *removed = true;
                }
                return;
            }
            other => other.into_error(ErrorCode::DeleteFailed),
        };
        if let Some(first) = self.process_of(serial) {
            // A later call may do better.
            first.phase = if first.is_alive() { Phase::Created } else { Phase::Stopped };
        }
        self.answer(Key::Deleted(serial), Err(error));
    }

    /// Lets go of what was removed and has no more to say, and of what had time enough to say it.
    pub(super) fn finish_deletions(&mut self, now: Instant) {
        let over = |process: &super::process::Process| match process.phase {
            Phase::Deleting { until, removed: true } => until <= now || process.streams.are_done(),
            _ => false,
        };
        let found: Vec<_> = self
            .processes()
            .filter(|process| over(process))
            .map(|process| (process.serial, process.is_first()))
            .collect();
        for (serial, first) in found {
            if first {
                self.forget_task(serial);
            } else {
                self.forget_process(serial);
            }
        }
    }

    /// Removes a task from the list and tells everybody who waits for anything of it.
    pub(super) fn forget_task(&mut self, serial: u32) {
        let Some(index) = self.tasks.iter().position(|task| task.serial() == serial) else {
            return;
        };
        self.stop_watching_memory(serial);
        let further: Vec<u32> =
            self.tasks[index].processes[1..].iter().map(|process| process.serial).collect();
        further.into_iter().for_each(|process| self.forget_process(process));
        let mut task = self.tasks.swap_remove(index);
        let first = task.first_mut();
        first.streams.close(&self.poller);
        let lived = first.pid != 0;
        let exit = first.exit.take().unwrap_or_else(|| killed(first.pid));
        if lived {
            self.publisher.tell(&TaskDelete {
                container_id: task.id.clone(),
                pid: exit.pid,
                exit_status: exit.code,
                exited_at: exited_at(&exit),
                id: String::new(),
            });
        }
        self.tell_gone(serial, &exit);
    }

    /// The same for a further process.
    pub(super) fn forget_process(&mut self, serial: u32) {
        let Some((task, at)) = self.tasks.iter_mut().find_map(|task| {
            let at = task.processes.iter().position(|process| process.serial == serial)?;
            Some((task, at))
        }) else {
            return;
        };
        let mut process = task.processes.remove(at);
        process.streams.close(&self.poller);
        let exit = process.exit.take().unwrap_or_else(|| killed(process.pid));
        self.tell_gone(serial, &exit);
    }

    fn tell_gone(&mut self, serial: u32, exit: &Exit) {
        let gone = || CallError::new(ErrorCode::NotFound, "it was deleted");
        self.answer(Key::Created(serial), Err(gone()));
        self.answer(Key::Started(serial), Err(gone()));
        self.tell_exit(serial, exit);
        let answer = DeleteResponse { pid: exit.pid, exit_status: exit.code, exited_at: exited_at(exit) };
        self.answer(Key::Deleted(serial), message(&answer));
    }
}

fn killed(pid: i32) -> Exit {
    Exit { code: KILLED, signal: 9, pid: pid.cast_unsigned(), exited_at_ns: now_ns(), ..Exit::default() }
}
