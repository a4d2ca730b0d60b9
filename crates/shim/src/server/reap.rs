//! Ends of children: containers, further processes, helpers, and whatever was orphaned below the shim.

use super::Shim;
use crate::foreign;
use crate::messages::{info, warning};
use crate::parent::children::{self, exit_of, kill_strays};
use crate::parent::handed::Handed;
use crate::parent::helper::{Report, Speaker};
use rustix::process::WaitStatus;
use std::io;
use std::os::fd::AsFd;

/// What a helper was started for. The numbers are serials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Create {
        container: u32,
    },
    Start {
        container: u32,
    },
    Exec {
        container: u32,
        exec: u32,
    },
    /// Kill what init left behind and look why it died.
    Look {
        container: u32,
    },
    Delete {
        container: u32,
    },
    /// What comes before the first container and after the last one of a foreign runtime.
    BeginPod,
    EndPod,
    Resize {
        call: u32,
    },
    CloseInput {
        container: u32,
    },
    Pause,
    Resume,
    Checkpoint {
        container: u32,
    },
    Update {
        call: u32,
    },
    /// `call` is what the callers wait for.
    Kill {
        call: u32,
    },
}

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
        let serial = self.serial();
        self.helpers.start((serial, purpose), handed, (bounded, goes_on), &self.poller, work)
    }

    pub(super) fn helper_readable(&mut self, serial: u32, buffer: &mut [u8]) {
        if let Some((purpose, report)) = self.helpers.hear(serial, &self.poller) {
            self.done(purpose, report, buffer);
        }
    }

    /// SIGCHLD: reaps everybody who has ended.
    pub(super) fn children_changed(&mut self, buffer: &mut [u8]) {
        for (pid, status) in children::ended(self.children.as_fd()) {
            self.reaped(pid, status, buffer);
        }
    }

    fn reaped(&mut self, pid: i32, status: WaitStatus, buffer: &mut [u8]) {
        let mut known = self.known(pid);
        if known.is_none() {
            // It becomes our child only after its helper has ended, and that has reported before it ended.
            for serial in self.helpers.serials() {
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
        // What is waited for elsewhere has numbers that are no children of ours, and may not even be of this machine.
        let is = |what: fn(&foreign::Runtime) -> bool| self.foreign.as_deref().is_some_and(what);
        let (waits, parents) = (is(foreign::Runtime::waits), is(foreign::Runtime::parents));
        for container in &self.containers {
            if !waits && container.pid == pid && container.exit.is_none() {
                return Some(Known::Container(container.serial));
            }
            let ours = |exec: &&super::container::Exec| !parents && exec.pid == pid && exec.exit.is_none();
            if let Some(exec) = container.execs.iter().find(ours) {
                return Some(Known::Exec(container.serial, exec.serial));
            }
        }
        if self.pod.pid_init.as_ref().is_some_and(|init| init.pid == pid) {
            return Some(Known::PidInit);
        }
        self.helpers.of(pid).map(Known::Helper)
    }

    fn helper_ended(&mut self, serial: u32, status: WaitStatus, buffer: &mut [u8]) {
        let Some(ended) = self.helpers.end(serial, status, &self.poller) else {
            return;
        };
        // A foreign shim, or a process that stands for a pod, is a child of ours too, and not a stray.
        if ended.died && !self.foreign.as_ref().is_some_and(|foreign| foreign.waits()) {
            kill_strays(|pid| self.known(pid).is_some());
        }
        for report in ended.reports {
            self.done(ended.purpose, report, buffer);
        }
    }

    fn done(&mut self, purpose: Purpose, report: Report, buffer: &mut [u8]) {
        match purpose {
            Purpose::Create { container } if self.is_being_made(container) => {
                self.created(container, report, buffer);
            }
            Purpose::Create { container } => self.ended_elsewhere(container, report, buffer),
            Purpose::Start { container } if self.is_running(container) => {
                self.ended_elsewhere(container, report, buffer);
            }
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
