//! Namespaces: unshare, setns by descriptor, and short-lived threads that live in another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

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

/// What a thread that only opens a socket or reads a file needs; the default of 2 MiB costs page tables.
const STACK_BYTES: usize = 128 * 1024;

/// Runs `work` on a new thread inside the network namespace `namespace` and returns what it returned. The thread ends with the call,
/// so no thread that other work runs on is ever in a foreign namespace (setns(2)).
///
/// # Errors
/// The thread could not be started, or the kernel refused the namespace (not a network namespace, no `CAP_SYS_ADMIN`).
pub fn in_network<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_own_thread(|| {
        enter_network(namespace)?;
        work()
    })
}

/// Moves the calling thread, and no other, into the network namespace `namespace` for the rest of its life.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    join(namespace, kind::NETWORK)
}

/// Makes a network namespace that lives as long as a descriptor of it, a bind mount or a process in it does.
pub fn new_network() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        leave(kind::NETWORK)?;
        current_network()
    })
}

/// Opens the network namespace of the calling thread.
pub fn current_network() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn interfaces() -> io::Result<String> {
        std::fs::read_to_string("/proc/thread-self/net/dev")
    }

    #[test]
    fn work_runs_in_the_other_namespace_and_the_caller_stays() {
        let before = interfaces().unwrap();
        let Ok(namespace) = new_network() else {
            println!("SKIPPED: no permission to make a network namespace");
            return;
        };
        let inside = in_network(namespace.as_fd(), interfaces).unwrap();
        assert_eq!(inside.lines().filter(|l| l.contains(':')).count(), 1, "{inside}");
        assert_eq!(before.lines().count(), interfaces().unwrap().lines().count());
        let file = File::open("/proc/self/ns/uts").unwrap();
        assert!(in_network(file.as_fd(), || Ok(())).is_err());
    }
}
