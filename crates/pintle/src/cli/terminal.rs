//! The user's terminal while a program elsewhere has it: raw, and as it was again afterwards, however this process ends.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How the terminal was before it was made raw, for whoever ends the process without unwinding.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal of standard input gives every key as it is, until this is dropped.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Makes it raw; nothing if standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Raw>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let first = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).replace(before).is_none();
        if first {
            // A panic that aborts drops nothing.
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                usual(panic);
            }));
        }
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Raw(())))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, before);
    }
}

/// Columns and rows of the user's terminal, if there is one.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdin()).or_else(|_| tcgetwinsize(io::stdout())).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Standard input, read without a thread that would keep the process from ending, and without making it non-blocking, which the shell
/// would have to live with.
pub(crate) struct Input {
    /// None for a file, which is always ready.
    ready: Option<AsyncFd<io::Stdin>>,
}

impl Input {
    #[expect(
        deprecated,
        reason = "what it is about cannot happen to standard input, and its successor is unsafe"
    )]
    pub(crate) fn new() -> Input {
        Input { ready: AsyncFd::try_with_interest(io::stdin(), Interest::READABLE).ok() }
    }

    /// Some of what there is; 0 at the end.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(ready) = &self.ready {
                let mut guard = ready.readable().await?;
                if !is_readable()? {
                    guard.clear_ready();
                    continue;
                }
            }
            match rustix::io::read(io::stdin().as_fd(), &mut *buffer) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                // The other side of the terminal is gone.
                Err(rustix::io::Errno::IO) => return Ok(0),
                other => return Ok(other?),
            }
        }
    }
}

fn is_readable() -> io::Result<bool> {
    let stdin = io::stdin();
    let mut set = [PollFd::new(&stdin, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut set, Some(&now))? > 0)
}
