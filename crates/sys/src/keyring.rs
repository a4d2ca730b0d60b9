//! Session keyrings (session-keyring(7)): where a process and its children keep keys apart from everybody else's.

use std::ffi::CStr;
use std::io;

const JOIN_SESSION_KEYRING: libc::c_int = 1;
const SET_PERMISSIONS: libc::c_int = 5;
const SESSION_KEYRING: libc::c_int = -3;
/// All to who possesses it; to processes of the same user view, read, search and link, without which none could join it by its name.
const PERMISSIONS: u32 = 0x3f1b_0000;

/// Joins the session keyring of this name, made anew if this user may join none of that name (keyctl(2)).
///
/// # Errors
/// `ENOSYS` where the kernel has no keyrings; `EDQUOT` if the user has too many keys.
pub fn join(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a string with a NUL byte at its end that outlives the call; the kernel only reads it.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, SET_PERMISSIONS, SESSION_KEYRING, PERMISSIONS) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
