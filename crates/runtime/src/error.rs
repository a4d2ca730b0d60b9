//! What can go wrong, one enum per operation. A failure inside a step names the stage, the object, the cause and what to do.
//!
//! Callers of an OCI runtime look for some phrases in what it says: containerd's shim and CRI-O for `container not running` and `does not
//! exist`, Docker and Podman for `executable file not found`, `no such file or directory` and `permission denied`. Messages keep them as
//! they are (docs/runtimes.md has the list).

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::record::Status;

/// The part of an operation in which something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading and checking the configuration.
    Configuration,
    /// The state directory, its files and sockets.
    State,
    /// Control groups.
    Cgroup,
    /// Making and joining namespaces, id maps.
    Namespaces,
    /// Attaching the root file system.
    Rootfs,
    /// Mounts.
    Mounts,
    /// Device nodes and links in /dev.
    Devices,
    /// Masked and read-only paths.
    Paths,
    /// Kernel parameters.
    Sysctl,
    /// The terminal.
    Console,
    /// Hooks.
    Hooks,
    /// Users, groups and capabilities.
    Identity,
    /// Limits, scheduling and other attributes of the process.
    Process,
    /// AppArmor and SELinux labels.
    Labels,
    /// The seccomp filter.
    Seccomp,
    /// Executing the command.
    Command,
    /// Network devices.
    Network,
    /// The resctrl group.
    Rdt,
    /// CRIU, and what it reads and writes.
    Criu,
    /// The time that was given is over.
    Deadline,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Configuration => "configuration",
            Stage::State => "state",
            Stage::Cgroup => "cgroup",
            Stage::Namespaces => "namespaces",
            Stage::Rootfs => "root file system",
            Stage::Mounts => "mounts",
            Stage::Devices => "devices",
            Stage::Paths => "masked and read-only paths",
            Stage::Sysctl => "sysctl",
            Stage::Console => "console",
            Stage::Hooks => "hooks",
            Stage::Identity => "user and capabilities",
            Stage::Process => "process attributes",
            Stage::Labels => "security label",
            Stage::Seccomp => "seccomp",
            Stage::Command => "command",
            Stage::Network => "network devices",
            Stage::Rdt => "Intel RDT",
            Stage::Criu => "checkpoint",
            Stage::Deadline => "deadline",
        })
    }
}

/// A step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{stage}: {object}: {cause}{}", remedy.as_ref().map(|r| format!(" ({r})")).unwrap_or_default())]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// On what: a path, a name, a field of the specification.
    pub object: String,
    /// Why.
    pub cause: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
    /// The number of the system error behind it, if there is one.
    pub errno: Option<i32>,
}

impl Failure {
    pub(crate) fn new(stage: Stage, object: impl Into<String>, cause: impl ToString) -> Failure {
        Failure { stage, object: object.into(), cause: cause.to_string(), remedy: None, errno: None }
    }

