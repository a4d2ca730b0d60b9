//! Short-lived children that do what may hang or what opens cgroups, and report by a pipe. The shim itself never waits for them.
//!
//! A helper closes all descriptors that it was not handed. What a library keeps open for later must therefore never be opened in the
//! shim itself, or a helper would find it closed: nothing of `cgroup` is called outside of helpers.

use super::create::Handed;
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

/// What a helper was started for. The numbers are serials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
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
    Pause,
    Resume,
    Checkpoint {
        container: u32,
    },
    /// `call` is what the callers wait for.
    Kill {
        call: u32,
    },
}

/// What a helper says at its end: one line of JSON.
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
            | Report::Done { .. }
            | Report::Payload(_) => {
                CallError::new(otherwise, "a helper reported something else than it was asked for")
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Helper<P = Purpose> {
    pub(crate) serial: u32,
    pub(crate) purpose: P,
    pub(crate) child: Child,
    pub(crate) report: OwnedFd,
    /// What was read of the report.
    bytes: Vec<u8>,
    /// The report was taken; the process is ending.
    pub(crate) reported: bool,
}

impl<P> Helper<P> {
    /// Forks a process that has only the descriptors of `handed`, does `work` with them, reports and ends.
    pub(crate) fn start(
        serial: u32,
        purpose: P,
        handed: Handed,
        work: impl FnOnce(Handed) -> Report,
    ) -> io::Result<Helper<P>> {
        let (report, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&report, true)?;
        match sys::process::clone_process(0, None)? {
            Cloned::Parent(child) => {
                Ok(Helper { serial, purpose, child, report, bytes: Vec::new(), reported: false })
            }
            Cloned::Child => {
                // A panic must not return into the shim's loop a second time.
                let all = std::panic::AssertUnwindSafe(|| run(handed, writer.as_fd(), work));
                let code = std::panic::catch_unwind(all);
                sys::process::exit_now(code.unwrap_or(101))
            }
        }
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) -> Heard {
        if self.reported {
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
        let Some(line) = self.bytes.strip_suffix(b"\n") else {
            return if at_end { Heard::Nothing } else { Heard::NotYet };
        };
        let report = serde_json::from_slice(line).unwrap_or_else(|cause| {
            Report::failed(
                ErrorCode::Internal,
                "report",
                format!("a helper's report cannot be read: {cause}"),
            )
        });
        self.bytes = Vec::new();
        self.reported = true;
        Heard::Report(report)
    }

    pub(crate) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.child.pidfd, rustix::process::Signal::KILL);
    }
}

fn run(handed: Handed, writer: BorrowedFd<'_>, work: impl FnOnce(Handed) -> Report) -> i32 {
    let mut keep = handed.borrowed();
    keep.push(writer);
    // The signals stay as the shim has them: the runtime resets those of init, and a hook that reads nothing must not end us by SIGPIPE.
    let prepared = sys::parent::close_all_except(&keep);
    let report = match prepared {
        Ok(()) => work(handed),
        Err(cause) => Report::failed(ErrorCode::Internal, "helper", cause),
    };
    let mut line = serde_json::to_vec(&report).unwrap_or_default();
    line.push(b'\n');
    let mut rest = &line[..];
    while !rest.is_empty() {
        match rustix::io::write(writer, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
    }
    0
}
