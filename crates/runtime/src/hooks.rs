//! Runs hooks: programs of the host's administrator which get the container's state on standard input.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;

use crate::error::{Failure, Stage};

const KEPT_STDERR: u64 = 4096;

/// Runs `hooks` in order, each to its end or its timeout, with the environment that it names and no other.
///
/// # Errors
/// The first hook that cannot be executed, does not end with 0, or is killed for its timeout; with the end of what it wrote.
pub(crate) fn run(hooks: &[Hook], kind: &str, state: &serde_json::Value) -> Result<(), Failure> {
    run_in(hooks, kind, state, &[])
}

/// The same, where a hook that names no environment gets `environment`.
///
/// # Errors
/// Those of [`run`].
pub(crate) fn run_in(
    hooks: &[Hook],
    kind: &str,
    state: &serde_json::Value,
    environment: &[String],
) -> Result<(), Failure> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = state.to_string();
    hooks.iter().try_for_each(|hook| run_one(hook, kind, state.as_bytes(), environment))
}

fn run_one(hook: &Hook, kind: &str, state: &[u8], environment: &[String]) -> Result<(), Failure> {
    let name = format!("{kind} hook {}", hook.path().display());
    let fail = |cause: String| Failure::new(Stage::Hooks, name.clone(), cause);
    let mut command = Command::new(hook.path());
    if let Some((first, rest)) = hook.args().as_ref().and_then(|args| args.split_first()) {
        command.arg0(first).args(rest);
    }
    command.env_clear();
    for pair in hook.env().as_deref().unwrap_or(environment) {
        if let Some((key, value)) = pair.split_once('=') {
            command.env(key, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| fail(format!("cannot be executed: {error}")))?;
    let process = rustix::process::Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
        .map_err(|error| fail(error.to_string()))?;
    // A state is smaller than a pipe's buffer; a hook that does not read it must not stop us either way.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = rustix::io::ioctl_fionbio(&stdin, true);
        let _ = stdin.write_all(state);
    }
    let deadline = hook
        .timeout()
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    let ended = wait(&pidfd, deadline);
    if !ended {
        let _ = rustix::process::kill_process_group(process, rustix::process::Signal::KILL);
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| fail(error.to_string()))?;
    if !ended {
        return Err(fail(format!("was killed after its timeout of {} s", hook.timeout().unwrap_or(0))));
    }
    if status.success() { Ok(()) } else { Err(fail(format!("ended with {status}{}", said(&mut child)))) }
}

fn wait(pidfd: &OwnedFd, deadline: Option<Instant>) -> bool {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return sys::process::has_ended(pidfd.as_fd());
        }
        let millis =
            left.map_or(60_000, |left| u64::try_from(left.as_millis()).unwrap_or(60_000).clamp(1, 60_000));
        if sys::process::wait_for_end(pidfd.as_fd(), millis) {
            return true;
        }
    }
}

/// What the hook wrote to its standard error, without waiting for grandchildren that still hold it.
fn said(child: &mut std::process::Child) -> String {
    let Some(stderr) = child.stderr.take() else { return String::new() };
    let _ = rustix::io::ioctl_fionbio(&stderr, true);
    let mut text = Vec::new();
    let _ = stderr.take(KEPT_STDERR).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
}
