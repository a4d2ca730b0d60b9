//! Where the master end of a container's terminal is sent.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::error::{At, Failure, Stage};

/// A unix stream socket that receives the terminal's master end: one message with the name of the terminal and one descriptor.
#[derive(Debug)]
pub enum Console {
    /// The path of a listening socket.
    SocketPath(PathBuf),
    /// A connected socket.
    Socket(OwnedFd),
}

impl Console {
    /// The connected socket.
    pub(crate) fn connect(self) -> Result<OwnedFd, Failure> {
        match self {
            Console::Socket(socket) => Ok(socket),
            Console::SocketPath(path) => sys::socket::connect(&path)
                .at(Stage::Console, || format!("console socket {}", path.display())),
        }
    }
}

/// Opens a terminal in `devpts`, makes it the controlling terminal and standard streams of this process, which must lead a session,
/// and sends its master end over `socket`. Returns the peer.
pub(crate) fn open(
    devpts: BorrowedFd<'_>,
    size: Option<(u16, u16)>,
    owner: u32,
    socket: BorrowedFd<'_>,
) -> Result<OwnedFd, Failure> {
    let pair = sys::terminal::open_pair(devpts).at(Stage::Console, || "a terminal in /dev/pts")?;
    if let Some((rows, columns)) = size {
        sys::terminal::set_size(pair.peer.as_fd(), rows, columns).at(Stage::Console, || "window size")?;
    }
    if owner != 0 {
        // The command opens /dev/tty or its own descriptor's path as its user.
        rustix::fs::fchown(&pair.peer, Some(rustix::fs::Uid::from_raw(owner)), None)
            .at(Stage::Console, || format!("owner {owner} of the terminal"))?;
    }
    sys::socket::send(socket, b"/dev/pts/ptmx", &[pair.master.as_fd()])
        .at(Stage::Console, || "sending the terminal over the console socket")?;
    sys::terminal::make_controlling(pair.peer.as_fd()).at(Stage::Console, || "controlling terminal")?;
    rustix::stdio::dup2_stdin(&pair.peer).at(Stage::Console, || "standard input")?;
    rustix::stdio::dup2_stdout(&pair.peer).at(Stage::Console, || "standard output")?;
    rustix::stdio::dup2_stderr(&pair.peer).at(Stage::Console, || "standard error")?;
    Ok(pair.peer)
}
