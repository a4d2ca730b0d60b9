//! The end of a container: kill what is left of it, read its output to the end, learn whether memory was the cause, write it down, and
//! only then tell anybody.

use super::Shim;
use super::container::{Container, More, Phase};
use super::dispatch::Key;
use super::reap::Purpose;
use crate::config::exit_path;
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::work::look_at;
use crate::parent::{message, now_ns};
use crate::protocol::{Exit, WaitResponse};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an exit is kept back for the rest of the output and for the look at the cgroup.
const DRAIN: Duration = Duration::from_secs(5);

/// What the kernel ends a process with for want of memory, as an exit code.
const KILLED: u32 = 128 + 9;

/// What is read of an output in one go at the end; whoever writes more than that is still alive.
const DRAIN_BYTES: usize = 8 << 20;

impl Shim {
    pub(super) fn output_readable(&mut self, serial: u32, index: usize, buffer: &mut [u8]) {
        let now = now_ns();
        let Some(container) = self.containers.iter_mut().find(|container| container.serial == serial) else {
            return;
        };
        if container.log_output(index, buffer, now, &self.poller) == More::Ended {
            self.publish_if_drained(serial);
        }
    }

    /// Init was reaped.
    pub(super) fn container_ended(&mut self, serial: u32, mut exit: Exit, buffer: &mut [u8]) {
        self.resolve_start(serial);
        let Some(container) = self.containers.iter_mut().find(|container| container.serial == serial) else {
            return;
        };
        exit.started_at_ns = container.started_at_ns;
        // That it had started may have been noticed a moment after its end.
        exit.exited_at_ns = exit.exited_at_ns.max(exit.started_at_ns);
        container.exit = Some(exit);
        // Those of a foreign shim have numbers that may be another's, and it ends them itself.
        if !self.foreign.as_ref().is_some_and(|foreign| foreign.parents()) {
            container.kill_execs();
        }
        container.drain(buffer, &self.poller);
        // What starts further processes in a dead container has nothing to wait for. Hooks of its start may go on for a while.
        self.kill_helpers(serial, |purpose| matches!(purpose, Purpose::Exec { .. }));
        let beside =
            self.memory.beside(self.containers.iter().filter(|container| container.serial != serial));
        let Some(container) = self.container(serial) else {
            return;
        };
        if matches!(container.phase, Phase::Deleting) {
            self.publish(serial);
            return;
        }
        // Of one whose end nobody saw, everything may still run.
        let kill =
            !container.own_pid_namespace || container.exit.as_ref().is_some_and(|exit| !exit.lost.is_empty());
        let look = container.cgroup.as_ref().map(|cgroup| (cgroup.clone(), kill));
        let looking = match look {
            None => false,
            Some((cgroup, kill)) => {
                let purpose = Purpose::Look { container: serial };
                let work = move |_| look_at(&cgroup, kill, &beside);
                let started = self.start_helper(purpose, Handed::default(), work);
                if let Err(cause) = &started {
                    warning!("container {}: nobody can look at its cgroup: {cause}", self.name(serial));
                }
                started.is_ok()
            }
        };
        if let Some(container) = self.container(serial) {
            container.phase = Phase::Draining { until: Instant::now() + DRAIN, looking };
        }
        self.publish_if_drained(serial);
    }

    /// What the helper saw in the cgroup.
    pub(super) fn looked(&mut self, serial: u32, report: Report) {
        let Some(container) = self.container(serial) else {
            return;
        };
        let (oom_kills, is_guess) = match report {
            Report::Looked { oom_kills, of_slice, warnings } => {
                for what in warnings {
                    warning!("container {}: {what}", container.id);
                }
                (oom_kills, of_slice)
            }
            other => {
                let error = other.into_error(crate::protocol::ErrorCode::Internal);
                warning!("container {}: its cgroup could not be looked at: {error}", container.id);
                (0, false)
            }
        };
        if let Phase::Draining { looking, .. } = &mut container.phase {
            *looking = false;
            if let Some(exit) = &mut container.exit {
                // Somebody who is in the same slice and not of this pod may have been meant.
                exit.oom_killed = (oom_kills > 0 && (exit.code == KILLED || !is_guess)) || container.oom_told;
            }
        }
        self.memory.tell(oom_kills);
        self.publish_if_drained(serial);
    }

    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        let until = |container: &Container| match container.phase {
            Phase::Draining { until, .. } => Some(until),
            _ => None,
        };
        self.containers.iter().filter_map(until).min()
    }

    /// Tells of exits whose time to wait for more is over.
    pub(super) fn publish_drained(&mut self, now: Instant, buffer: &mut [u8]) {
        let over = |container: &&mut Container| matches!(container.phase, Phase::Draining { until, .. } if until <= now);
        while let Some(container) = self.containers.iter_mut().find(over) {
            container.drain(buffer, &self.poller);
            let serial = container.serial;
            self.kill_helpers(serial, |purpose| matches!(purpose, Purpose::Start { .. }));
            self.publish(serial);
        }
    }

    pub(super) fn publish_if_drained(&mut self, serial: u32) {
        let purpose = Purpose::Start { container: serial };
        let starting = self.helpers.is_busy(|other| *other == purpose);
        if let Some(container) = self.container(serial)
            && matches!(container.phase, Phase::Draining { looking: false, .. })
            && container.outputs.iter().all(Option::is_none)
            && !starting
        {
            self.publish(serial);
        }
    }

    /// Writes the exit down, then tells those who wait.
    fn publish(&mut self, serial: u32) {
        let folder = self.pod.config.pod_dir.clone();
        let Some(container) = self.containers.iter_mut().find(|container| container.serial == serial) else {
            return;
        };
        let Some(exit) = container.exit.clone() else {
            return;
        };
        if !matches!(container.phase, Phase::Deleting) {
            container.phase = Phase::Exited;
        }
        container.detach_all(&self.poller);
        if let Err(cause) = write_record(&folder, &container.id, &exit) {
            warning!("container {}: its exit record cannot be written: {cause}", container.id);
        }
        self.answer(Key::Exited(serial), message(&WaitResponse { exit: Some(exit) }));
    }

    fn name(&mut self, serial: u32) -> &str {
        self.container(serial).map_or("", |container| &container.id)
    }
}

impl Container {
    /// Reads what lies in its outputs, and no more than a bound: somebody who is alive may write faster than this reads.
    pub(super) fn drain(&mut self, buffer: &mut [u8], poller: &crate::parent::poller::Poller) {
        let now = now_ns();
        for index in 0..self.outputs.len() {
            let mut left = DRAIN_BYTES;
            while left > 0 && self.log_output(index, buffer, now, poller) == More::MayBe {
                left = left.saturating_sub(buffer.len());
            }
        }
    }

    fn kill_execs(&self) {
        let running = self.execs.iter().filter(|exec| exec.exit.is_none());
        for pid in running.filter_map(|exec| rustix::process::Pid::from_raw(exec.pid)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Writes an exit record, whole or not at all.
fn write_record(pod_dir: &Path, id: &str, exit: &Exit) -> io::Result<()> {
    let path = exit_path(pod_dir, id);
    let bytes = serde_json::to_vec(exit)?;
    let write = || sys::file::write_atomic(&path, &bytes, 0o600, sys::file::Durability::Process);
    match write() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(pod_dir);
            rustix::fs::mkdir(folder, rustix::fs::Mode::RWXU)?;
            write()
        }
        other => other,
    }
}
