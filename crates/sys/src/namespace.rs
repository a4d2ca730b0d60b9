//! Namespaces: unshare, and setns by descriptor for a single-threaded process.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::thread::ThreadNameSpaceType;

/// The `CLONE_NEW*` bits of clone(2), setns(2) and unshare(2).
pub mod kind {
    /// Time.
    pub const TIME: u64 = 0x80;
    /// Mounts.
    pub const MOUNT: u64 = 0x0002_0000;
    /// Control groups.
    pub const CGROUP: u64 = 0x0200_0000;
    /// Host name.
    pub const UTS: u64 = 0x0400_0000;
    /// System V IPC and message queues.
    pub const IPC: u64 = 0x0800_0000;
    /// User ids.
    pub const USER: u64 = 0x1000_0000;
    /// Process ids.
    pub const PID: u64 = 0x2000_0000;
    /// Network.
    pub const NETWORK: u64 = 0x4000_0000;
}

/// setns(2): joins the namespace that `namespace` is open on, if it is one of `kinds`, or with a pidfd all `kinds` of that process.
pub fn join(namespace: BorrowedFd<'_>, kinds: u64) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(
        namespace,
        ThreadNameSpaceType::from_bits_retain(kinds as u32),
    )?)
}

/// unshare(2) of namespaces; `kinds` are bits of [`kind`] only.
///
/// # Errors
/// `InvalidInput` for other bits; the kernel's.
pub fn leave(kinds: u64) -> io::Result<()> {
    use kind::{CGROUP, IPC, MOUNT, NETWORK, PID, TIME, USER, UTS};
    if kinds & !(TIME | MOUNT | CGROUP | UTS | IPC | USER | PID | NETWORK) != 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: unshare is memory-unsafe only with CLONE_FILES, which would split the table of descriptors; the check above excludes it.
    let done = unsafe { libc::unshare(kinds as libc::c_int) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
