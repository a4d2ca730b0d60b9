//! What the server knows of a task and of its processes: the first, and those that were executed beside it.

use super::stdio::Stdio;
use super::streams::Streams;
use crate::protocol::{CallError, ErrorCode, Exit};
use runtime::StartAttempt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;
use task::{Mount, Status, Timestamp};

/// Where a process is in its life.
///
/// ```text
/// first:   Making --> Created --> Starting --> Running --> Ending --> Stopped --> Deleting --> (gone)
///             |           |           |                      ^          ^            |
///             '--> (gone) '-----------'----------------------'          '------------' failed
/// further: Added --> Making --> Running --> Stopped --> Deleting --> (gone)
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    /// Told of, and not started.
    Added,
    /// A helper makes it. `cancelled` once somebody deleted its task.
    Making {
        cancelled: bool,
    },
    Created,
    /// It was told to become the command.
    Starting(Box<StartAttempt>),
    /// The same, by a helper, because hooks have to be run or a cgroup has to be thawed.
    StartingInHelper,
    Running,
    /// It is dead, and that is told when the others of its task are too, but not later than `until`. `looking` while a helper looks at
    /// its cgroup.
    Ending {
        until: Instant,
        looking: bool,
    },
    Stopped,
    /// A helper removes it, or has, and its output is still being read, but not longer than `until`.
    Deleting {
        until: Instant,
        removed: bool,
    },
}

/// Whether a task's processes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freezer {
    Thawed,
    Freezing,
    Frozen,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: Vec<Mount>,
    pub(super) checkpoint: String,
    pub(super) cgroup: Option<PathBuf>,
    pub(super) own_pid_namespace: bool,
    pub(super) start_in_helper: bool,
    pub(super) freezer: Freezer,
    pub(super) work: WorkPaths,
    /// Tells that memory has run out in its cgroup.
    pub(super) memory: Option<OwnedFd>,
    /// How many such ends were told of.
    pub(super) told_oom_kills: u64,
    /// The first is the task's own; there always is one.
    pub(super) processes: Vec<Process>,
}

/// What CRIU is told.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkPaths {
    pub(super) criu: String,
    pub(super) work: String,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) serial: u32,
    /// Empty for the first of a task.
    pub(super) exec_id: String,
    pub(super) phase: Phase,
    /// 0 while there is none.
    pub(super) pid: i32,
    /// Set when it is dead; told to others when the phase is `Stopped`.
    pub(super) exit: Option<Exit>,
    pub(super) stdio: Stdio,
    pub(super) streams: Streams,
    /// Receives its terminal while it is being made.
    pub(super) console: Option<OwnedFd>,
    /// The OCI process object of a further process.
    pub(super) spec: Vec<u8>,
}

impl Task {
    pub(super) fn first(&self) -> &Process {
        &self.processes[0]
    }

    pub(super) fn first_mut(&mut self) -> &mut Process {
        &mut self.processes[0]
    }

    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter()
    }

    /// The serial of its first process, which stands for it.
    pub(super) fn serial(&self) -> u32 {
        self.first().serial
    }

    /// The place of a process in the list.
    pub(super) fn find(&self, exec_id: &str) -> Result<usize, CallError> {
        self.processes.iter().position(|process| process.exec_id == exec_id).ok_or_else(|| {
            let exec_id: String = exec_id.chars().take(80).collect();
            CallError::new(ErrorCode::NotFound, format!("task {} has no process {exec_id:?}", self.id))
        })
    }

    pub(super) fn status(&self, at: usize) -> Status {
        let process = &self.processes[at];
        match (&process.phase, self.freezer) {
            (Phase::Running, Freezer::Frozen) if at == 0 => Status::Paused,
            (Phase::Running, Freezer::Freezing) if at == 0 => Status::Pausing,
            (Phase::Running | Phase::Ending { .. }, _) => Status::Running,
            (Phase::Stopped | Phase::Deleting { .. }, _) => Status::Stopped,
            (
                Phase::Added
                | Phase::Making { .. }
                | Phase::Created
                | Phase::Starting(_)
                | Phase::StartingInHelper,
                _,
            ) => Status::Created,
        }
    }

    /// The error that a process is in the wrong state for what was asked.
    pub(super) fn wrong_state(&self, at: usize, what: &str) -> CallError {
        let process = &self.processes[at];
        let name = match &*process.exec_id {
            "" => format!("task {}", self.id),
            exec_id => format!("process {exec_id:?} of task {}", self.id),
        };
        CallError::new(ErrorCode::WrongState, format!("{name} is {}, {what}", process.phase.name()))
    }
}

impl Process {
    pub(super) fn is_first(&self) -> bool {
        self.exec_id.is_empty()
    }

    /// Whether it exists and is not known to be dead.
    pub(super) fn is_alive(&self) -> bool {
        self.pid > 0 && self.exit.is_none()
    }

    /// Its exit, if that may be told.
    pub(super) fn published_exit(&self) -> Option<&Exit> {
        match self.phase {
            Phase::Stopped | Phase::Deleting { .. } => self.exit.as_ref(),
            _ => None,
        }
    }

    /// When something has to be done even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Ending { until, .. } | Phase::Deleting { until, .. } => Some(until),
            _ => None,
        }
    }
}

impl Phase {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Phase::Added => "not started",
            Phase::Making { .. } => "being created",
            Phase::Created => "created and not started",
            Phase::Starting(_) | Phase::StartingInHelper => "starting",
            Phase::Running => "running",
            Phase::Ending { .. } => "ending",
            Phase::Stopped => "stopped",
            Phase::Deleting { .. } => "being deleted",
        }
    }
}

/// The time of an exit as containerd has it.
pub(super) fn exited_at(exit: &Exit) -> Option<Timestamp> {
    Some(Timestamp::from_ns(exit.exited_at_ns))
}
