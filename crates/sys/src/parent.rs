//! For a process that parents others: a descriptor that tells of their ends, and forks that hold none of its other descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Blocks SIGCHLD, and with it the signals by which a terminal or an operator would end this process (SIGHUP, SIGINT, SIGTERM), and
/// gives a descriptor that is readable after a child has changed (signalfd(2)); reading from it takes that note away. It does not
/// block and closes on exec. The mask is inherited: a child has to call [`crate::signal::reset_all`].
pub fn child_events() -> io::Result<OwnedFd> {
    // SAFETY: the sets are initialised by sigemptyset before any other use and outlive the calls that read them.
    let fd = unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        let mut watched = blocked;
        libc::sigaddset(&raw mut watched, libc::SIGCHLD);
        for signal in [libc::SIGCHLD, libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
            libc::sigaddset(&raw mut blocked, signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const blocked, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signalfd(-1, &raw const watched, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Closes every descriptor from 3 on except those of `keep`.
///
/// It is for a process that uses none of the others again: a fork that ends with [`crate::process::exit_now`], or one that was just
/// executed and has opened nothing yet. Elsewhere the owners of the closed descriptors would later close whatever has their numbers.
pub fn close_all_except(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_from_except(3, keep)
}

/// As [`close_all_except`], from the descriptor `first` on.
pub fn close_from_except(mut first: u32, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    numbers.retain(|number| *number >= first);
    numbers.sort_unstable();
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, u32::MAX)
}

/// A copy, closed on exec, of the descriptor `number`, which the maker of this process left open. The original stays until
/// [`close_all_except`] closes it.
///
/// # Errors
/// `EBADF` if it is not open.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC on a number makes a new descriptor of whatever is open there and changes nothing else.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: plain numbers. That no owner of one of them goes on using it is what `close_all_except` demands of its caller.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
