//! Short-lived children that do what may hang or what opens cgroups, and report by a pipe. The shim itself never waits for them.
//!
//! Only those that wait for processes of a foreign shim live longer, and say two things: that the process runs, and how it ended.
//!
//! A helper closes all descriptors that it was not handed. What a library keeps open for later must therefore never be opened in the
//! shim itself, or a helper would find it closed: nothing of `cgroup` is called outside of helpers.

use super::handed::Handed;
use crate::protocol::{CallError, ErrorCode};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use sys::process::{Child, Cloned};

/// A report is cut off here.
const MAX_REPORT: usize = 1 << 20;

/// What a helper says: a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Created(CreatedReport),
    Executed {
        pid: i32,
        warnings: Vec<String>,
    },
    /// `of_slice`: the cgroup was gone, and this is what the slice above it tells.
    Looked {
        oom_kills: u64,
        of_slice: bool,
        warnings: Vec<String>,
    },
    /// The end of a process that is not a child of the shim.
    Ended {
        code: u32,
        exited_at_ns: i64,
        lost: Option<String>,
    },
    Done {
        warnings: Vec<String>,
    },
    /// The answer to a call, encoded.
    Payload(Vec<u8>),
    Failed {
        code: String,
        stage: String,
        message: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreatedReport {
    pub(crate) pid: i32,
    /// Relative to the roots of the hierarchies.
    pub(crate) cgroup: Option<PathBuf>,
    /// How often memory has run out in the slice that the cgroup is in.
    pub(crate) slice_oom_kills: Option<u64>,
    pub(crate) own_pid_namespace: bool,
    /// Start has hooks to run or a cgroup to thaw, and is done by a helper.
    pub(crate) start_in_helper: bool,
    pub(crate) warnings: Vec<String>,
}

/// What reading a report gave.
#[derive(Debug)]
pub(crate) enum Heard {
    NotYet,
    /// Nobody is left who could say anything, or everything was heard.
    Nothing,
    Report(Report),
}

impl Report {
    /// The stage of a report made up for a helper that ended without one.
    pub(crate) const DIED: &str = "helper";

    pub(crate) fn failed(code: ErrorCode, stage: impl Into<String>, message: impl ToString) -> Report {
        Report::Failed { code: code.name().into(), stage: stage.into(), message: message.to_string() }
    }

    /// Done, or how it failed.
    pub(crate) fn of(result: Result<(), CallError>) -> Report {
        result.map_or_else(Report::from, |()| Report::Done { warnings: Vec::new() })
    }

    /// The error that a failure, or a report that does not fit the question, is.
    pub(crate) fn into_error(self, otherwise: ErrorCode) -> CallError {
        match self {
            Report::Failed { code, stage, message } => {
                // A helper that died had no name for it.
                let code = Some(ErrorCode::parse(&code)).filter(|code| *code != ErrorCode::Unknown);
                CallError::new(code.unwrap_or(otherwise), message).at(stage)
            }
            Report::Created(_)
            | Report::Executed { .. }
            | Report::Looked { .. }
            | Report::Ended { .. }
            | Report::Done { .. }
            | Report::Payload(_) => {
                CallError::new(otherwise, "a helper reported something else than it was asked for")
            }
        }
    }
}

impl From<CallError> for Report {
    fn from(error: CallError) -> Report {
        Report::failed(error.code, error.stage, error.message)
    }
}

#[derive(Debug)]
pub(crate) struct Helper<P> {
    pub(crate) serial: u32,
    pub(crate) purpose: P,
    pub(crate) child: Child,
    pub(crate) report: OwnedFd,
    /// What was read of the report.
    bytes: Vec<u8>,
    /// The report was taken; the process is ending, unless it goes on.
    pub(crate) reported: bool,
    /// Another report follows the first one.
    pub(crate) goes_on: bool,
}

/// How a helper says something before its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker<'a>(BorrowedFd<'a>);

impl Speaker<'_> {
    pub(crate) fn say(self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        let mut rest = &line[..];
        while !rest.is_empty() {
            match rustix::io::write(self.0, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        Ok(())
    }
}

impl<P> Helper<P> {
    /// Forks a process that has only the descriptors of `handed`, does `work` with them, reports and ends. It says something before its
    /// end if it `goes_on`.
    pub(crate) fn start(
        serial: u32,
        purpose: P,
        handed: Handed,
        goes_on: bool,
        work: impl FnOnce(Handed, Speaker<'_>) -> Report,
    ) -> io::Result<Helper<P>> {
        let (report, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&report, true)?;
        match sys::process::clone_process(0, None)? {
            Cloned::Parent(child) => {
                Ok(Helper { serial, purpose, child, report, bytes: Vec::new(), reported: false, goes_on })
            }
            Cloned::Child => {
                if !goes_on {
                    sys::arena::begin();
                }
                // A panic must not return into the shim's loop a second time.
                let all = std::panic::AssertUnwindSafe(|| run(handed, writer.as_fd(), work));
                let code = std::panic::catch_unwind(all);
                sys::process::exit_now(code.unwrap_or(101))
            }
        }
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) -> Heard {
        if self.reported && !self.goes_on {
            return Heard::Nothing;
        }
        let mut buffer = [0; 1024];
        let at_end = loop {
            match rustix::io::read(&self.report, &mut buffer) {
                Ok(0) => break true,
                Ok(length) if self.bytes.len() < MAX_REPORT => {
                    self.bytes.extend_from_slice(&buffer[..length])
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => break false,
            }
        };
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            return if at_end { Heard::Nothing } else { Heard::NotYet };
        };
        let rest = self.bytes.split_off(end + 1);
        let report = serde_json::from_slice(&self.bytes[..end]).unwrap_or_else(|cause| {
            Report::failed(
                ErrorCode::Internal,
                "report",
                format!("a helper's report cannot be read: {cause}"),
            )
        });
        self.bytes = rest;
        // What follows a first report is the last.
        self.goes_on &= !self.reported && !matches!(report, Report::Failed { .. });
        self.reported = true;
        Heard::Report(report)
    }

    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, rustix::process::Signal::KILL);
    }
}

fn run(handed: Handed, writer: BorrowedFd<'_>, work: impl FnOnce(Handed, Speaker<'_>) -> Report) -> i32 {
    let mut keep = handed.borrowed();
    keep.push(writer);
    // The signals stay as the shim has them: the runtime resets those of init, and a hook that reads nothing must not end us by SIGPIPE.
    let prepared = sys::parent::close_all_except(&keep);
    let report = match prepared {
        Ok(()) => work(handed, Speaker(writer)),
        Err(cause) => Report::failed(ErrorCode::Internal, "helper", cause),
    };
    i32::from(Speaker(writer).say(&report).is_err())
}
