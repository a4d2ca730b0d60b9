//! Kill: sends a signal to init, or to all processes of the container.

use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::error::KillError;
use crate::record::{Folder, Record};

/// Sends `signal` (a number; 0 only asks whether init is alive) to init, or to all processes of the container if `all`. SIGKILL also reaches the others where init's end
/// would not end them, since the container shares its pid namespace.
///
/// # Errors
/// The container has ended, or the kernel refused.
pub fn kill(state_root: &Path, id: &str, signal: i32, all: bool) -> Result<(), KillError> {
    let folder = Folder::open(state_root, id)?;
    let record = folder.read()?;
    let failed = |cause: String| KillError::Failed { id: id.into(), signal, cause };
    let init = record.init().map_err(|error| failed(error.to_string()))?;
    if signal == 0 {
        return init.map(drop).ok_or_else(|| KillError::NotRunning { id: id.into() });
    }
    let is_kill = signal == Signal::KILL.as_raw();
    if all || (is_kill && !record.own_pid_namespace) {
        let sent = crate::cgroups::signal_all(&record, signal).map_err(|error| failed(error.to_string()))?;
        if sent == 0 && init.is_none() {
            return Err(KillError::NotRunning { id: id.into() });
        }
        if sent > 0 {
            return Ok(());
        }
    }
    let Some(init) = init else { return Err(KillError::NotRunning { id: id.into() }) };
    let number = named(signal).ok_or_else(|| failed("no such signal".into()))?;
    match pidfd_send_signal(&init, number) {
        // It ended, and its parent has seen that, since its pidfd was opened.
        Err(Errno::SRCH) => return Err(KillError::NotRunning { id: id.into() }),
        sent => sent.map_err(|error| failed(error.to_string()))?,
    }
    if is_kill && crate::cgroups::is_frozen(&record) {
        // On cgroup v1 a frozen process does not die before it is thawed.
        crate::cgroups::thaw(&record).map_err(|error| failed(error.to_string()))?;
    }
    Ok(())
}

/// The signal of this number, also a real-time one.
pub(crate) fn named(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number)
        .or_else(|| (34..=64).contains(&number).then(|| sys::signal::real_time(number)).flatten())
}

/// Kills whatever of the container is alive and waits, at most `millis`, until init has ended. Whether it has.
pub(crate) fn kill_and_wait(record: &Record, millis: u64) -> std::io::Result<bool> {
    let init = record.init()?;
    if let Some(init) = &init {
        let _ = pidfd_send_signal(init, Signal::KILL);
    }
    crate::cgroups::signal_all(record, Signal::KILL.as_raw())?;
    let _ = crate::cgroups::thaw(record);
    let Some(init) = init else { return Ok(true) };
    Ok(sys::process::wait_for_end(std::os::fd::AsFd::as_fd(&init), millis))
}
