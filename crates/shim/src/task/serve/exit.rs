//! The end of a process: kill what is left of its task, learn whether memory was the cause, write it down, and only then tell anybody.
//!
//! The first process of a task is told of last.

use super::control::Job;
use super::process::{Phase, Process, exited_at};
use super::reap::Purpose;
use super::{Key, Server};
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::memory::Beside;
use crate::parent::work::look_at;
use crate::parent::{message, now_ns};
use crate::protocol::{CallError, ErrorCode, Exit};
use crate::task::bundle::write_exit;
use std::time::{Duration, Instant};
use task::WaitResponse;
use task::events::TaskExit;

/// How long an exit is kept back for the look at the cgroup and the ends of the others.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a further process is said to have ended with that could not be started, as shells have it.
const NOT_STARTED: u32 = 126;

impl Server {
    /// A process was reaped.
    pub(super) fn process_ended(&mut self, serial: u32, exit: Exit, buffer: &mut [u8]) {
        let is_first = self.process_of(serial).is_some_and(|process| process.is_first());
        if is_first {
            self.resolve_start(serial);
        }
        let poller = &self.poller;
        let Some(process) = self
            .tasks
            .iter_mut()
            .flat_map(|task| &mut task.processes)
            .find(|process| process.serial == serial)
        else {
            return;
        };
        process.exit = Some(exit);
        process.streams.drain(buffer, poller);
        if is_first {
            self.first_ended(serial);
        } else {
            process.phase = Phase::Stopped;
            self.tell(serial);
            if let Some(first) = self.process(serial).map(|(task, _)| task.serial()) {
                self.publish_if_over(first);
            }
        }
    }

    fn first_ended(&mut self, serial: u32) {
        // What there is to count is counted now for the last time.
        self.stop_watching_memory(serial);
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        if matches!(task.first().phase, Phase::Deleting { .. }) {
            return self.tell(serial);
        }
        // In a pid namespace of its own they are dead already.
        for process in task.processes[1..].iter().filter(|process| process.is_alive()) {
            if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let look = task.cgroup.clone().map(|cgroup| (cgroup, !task.own_pid_namespace));
        let further: Vec<u32> = task.processes[1..].iter().map(|process| process.serial).collect();
        // What starts further processes in a dead task has nothing to wait for. Hooks of its start may go on for a while.
        self.kill_helpers(
            |purpose| matches!(purpose, Purpose::Exec { process } if further.contains(process)),
        );
        let looking = look.is_some_and(|(cgroup, kill)| {
            let purpose = Purpose::Look { task: serial };
            let started = self.start_helper(purpose, Handed::default(), move |_| {
                look_at(&cgroup, kill, &Beside::default())
            });
            started.inspect_err(|cause| warning!("nobody can look at a cgroup: {cause}")).is_ok()
        });
        if let Some(first) = self.process_of(serial) {
            first.phase = Phase::Ending { until: Instant::now() + PATIENCE, looking };
        }
        self.publish_if_over(serial);
    }

    /// What the helper saw in the cgroup.
    pub(super) fn looked(&mut self, serial: u32, report: Report) {
        match report {
            Report::Looked { oom_kills, warnings, .. } => {
                warnings.iter().for_each(|what| warning!("{what}"));
                self.tell_out_of_memory(serial, oom_kills);
            }
            other => warning!("a cgroup could not be looked at: {}", other.into_error(ErrorCode::Internal)),
        }
        if let Some(Process { phase: Phase::Ending { looking, .. }, .. }) = self.process_of(serial) {
            *looking = false;
        }
        self.publish_if_over(serial);
    }

    pub(super) fn publish_if_over(&mut self, serial: u32) {
        // A call is answered before the end that it brought about is told: containerd closes the connection when it hears of that.
        let busy = |purpose: &Purpose| match purpose {
            Purpose::Start { task } | Purpose::Job { task, job: Job::Kill, .. } => *task == serial,
            _ => false,
        };
        let busy = self.helpers.is_busy(busy);
        if let Some((task, _)) = self.process(serial)
            && matches!(task.first().phase, Phase::Ending { looking: false, .. })
            && !task.processes[1..].iter().any(Process::is_alive)
            && !busy
        {
            task.first_mut().phase = Phase::Stopped;
            self.tell(serial);
        }
    }

    /// Does what is due because its time is over.
    pub(super) fn end_of_patience(&mut self, now: Instant) {
        let late = |process: &&Process| matches!(process.phase, Phase::Ending { until, .. } if until <= now);
        let found: Vec<_> = self.processes().filter(late).map(|process| process.serial).collect();
        for serial in found {
            self.kill_helpers(|purpose| *purpose == Purpose::Start { task: serial });
            if let Some(first) = self.process_of(serial) {
                first.phase = Phase::Stopped;
            }
            self.tell(serial);
        }
        self.finish_deletions(now);
    }

    /// A further process could not be started. It has ended, as far as others are concerned.
    pub(super) fn never_ran(&mut self, serial: u32, error: CallError) {
        warning!("{error}");
        let poller = &self.poller;
        let Some(process) = self
            .tasks
            .iter_mut()
            .flat_map(|task| &mut task.processes)
            .find(|process| process.serial == serial)
        else {
            return;
        };
        process.streams.close(poller);
        process.console = None;
        if let Some(pid) = rustix::process::Pid::from_raw(process.pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        if process.exit.is_none() && process.pid == 0 {
            process.exit = Some(Exit { code: NOT_STARTED, exited_at_ns: now_ns(), ..Exit::default() });
            process.phase = Phase::Stopped;
            let exit = process.exit.clone().unwrap_or_default();
            self.tell_exit(serial, &exit);
        }
    }

    /// Writes an exit down, then tells it to everybody.
    fn tell(&mut self, serial: u32) {
        let Some((task, at)) = self.process(serial) else {
            return;
        };
        let Some(exit) = task.processes[at].exit.clone() else {
            return;
        };
        if at == 0
            && let Err(cause) = write_exit(&task.bundle, &exit)
        {
            warning!("task {}: its exit cannot be written down: {cause}", task.id);
        }
        let id = if at == 0 { task.id.clone() } else { task.processes[at].exec_id.clone() };
        let event = TaskExit {
            container_id: task.id.clone(),
            id,
            pid: exit.pid,
            exit_status: exit.code,
            exited_at: exited_at(&exit),
        };
        self.publisher.tell(&event);
        self.tell_exit(serial, &exit);
    }

    /// Answers those who wait for it.
    pub(super) fn tell_exit(&mut self, serial: u32, exit: &Exit) {
        let answer = WaitResponse { exit_status: exit.code, exited_at: exited_at(exit) };
        self.answer(Key::Exited(serial), message(&answer));
    }
}
