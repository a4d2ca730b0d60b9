//! The signal state that a container process must start with.

use std::io;

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

/// The real-time signal of this number (34 to 64); `None` for others.
pub fn real_time(number: i32) -> Option<rustix::process::Signal> {
    // SAFETY: the numbers below 34 are left out, where the C library keeps signals to itself.
    (34..=64).contains(&number).then(|| unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}
