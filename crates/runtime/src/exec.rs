//! Exec: runs another process in a container.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Process;

use crate::console::Console;
use crate::error::{ExecError, Failure, Stage, Warning};

/// What to execute.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The directory of containers' states.
    pub state_root: &'a Path,
    /// The container's id.
    pub id: &'a str,
    /// The process; its capabilities, limits and labels are its own, the seccomp filter is the container's.
    pub process: Process,
    /// Where the terminal goes if `process.terminal` is set.
    pub console: Option<Console>,
    /// A file to write the pid to.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors from 3 on the process inherits.
    pub preserve_fds: u32,
}

/// A process that runs.
#[derive(Debug)]
pub struct Executed {
    /// Its pid in the caller's pid namespace. It is the caller's child.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// What was asked for and could not be had in full.
    pub warnings: Vec<Warning>,
}

/// Executes a process in a container, with the caller's standard streams, and returns when it runs (execve succeeded). The caller must
/// have one thread; see the crate's documentation.
///
/// # Errors
/// The first step that failed; the new process has ended then.
pub fn exec(request: ExecRequest<'_>) -> Result<Executed, ExecError> {
    let failure = Box::new(Failure::new(Stage::Configuration, "exec", "is not finished in this version"));
    Err(ExecError::Failed { id: request.id.into(), failure })
}
