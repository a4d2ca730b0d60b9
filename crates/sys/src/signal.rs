//! The signal state that a container process must start with, and signals read from a descriptor.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// Gives every signal its default action and blocks none: what an exec'd program may expect. Ignored signals would stay ignored over
/// the exec otherwise, and Rust's own start-up ignores SIGPIPE.
pub fn reset_all() -> io::Result<()> {
    for number in 1..=64 {
        // The kernel is asked directly: the C library refuses the numbers it keeps to itself, and glibc's posix_spawn leaves those ignored.
        // SAFETY: all zeros is a kernel sigaction with SIG_DFL, no flags and no mask, of at most 32 bytes; the mask has 8 bytes. For
        // SIGKILL and SIGSTOP the call fails and changes nothing.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, [0_u64; 4].as_ptr(), std::ptr::null::<u8>(), 8)
        };
    }
    // SAFETY: an all-zero sigset_t is initialised by sigemptyset before use and outlives both calls.
    let done = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Signals that arrive as data instead of interrupting: those that a program passes on to another.
#[derive(Debug)]
pub struct Arrivals(OwnedFd);

impl AsFd for Arrivals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Arrivals {
    /// Blocks all signals that can be blocked but those that tell of a fault in this program itself and those by which a terminal stops
    /// it, and gives a descriptor that is readable when one has come (signalfd(2)). The mask is inherited: a child has to call
    /// [`reset_all`].
    pub fn watch() -> io::Result<Arrivals> {
        // SAFETY: the set is initialised by sigfillset before any other use and outlives the calls that read it.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut set);
            for kept in [
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGABRT,
                libc::SIGSYS,
                libc::SIGTSTP,
                libc::SIGTTIN,
                libc::SIGTTOU,
                libc::SIGPIPE,
            ] {
                libc::sigdelset(&raw mut set, kept);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel returned a new descriptor that nobody else owns.
        Ok(Arrivals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The number of the next signal that has come; `None` if there is none.
    pub fn take(&self) -> Option<i32> {
        let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::read(&self.0, &mut record).ok()?;
        // The number is the first field of the record.
        let number = record.first_chunk().filter(|_| read == record.len())?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

/// The real-time signal of this number (34 to 64); `None` for others.
pub fn real_time(number: i32) -> Option<rustix::process::Signal> {
    // SAFETY: the numbers below 34 are left out, where the C library keeps signals to itself.
    (34..=64).contains(&number).then(|| unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
