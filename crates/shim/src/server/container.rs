//! What the shim knows of a container and of the processes that were executed in it.

use super::attached::Attached;
use super::input::Input;
use crate::foreign::Target;
use crate::log::{Line, LogFile, Stream};
use crate::parent::handed::Handed;
use crate::parent::poller::{Poller, READ, Token};
use crate::protocol::{ContainerInfo, ContainerState, ExecInfo, Exit};
use runtime::StartAttempt;
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Instant;

/// Where a container is in its life.
///
/// ```text
/// Creating --> Created --> Starting --> Running --> Draining --> Exited --> Deleting --> (gone)
///     |           |            |                       ^           ^            |
///     |           |            '-----------------------'           |            | failed
///     |           '------------------------------------'           '------------'
///     '--> (gone)
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    /// A helper makes it. `cancelled` once somebody deleted it.
    Creating {
        cancelled: bool,
    },
    Created,
    /// Init was told to become the command.
    Starting(Box<StartAttempt>),
    /// The same, by a helper, because hooks have to be run or a cgroup has to be thawed.
    StartingInHelper,
    Running,
    /// Init is dead and its output is read to the end, but not longer than `until`.
    /// `looking` while a helper looks at its cgroup.
    Draining {
        until: Instant,
        looking: bool,
    },
    Exited,
    /// A helper removes it.
    Deleting,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) serial: u32,
    pub(super) id: String,
    pub(super) phase: Phase,
    /// Init; 0 while it is being created.
    pub(super) pid: i32,
    pub(super) started_at_ns: i64,
    /// Set when init is dead; told to others when the phase is `Exited`.
    pub(super) exit: Option<Exit>,
    pub(super) outputs: [Option<Output>; 2],
    pub(super) log: LogFile,
    /// Its standard input, kept for somebody to attach.
    pub(super) stdin: Option<Input>,
    /// Those who are.
    pub(super) attached: Vec<Attached>,
    pub(super) has_terminal: bool,
    /// It was made to have an input.
    pub(super) wants_input: bool,
    /// A foreign shim keeps its input open until it is told of the end.
    pub(super) owes_end_of_input: bool,
    /// Receives the terminal while the container is being created.
    pub(super) console: Option<OwnedFd>,
    pub(super) bundle: PathBuf,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) own_pid_namespace: bool,
    pub(super) start_in_helper: bool,
    /// The streams of a foreign runtime's container, where it takes them when it starts.
    pub(super) at_start: Handed,
    /// A foreign shim said that its memory ran out.
    pub(super) oom_told: bool,
    pub(super) execs: Vec<Exec>,
}

impl Container {
    pub(super) fn info(&self) -> ContainerInfo {
        let state = match self.phase {
            Phase::Creating { .. } => ContainerState::Creating,
            Phase::Created => ContainerState::Created,
            Phase::Starting(_) | Phase::StartingInHelper => ContainerState::Created,
            Phase::Running | Phase::Draining { .. } => ContainerState::Running,
            Phase::Exited => ContainerState::Exited,
            Phase::Deleting => ContainerState::Deleting,
        };
        ContainerInfo {
            id: self.id.clone(),
            pid: self.pid.cast_unsigned(),
            state: state.into(),
            exit: self.published_exit().cloned(),
            started_at_ns: self.started_at_ns,
            dropped_log_records: self.log.dropped(),
            execs: self.execs.iter().map(Exec::info).collect(),
        }
    }

    /// What a foreign runtime has to know of it.
    pub(super) fn target(&self) -> Target {
        Target { id: self.id.clone(), bundle: self.bundle.clone() }
    }

    /// Its exit, if that may be told.
    pub(super) fn published_exit(&self) -> Option<&Exit> {
        match self.phase {
            Phase::Exited | Phase::Deleting => self.exit.as_ref(),
            _ => None,
        }
    }

    pub(super) fn phase_name(&self) -> &'static str {
        match self.phase {
            Phase::Creating { .. } => "being created",
            Phase::Created => "created and not started",
            Phase::Starting(_) | Phase::StartingInHelper => "starting",
            Phase::Running => "running",
            Phase::Draining { .. } => "ending",
            Phase::Exited => "not running any more",
            Phase::Deleting => "being deleted",
        }
    }

    /// Whether init exists and is not known to be dead.
    pub(super) fn has_init(&self) -> bool {
        self.pid > 0 && self.exit.is_none()
    }

    /// The master of its terminal, if it has one that is still open.
    pub(super) fn terminal(&self) -> Option<&OwnedFd> {
        self.outputs[0].as_ref().filter(|_| self.has_terminal).map(|output| &output.source)
    }

    /// Reads one output once and writes its records.
    pub(super) fn log_output(
        &mut self,
        index: usize,
        buffer: &mut [u8],
        now_ns: i64,
        poller: &Poller,
    ) -> More {
        let Some(output) = self.outputs.get_mut(index).and_then(Option::as_mut) else {
            return More::Ended;
        };
        match rustix::io::read(&output.source, &mut *buffer) {
            Ok(length) if length > 0 => {
                output.line.feed(&buffer[..length], now_ns, &mut self.log);
                self.copy_output(index, &buffer[..length], poller);
                More::MayBe
            }
            Err(Errno::AGAIN) => More::NotNow,
            Err(Errno::INTR) => More::MayBe,
            // A terminal says EIO when nobody has its other end.
            Ok(_) | Err(_) => {
                self.close_output(index, now_ns, poller);
                More::Ended
            }
        }
    }

    pub(super) fn close_outputs(&mut self, now_ns: i64, poller: &Poller) {
        for index in 0..self.outputs.len() {
            self.close_output(index, now_ns, poller);
        }
    }

    /// Ends an output: what is held of its last line becomes a record.
    pub(super) fn close_output(&mut self, index: usize, now_ns: i64, poller: &Poller) {
        if let Some(mut output) = self.outputs.get_mut(index).and_then(Option::take) {
            output.line.finish(now_ns, &mut self.log);
            poller.remove(&output.source);
            self.end_copies(index, poller);
        }
    }
}

/// What is to be expected of an output after a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    MayBe,
    NotNow,
    Ended,
}

/// The reading end of a container's output.
#[derive(Debug)]
pub(super) struct Output {
    source: OwnedFd,
    line: Line,
}

impl Output {
    /// Starts to wait for output of `source`.
    pub(super) fn open(
        source: OwnedFd,
        container: u32,
        stream: Stream,
        terminal: bool,
        poller: &Poller,
    ) -> rustix::io::Result<Output> {
        rustix::io::ioctl_fionbio(&source, true)?;
        let index = match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        };
        poller.add(&source, Token::Output(container, index), READ)?;
        Ok(Output { source, line: Line::new(stream, terminal) })
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// A process that was executed in a container.
#[derive(Debug)]
pub(super) struct Exec {
    pub(super) serial: u32,
    pub(super) id: String,
    /// 0 while it is being started.
    pub(super) pid: i32,
    pub(super) started_at_ns: i64,
    pub(super) exit: Option<Exit>,
    /// Somebody was told of its exit.
    pub(super) told: bool,
}

impl Exec {
    fn info(&self) -> ExecInfo {
        ExecInfo { exec_id: self.id.clone(), pid: self.pid.cast_unsigned(), exit: self.exit.clone() }
    }
}
