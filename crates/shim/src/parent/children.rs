//! Ends of children, and of what those leave.

use super::now_ns;
use crate::protocol::Exit;
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus};
use std::os::fd::BorrowedFd;

/// Everybody who has ended, after SIGCHLD has made `children` readable.
pub(crate) fn ended(children: BorrowedFd<'_>) -> impl Iterator<Item = (i32, WaitStatus)> + use<> {
    let mut note = [0; 256];
    let _ = rustix::io::read(children, &mut note);
    std::iter::from_fn(|| {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => return Some((pid.as_raw_nonzero().get(), status)),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    })
}

/// A helper that was killed leaves children: a half-made init, a hook. They became ours, and unlike what a container orphans they are in
/// no container's cgroup but in our own.
pub(crate) fn kill_strays(is_known: impl Fn(i32) -> bool) {
    let own = std::fs::read("/proc/self/cgroup").unwrap_or_default();
    let pid = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let unknown = |pid: &i32| !is_known(*pid);
    for pid in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).filter(unknown) {
        let is_stray = std::fs::read(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroup| cgroup == own);
        if let Some(pid) = rustix::process::Pid::from_raw(pid).filter(|_| is_stray) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The exit that a status is; 128 + signal is the code a shell would give.
pub(crate) fn exit_of(pid: i32, status: WaitStatus) -> Exit {
    let signal = status.terminating_signal().unwrap_or(0).cast_unsigned();
    let code = status.exit_status().map_or(128 + signal, i32::cast_unsigned);
    Exit { code, signal, pid: pid.cast_unsigned(), exited_at_ns: now_ns(), ..Exit::default() }
}
