//! One run of a foreign program in a helper: with a deadline, and so that all it began can be ended.

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use sys::program::{Bound, End};

/// Of what a program says, so much is kept.
const KEPT: usize = 1 << 20;

/// Where programs look for programs that they run themselves.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long something that was killed may take to end.
const DYING: Duration = Duration::from_secs(5);

/// What a program reads and writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Streams<'a> {
    /// The streams of this process, which are a container's.
    Inherited,
    /// It reads this, and what it writes is kept.
    Kept(&'a [u8]),
}

/// A run that came to its end by itself.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Why there was no such end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("it cannot be executed: {0}")]
    Start(io::Error),
    #[error("it did not end within {} s and was killed", .0.as_secs())]
    Hung(Duration),
    #[error("it cannot be watched: {0}")]
    Watch(io::Error),
}

/// Runs `command` with nothing of the environment but a search path.
///
/// From now on whatever it leaves behind becomes a child of this process, and with this process's end one of the shim: so nothing that
/// begins here is reaped by the shim before this process has said what it is.
pub(super) fn run(
    command: &mut Command,
    streams: Streams<'_>,
    deadline: Duration,
) -> Result<Ended, RunError> {
    run_with(command, streams, deadline, &[])
}

/// The same with these variables too.
pub(super) fn run_with(
    command: &mut Command,
    streams: Streams<'_>,
    deadline: Duration,
    environment: &[(&str, &str)],
) -> Result<Ended, RunError> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|cause| RunError::Watch(cause.into()))?;
    command.env_clear().env("PATH", PATH).envs(environment.iter().copied()).process_group(0);
    if let Streams::Kept(input) = streams {
        let stdin = if input.is_empty() {
            Stdio::null()
        } else {
            sys::program::input("input", input).map_err(RunError::Watch)?.into()
        };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let child = command.spawn().map_err(RunError::Start)?;
    let finished = sys::program::finish_and_leave(child, deadline, Bound::Tail(KEPT), Bound::Tail(KEPT))
        .map_err(RunError::Watch)?;
    match finished.end {
        End::Exited(status) => Ok(Ended { status, stdout: finished.stdout, stderr: finished.stderr }),
        End::TimedOut | End::TooMuchOutput => Err(RunError::Hung(deadline)),
    }
}

/// Ends everything that was begun here and has not ended: half a container, a program that hides in the background. This process must have
/// none but what a failure left.
pub(super) fn end_all_children() {
    let until = Instant::now() + DYING;
    loop {
        let children = children();
        if children.is_empty() || Instant::now() >= until {
            return;
        }
        for pid in children {
            let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let left = until.saturating_duration_since(Instant::now());
            if sys::process::wait_for_end(pidfd.as_fd(), u64::try_from(left.as_millis()).unwrap_or(0)) {
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// The children of this process, which has one thread.
fn children() -> Vec<Pid> {
    let own = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Whether a process was left to this one.
pub(super) fn is_child(pid: i32) -> bool {
    children().iter().any(|child| child.as_raw_nonzero().get() == pid)
}