    pub(crate) fn io(stage: Stage, object: impl Into<String>, error: &io::Error) -> Failure {
        Failure { errno: error.raw_os_error(), ..Failure::new(stage, object, error) }
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Failure {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Names the stage and the object of a system error.
pub(crate) trait At<T> {
    fn at<S: Into<String>>(self, stage: Stage, object: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at<S: Into<String>>(self, stage: Stage, object: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| Failure::io(stage, object(), &error.into()))
    }
}

/// Something that was asked for and could not be had in full, without being a reason to fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Where.
    pub stage: Stage,
    /// What was asked and what was done instead.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.stage, self.message)
    }
}

/// Why a container's record could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Lookup {
    /// The id could name something outside the state directory, or is too long.
    #[error("container id {id:?} is not valid: {why}")]
    BadId {
        /// As given.
        id: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// There is no such container.
    #[error("container does not exist: {id:?} is not in {}", state_root.display())]
    NotFound {
        /// As given.
        id: String,
        /// Where it was looked for.
        state_root: PathBuf,
    },
    /// There is a container, but its record cannot be read. Nothing of it was changed.
    #[error("the record of container {id:?} at {} cannot be read: {why}", path.display())]
    Unreadable {
        /// As given.
        id: String,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Why a container was not created. Whatever had been made was taken back.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The id is not valid.
    #[error(transparent)]
    Id(#[from] Lookup),
    /// A container of this id exists.
    #[error("container with given ID already exists: {id:?} in {}; delete it first", state_root.display())]
    Exists {
        /// Its id.
        id: String,
        /// The state directory.
        state_root: PathBuf,
    },
    /// A step failed.
    #[error("container {id:?} was not created: {failure}{}", leftovers(left))]
    Failed {
        /// Its id.
        id: String,
        /// The step.
        failure: Box<Failure>,
        /// What could not be taken back, if anything.
        left: Vec<String>,
    },
}

fn leftovers(left: &[String]) -> String {
    if left.is_empty() { String::new() } else { format!("; not taken back: {}", left.join("; ")) }
}

fn why_not_started(status: Status) -> &'static str {
    match status {
        Status::Stopped => "cannot start a container that has stopped",
        Status::Created | Status::Running | Status::Paused => "cannot start an already running container",
    }
}

/// Why a container was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No such container, or its record is bad.
    #[error(transparent)]
    Lookup(#[from] Lookup),
    /// It is not waiting to be started.
    #[error("{}: {id:?} is {status}", why_not_started(*status))]
    NotCreated {
        /// Its id.
        id: String,
        /// What it is.
        status: Status,
    },
    /// Its process failed to become the command; it has ended.
    #[error("container {id:?} did not start: {failure}")]
    Failed {
        /// Its id.
        id: String,
        /// The step.
        failure: Box<Failure>,
    },
}

/// Why a process was not executed in a container.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// No such container, or its record is bad.
    #[error(transparent)]
    Lookup(#[from] Lookup),
    /// It has no process to join.
    #[error("cannot exec in a {status} container: {id:?}")]
    NotRunning {
        /// Its id.
        id: String,
        /// What it is.
        status: Status,
    },
    /// A step failed; the new process has ended.
    #[error("nothing was executed in container {id:?}: {failure}")]
    Failed {
        /// Its id.
        id: String,
        /// The step.
        failure: Box<Failure>,
    },
}

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// No such container, or its record is bad.
    #[error(transparent)]
    Lookup(#[from] Lookup),
    /// It has ended.
    #[error("container not running: {id:?} has ended")]
    NotRunning {
        /// Its id.
        id: String,
    },
    /// The kernel refused.
    #[error("signal {signal} was not sent to container {id:?}: {cause}")]
    Failed {
        /// Its id.
        id: String,
        /// The number of the signal.
        signal: i32,
        /// Why.
        cause: String,
    },
}

/// Why a container was not saved. It goes on as it did before.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No such container, or its record is bad.
    #[error(transparent)]
    Lookup(#[from] Lookup),
    /// It has no processes that could be saved.
    #[error("container {id:?} is {status}; only a running container can be checkpointed")]
    NotRunning {
        /// Its id.
        id: String,
        /// What it is.
        status: Status,
    },
    /// A step failed.
    #[error("container {id:?} was not checkpointed: {failure}")]
    Failed {
        /// Its id.
        id: String,
        /// The step.
        failure: Box<Failure>,
    },
}

/// Why a container was not deleted. What was not removed is still owned by the record, and a later call goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// No such container, or its record is bad.
    #[error(transparent)]
    Lookup(#[from] Lookup),
    /// It still runs and force was not asked for.
    #[error("cannot delete container {id:?} that is not stopped: it is {status}; kill it first, or force")]
    Running {
        /// Its id.
        id: String,
        /// What it is.
        status: Status,
    },
    /// A step failed.
    #[error("container {id:?} was not deleted: {failure}")]
    Failed {
        /// Its id.
        id: String,
        /// The step.
        failure: Box<Failure>,
    },
}

/// Why resources were not changed, or processes not listed, paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// No such container, or its record is bad.
    #[error(transparent)]
    Lookup(#[from] Lookup),
    /// It has ended.
    #[error("container not running: {id:?} is stopped")]
    Stopped {
        /// Its id.
        id: String,
    },
    /// The cgroup refused.
    #[error("container {id:?}: {failure}")]
    Failed {
        /// Its id.
        id: String,
        /// The step.
        failure: Box<Failure>,
    },
}
