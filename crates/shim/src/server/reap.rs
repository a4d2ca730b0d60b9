//! Ends of children: containers, further processes, helpers, and whatever was orphaned below the shim.

use super::Shim;
use super::create::Handed;
use super::helper::{Heard, Helper, Purpose, Report, Speaker};
use super::now_ns;
use super::poller::{READ, Token};
use crate::messages::{info, warning};
use crate::protocol::{ErrorCode, Exit};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use std::io;

/// Helpers at one time.
const MAX_HELPERS: usize = 128;

/// What a process that was reaped is to us.
enum Known {
    Container(u32),
    Exec(u32, u32),
    Helper(u32),
    PidInit,
}

impl Shim {
    pub(super) fn start_helper(
        &mut self,
        purpose: Purpose,
        handed: Handed,
        work: impl FnOnce(Handed) -> Report,
    ) -> io::Result<()> {
        self.start_speaking_helper(purpose, handed, false, move |handed, _| work(handed))
    }

    /// The same for one that says something before its end, if it `goes_on`.
    pub(super) fn start_speaking_helper(
        &mut self,
        purpose: Purpose,
        handed: Handed,
        goes_on: bool,
        work: impl FnOnce(Handed, Speaker<'_>) -> Report,
    ) -> io::Result<()> {
        // What ends a container must always be possible.
        let bounded = matches!(
            purpose,
            Purpose::Create { .. } | Purpose::Exec { .. } | Purpose::Pause | Purpose::Checkpoint { .. }
        );
        // Those that only wait are as many as there are processes, and bounded by those.
        if bounded && self.helpers.iter().filter(|helper| !helper.reported).count() >= MAX_HELPERS {
            return Err(io::Error::other(format!(
                "{MAX_HELPERS} operations of this pod are under way already"
            )));
        }
        let serial = self.serial();
        let helper = Helper::start_speaking(serial, purpose, handed, goes_on, work)?;
        if let Err(cause) = self.poller.add(&helper.report, Token::Helper(serial), READ) {
            helper.kill();
            warning!("a helper cannot be listened to: {cause}");
        }
        self.helpers.push(helper);
        Ok(())
    }

    pub(super) fn helper_readable(&mut self, serial: u32, buffer: &mut [u8]) {
        let Some(helper) = self.helpers.iter_mut().find(|helper| helper.serial == serial) else {
            return;
        };
        match helper.read() {
            Heard::NotYet => {}
            // Its end will be noticed by the reaping.
            Heard::Nothing => self.poller.remove(&helper.report),
            Heard::Report(report) => {
                if !helper.goes_on {
                    self.poller.remove(&helper.report);
                }
                let purpose = helper.purpose;
                self.done(purpose, report, buffer);
            }
        }
    }

    /// SIGCHLD: reaps everybody who has ended.
    pub(super) fn children_changed(&mut self, buffer: &mut [u8]) {
        let mut note = [0; 256];
        let _ = rustix::io::read(&self.children, &mut note);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.reaped(pid.as_raw_nonzero().get(), status, buffer),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn reaped(&mut self, pid: i32, status: WaitStatus, buffer: &mut [u8]) {
        let mut known = self.known(pid);
        if known.is_none() {
            // It becomes our child only after its helper has ended, and that has reported before it ended.
            let serials: Vec<_> = self.helpers.iter().map(|helper| helper.serial).collect();
            for serial in serials {
                self.helper_readable(serial, buffer);
            }
            known = self.known(pid);
        }
        match known {
            Some(Known::Container(serial)) => self.container_ended(serial, exit_of(pid, status), buffer),
            Some(Known::Exec(container, exec)) => self.exec_ended(container, exec, exit_of(pid, status)),
            Some(Known::Helper(serial)) => self.helper_ended(serial, status, buffer),
            Some(Known::PidInit) => {
                warning!("the first process of the pod's pid namespace has ended, and everything in it");
                self.pod.pid_init = None;
            }
            None => info!("process {pid}, an orphan, was reaped"),
        }
    }

    fn known(&self, pid: i32) -> Option<Known> {
        for container in &self.containers {
            if container.pid == pid && container.exit.is_none() {
                return Some(Known::Container(container.serial));
            }
            if let Some(exec) = container.execs.iter().find(|exec| exec.pid == pid && exec.exit.is_none()) {
                return Some(Known::Exec(container.serial, exec.serial));
            }
        }
        if self.pod.pid_init.as_ref().is_some_and(|init| init.pid == pid) {
            return Some(Known::PidInit);
        }
        self.helpers.iter().find(|helper| helper.child.pid == pid).map(|helper| Known::Helper(helper.serial))
    }

    fn helper_ended(&mut self, serial: u32, status: WaitStatus, buffer: &mut [u8]) {
        let Some(index) = self.helpers.iter().position(|helper| helper.serial == serial) else {
            return;
        };
        let mut helper = self.helpers.swap_remove(index);
        self.poller.remove(&helper.report);
        if helper.reported && !helper.goes_on {
            return;
        }
        let report = match helper.read() {
            Heard::Report(report) if helper.goes_on => {
                self.done(helper.purpose, report, buffer);
                match helper.read() {
                    Heard::Report(report) => report,
                    Heard::NotYet | Heard::Nothing => self.died(status),
                }
            }
            Heard::Report(report) => report,
            Heard::NotYet | Heard::Nothing => self.died(status),
        };
        self.done(helper.purpose, report, buffer);
    }

    /// What is to be thought of a helper that ended without a report.
    fn died(&self, status: WaitStatus) -> Report {
        // A foreign shim is a child of ours too, and not a stray.
        if !self.foreign.as_ref().is_some_and(|foreign| foreign.parents()) {
            kill_strays(|pid| self.known(pid).is_some());
        }
        let exit = exit_of(0, status);
        let how = match exit.signal {
            0 => format!("it exited with code {}", exit.code),
            signal => format!("signal {signal} ended it"),
        };
        let why = format!("the helper process ended without a word: {how}");
        Report::failed(ErrorCode::Unknown, Report::DIED, why)
    }

    fn done(&mut self, purpose: Purpose, report: Report, buffer: &mut [u8]) {
        match purpose {
            Purpose::Create { container } if self.is_being_made(container) => {
                self.created(container, report, buffer);
            }
            Purpose::Create { container } => self.ended_elsewhere(container, report, buffer),
            Purpose::Start { container } => self.started_by_helper(container, report),
            Purpose::Exec { container, exec } if self.has_begun(container, exec) => {
                self.exec_ended_elsewhere(container, exec, report);
            }
            Purpose::Exec { container, exec } => self.executed(container, exec, report),
            Purpose::BeginPod => self.pod_begun(report),
            Purpose::EndPod => self.pod_ended(report),
            Purpose::Resize { call } => self.resized(call, report),
            Purpose::CloseInput { container } => self.input_closed(container, report),
            Purpose::Look { container } => self.looked(container, report),
            Purpose::Delete { container } => self.deleted(container, report, buffer),
            Purpose::Pause => self.paused(report),
            Purpose::Resume => self.resumed(report),
            Purpose::Checkpoint { container } => self.checkpointed(container, report),
            Purpose::Update { call } => self.updated(call, report),
            Purpose::Kill { call } => self.killed(call, report),
        }
    }
}

/// A helper that was killed leaves children: a half-made init, a hook. They became ours, and unlike what a container orphans they are in
/// no container's cgroup but in our own.
pub(crate) fn kill_strays(is_known: impl Fn(i32) -> bool) {
    let own = std::fs::read("/proc/self/cgroup").unwrap_or_default();
    let pid = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let unknown = |pid: &i32| !is_known(*pid);
    for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).filter(unknown) {
        let is_stray = std::fs::read(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup == own);
        if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| is_stray) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The exit that a status is; 128 + signal is the code a shell would give.
pub(crate) fn exit_of(pid: i32, status: WaitStatus) -> Exit {
    let signal = status.terminating_signal().unwrap_or(0).cast_unsigned();
    let code = status.exit_status().map_or(128 + signal, i32::cast_unsigned);
    Exit { code, signal, pid: pid.cast_unsigned(), exited_at_ns: now_ns(), ..Exit::default() }
}
