//! Ends of children: processes of tasks, helpers, programs that take output, and whatever was orphaned below the server.

use super::control::Job;
use super::{Server, streams};
use crate::messages::{info, warning};
use crate::protocol::ErrorCode;
use crate::server::create::Handed;
use crate::server::helper::{Heard, Helper, Report};
use crate::server::poller::{READ, Token};
use crate::server::reap::{exit_of, kill_strays};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use std::io;

/// Helpers at one time.
const MAX_HELPERS: usize = 128;

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
        if bounded && self.helpers.len() >= MAX_HELPERS {
            return Err(io::Error::other(format!("{MAX_HELPERS} operations are under way already")));
        }
        let serial = self.serial();
        let helper = Helper::start(serial, purpose, handed, work)?;
        if let Err(cause) = self.poller.add(&helper.report, Token::Helper(serial), READ) {
            helper.kill();
            warning!("a helper cannot be listened to: {cause}");
        }
        self.helpers.push(helper);
        Ok(())
    }

    /// Ends what is under way and serves that purpose.
    pub(super) fn kill_helpers(&self, which: impl Fn(&Purpose) -> bool) {
        self.helpers.iter().filter(|helper| which(&helper.purpose)).for_each(Helper::kill);
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
                self.poller.remove(&helper.report);
                let purpose = helper.purpose.clone();
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
        self.helpers.iter().find(|helper| helper.child.pid == pid).map(|helper| Known::Helper(helper.serial))
    }

    fn helper_ended(&mut self, serial: u32, status: WaitStatus, buffer: &mut [u8]) {
        let Some(index) = self.helpers.iter().position(|helper| helper.serial == serial) else {
            return;
        };
        let mut helper = self.helpers.swap_remove(index);
        self.poller.remove(&helper.report);
        if helper.reported {
            return;
        }
        let report = match helper.read() {
            Heard::Report(report) => report,
            Heard::NotYet | Heard::Nothing => {
                kill_strays(|pid| self.known(pid).is_some());
                let exit = exit_of(0, status);
                let how = match exit.signal {
                    0 => format!("it exited with code {}", exit.code),
                    signal => format!("signal {signal} ended it"),
                };
                let why = format!("the helper process ended without a word: {how}");
                Report::failed(ErrorCode::Unknown, Report::DIED, why)
            }
        };
        self.done(helper.purpose, report, buffer);
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
        mut work: impl FnMut(&mut streams::Streams, &crate::server::poller::Poller),
    ) {
        let mut processes = self.tasks.iter_mut().flat_map(|task| &mut task.processes);
        if let Some(process) = processes.find(|process| process.serial == serial) {
            work(&mut process.streams, &self.poller);
        }
    }
}
