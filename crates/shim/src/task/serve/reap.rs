//! Ends of children: processes of tasks, helpers, programs that take output, and whatever was orphaned below the server.

use super::control::Job;
use super::{Server, streams};
use crate::messages::info;
use crate::parent::children::{self, exit_of, kill_strays};
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use rustix::process::WaitStatus;
use std::io;
use std::os::fd::AsFd;

/// What a helper was started for. A task is meant by the serial of its first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    Create {
        task: u32,
    },
    Start {
        task: u32,
    },
    Exec {
        process: u32,
    },
    /// Kill what the first process left behind and look why it died.
    Look {
        task: u32,
    },
    /// Look whether memory has run out.
    Count {
        task: u32,
    },
    Delete {
        task: u32,
    },
    /// `call` is what its caller waits for.
    Job {
        call: u32,
        task: u32,
        job: Job,
    },
}

/// What a process that was reaped is to us.
enum Known {
    Process(u32),
    Helper(u32),
    Logger(u32),
}

impl Server {
    pub(super) fn start_helper(
        &mut self,
        purpose: Purpose,
        handed: Handed,
        work: impl FnOnce(Handed) -> Report,
    ) -> io::Result<()> {
        // What ends a task must always be possible.
        let bounded = matches!(&purpose, Purpose::Create { .. } | Purpose::Exec { .. })
            || matches!(&purpose, Purpose::Job { job, .. } if *job != Job::Kill);
        let serial = self.serial();
        self.helpers
            .start((serial, purpose), handed, (bounded, false), &self.poller, |handed, _| work(handed))
    }

    /// Ends what is under way and serves that purpose.
    pub(super) fn kill_helpers(&self, which: impl Fn(&Purpose) -> bool) {
        self.helpers.kill(which);
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
            Some(Known::Process(serial)) => self.process_ended(serial, exit_of(pid, status), buffer),
            Some(Known::Helper(serial)) => self.helper_ended(serial, status, buffer),
            Some(Known::Logger(serial)) => {
                if let Some(process) = self.process_of(serial) {
                    process.streams.logger = None;
                }
            }
            None => info!("process {pid}, an orphan, was reaped"),
        }
    }

    fn known(&self, pid: i32) -> Option<Known> {
        for process in self.processes() {
            if process.pid == pid && process.exit.is_none() {
                return Some(Known::Process(process.serial));
            }
            if process.streams.logger.as_ref().is_some_and(|logger| logger.pid == pid) {
                return Some(Known::Logger(process.serial));
            }
        }
        self.helpers.of(pid).map(Known::Helper)
    }

    fn helper_ended(&mut self, serial: u32, status: WaitStatus, buffer: &mut [u8]) {
        let Some(ended) = self.helpers.end(serial, status, &self.poller) else {
            return;
        };
        if ended.died {
            kill_strays(|pid| self.known(pid).is_some());
        }
        for report in ended.reports {
            self.done(ended.purpose.clone(), report, buffer);
        }
    }

    fn done(&mut self, purpose: Purpose, report: Report, buffer: &mut [u8]) {
        match purpose {
            Purpose::Create { task } => self.created(task, report),
            Purpose::Start { task } => self.started_by_helper(task, report),
            Purpose::Exec { process } => self.executed(process, report),
            Purpose::Look { task } => self.looked(task, report),
            Purpose::Count { task } => self.counted(task, &report),
            Purpose::Delete { task } => self.removed(task, report, buffer),
            Purpose::Job { call, task, job } => self.job_done(call, task, &job, report),
        }
    }

    pub(super) fn output_readable(&mut self, serial: u32, index: usize, buffer: &mut [u8]) {
        self.with_streams(serial, |streams, poller| streams.readable(index, buffer, poller));
    }

    pub(super) fn sink_writable(&mut self, serial: u32, index: usize) {
        self.with_streams(serial, |streams, poller| streams.writable(index, poller));
    }

    pub(super) fn source_readable(&mut self, serial: u32) {
        self.with_streams(serial, |streams, poller| streams.source_readable(serial, poller));
    }

    pub(super) fn input_writable(&mut self, serial: u32) {
        self.with_streams(serial, |streams, poller| streams.input_writable(serial, poller));
    }

    fn with_streams(
        &mut self,
        serial: u32,
        mut work: impl FnMut(&mut streams::Streams, &crate::parent::poller::Poller),
    ) {
        let mut processes = self.tasks.iter_mut().flat_map(|task| &mut task.processes);
        if let Some(process) = processes.find(|process| process.serial == serial) {
            work(&mut process.streams, &self.poller);
        }
    }
}
