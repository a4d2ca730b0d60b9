//! Pseudo-terminals: opening a pair inside a devpts mount by descriptor, and becoming its session's leader.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::pty::OpenptFlags;

/// The two ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Pair {
    /// What the user's side holds.
    pub master: OwnedFd,
    /// What the program has as its standard input and output.
    pub peer: OwnedFd,
}

/// Opens a new pair in the devpts file system whose root directory is `devpts`. The peer comes from the master itself (`TIOCGPTPEER`,
/// ioctl_tty(2)), never from a name in a directory that somebody else can change.
///
/// # Errors
/// `InvalidInput` if `devpts` is not a devpts; the kernel's.
pub fn open_pair(devpts: BorrowedFd<'_>) -> io::Result<Pair> {
    const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;
    if rustix::fs::fstatfs(devpts)?.f_type as u64 != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a devpts file system"));
    }
    let master = rustix::fs::openat2(
        devpts,
        "ptmx",
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH,
    )?;
    rustix::pty::unlockpt(&master)?;
    let peer = rustix::pty::ioctl_tiocgptpeer(
        &master,
        OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
    )?;
    Ok(Pair { master, peer })
}

/// Sets the window size in characters.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes `terminal` the controlling terminal of this process, which must lead a session (setsid(2)).
pub fn make_controlling(terminal: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}
