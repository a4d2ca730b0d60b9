//! seccomp(2): installs a filter program, with a user-notification listener where one is asked for.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// How many instructions to skip when the comparison holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// The `SECCOMP_FILTER_FLAG_*` that may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Apply to every thread of the process, not only to the caller.
    pub tsync: bool,
    /// Log every action but ALLOW, as `actions_logged` permits.
    pub log: bool,
    /// Leave the speculative store bypass mitigation off.
    pub spec_allow: bool,
    /// Return a listener for user notifications.
    pub new_listener: bool,
    /// A notifying process can only be killed, not interrupted, once the listener has received its notification.
    pub wait_killable: bool,
}

/// Installs `program` on the calling thread (seccomp(2), `SECCOMP_SET_MODE_FILTER`). It cannot be undone.
///
/// Returns the notification listener when `flags.new_listener` is set.
///
/// # Errors
/// `EACCES` without `no_new_privs` and `CAP_SYS_ADMIN`; `EINVAL` for a malformed program, an unknown flag or more than 4096
/// instructions; `EBUSY` if another listener exists; `ESRCH` if a thread could not be synchronised.
pub fn install(program: &[Instruction], flags: Flags) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a filter has at most 4096 instructions"))?;
    let mut bits: libc::c_ulong = 0;
    if flags.tsync {
        bits |= libc::SECCOMP_FILTER_FLAG_TSYNC;
    }
    if flags.log {
        bits |= libc::SECCOMP_FILTER_FLAG_LOG;
    }
    if flags.spec_allow {
        bits |= libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    }
    if flags.new_listener {
        bits |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        if flags.tsync {
            // Without this the kernel could not tell a failed thread's id from a listener.
            bits |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
        }
    }
    if flags.wait_killable {
        bits |= libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    }
    let fprog = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `fprog` points to `length` instructions with the layout of `sock_filter` (repr(C), same fields), which live until
    // the call returns; the kernel copies them and does not write to them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, bits, &raw const fprog) };
    match (result, flags.new_listener) {
        (..0, _) => Err(io::Error::last_os_error()),
        (fd, true) => {
            // SAFETY: with NEW_LISTENER (and TSYNC_ESRCH beside TSYNC) a result that is not an error is a descriptor just made
            // for this caller, which nobody else owns.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
        }
        (0, false) => Ok(None),
        // TSYNC without TSYNC_ESRCH answers with the id of the thread that has another filter.
        (_, false) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;

    fn errno_for(number: i64, errno: u32) -> [Instruction; 4] {
        [
            Instruction { code: LOAD, jt: 0, jf: 0, k: 0 },
            Instruction { code: JUMP_EQUAL, jt: 0, jf: 1, k: number as u32 },
            Instruction { code: RETURN, jt: 0, jf: 0, k: 0x0005_0000 | errno },
            Instruction { code: RETURN, jt: 0, jf: 0, k: 0x7fff_0000 },
        ]
    }

    /// Filters belong to a thread, so a thread of its own is enough to try one and take it away again.
    #[test]
    fn a_filter_holds_on_the_thread_that_installed_it() {
        std::thread::spawn(|| {
            let program = errno_for(libc::SYS_getppid, 73);
            if let Err(e) = install(&program, Flags::default()) {
                println!("SKIPPED: seccomp(2) is not permitted here: {e}");
                return;
            }
            // SAFETY: getppid takes no argument and touches no memory.
            let result = unsafe { libc::syscall(libc::SYS_getppid) };
            assert_eq!((result, io::Error::last_os_error().raw_os_error()), (-1, Some(73)));
        })
        .join()
        .unwrap();
        assert!(rustix::process::getppid().is_some(), "other threads are free of it");
    }

    #[test]
    fn a_listener_is_returned() {
        std::thread::spawn(|| {
            let flags = Flags { new_listener: true, log: true, spec_allow: true, ..Flags::default() };
            match install(&errno_for(libc::SYS_getppid, 1), flags) {
                Ok(listener) => {
                    let fd = listener.expect("NEW_LISTENER answers with a descriptor");
                    assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
                }
                Err(e) => println!("SKIPPED: a seccomp listener is not to be had here: {e}"),
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_program_that_does_not_return_is_refused() {
        let load = Instruction { code: LOAD, jt: 0, jf: 0, k: 0 };
        for program in [vec![], vec![load], vec![load; 70_000]] {
            let error = std::thread::spawn(move || install(&program, Flags::default())).join().unwrap();
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
