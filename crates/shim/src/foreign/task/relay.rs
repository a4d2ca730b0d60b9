//! One direction of a stream: bytes are read at one end and written at the other, and nobody is waited for.

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What is held at most: as much as a pipe usually does.
const HELD: usize = 64 << 10;

/// Two descriptors, and what was read of the first and not taken by the second.
#[derive(Debug)]
pub(super) struct Relay {
    from: OwnedFd,
    to: OwnedFd,
    held: Vec<u8>,
    /// So much of it was written.
    written: usize,
    /// Nobody reads at the other end any more: what comes is passed over, so that its writer need not wait for ever.
    deaf: bool,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Moved,
    /// Nothing can be moved now.
    Still,
    /// Nothing comes any more, and all that came was passed on.
    Ended,
    /// Nobody reads at the other end any more. Told once.
    Unread,
}

impl Relay {
    /// From now on neither of the two waits.
    pub(super) fn new(from: OwnedFd, to: OwnedFd) -> io::Result<Relay> {
        for fd in [&from, &to] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Relay { from, to, held: Vec::new(), written: 0, deaf: false })
    }

    /// Whether something was read and not yet written.
    pub(super) fn holds(&self) -> bool {
        self.written < self.held.len()
    }

    /// What it waits for.
    pub(super) fn waits_for(&self) -> PollFd<'_> {
        if self.holds() {
            PollFd::from_borrowed_fd(self.to.as_fd(), PollFlags::OUT)
        } else {
            PollFd::from_borrowed_fd(self.from.as_fd(), PollFlags::IN)
        }
    }

    /// Reads or writes once.
    pub(super) fn turn(&mut self) -> Turn {
        if self.holds() { self.write() } else { self.read() }
    }

    fn read(&mut self) -> Turn {
        self.held.resize(HELD, 0);
        let read = rustix::io::read(&self.from, &mut self.held[..]);
        self.held.truncate(*read.as_ref().unwrap_or(&0));
        self.written = if self.deaf { self.held.len() } else { 0 };
        match read {
            Ok(1..) => Turn::Moved,
            Err(Errno::AGAIN | Errno::INTR) => Turn::Still,
            // A terminal that nobody has open any more says EIO.
            Ok(0) | Err(_) => Turn::Ended,
        }
    }

    fn write(&mut self) -> Turn {
        match rustix::io::write(&self.to, &self.held[self.written..]) {
            Ok(written) => {
                self.written += written;
                Turn::Moved
            }
            Err(Errno::AGAIN | Errno::INTR) => Turn::Still,
            Err(_) => {
                self.deaf = true;
                self.written = self.held.len();
                Turn::Unread
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe_with(PipeFlags::CLOEXEC).unwrap()
    }

    #[test]
    fn everything_arrives_in_order_however_slowly_it_is_taken() {
        let ((from, writer), (reader, to)) = (pipe(), pipe());
        let mut relay = Relay::new(from, to).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let all: Vec<u8> = (0..1_000_000_u32).map(|number| (number / 7) as u8).collect();
        let (mut given, mut taken, mut writer) = (0, Vec::new(), Some(writer));
        loop {
            if let Some(open) = &writer {
                given += rustix::io::write(open, &all[given..]).unwrap_or(0);
                if given == all.len() {
                    writer = None;
                }
            }
            let turn = relay.turn();
            let mut buffer = [0; 5000];
            if let Ok(length) = rustix::io::read(&reader, &mut buffer) {
                taken.extend_from_slice(&buffer[..length]);
            }
            if turn == Turn::Ended {
                break;
            }
        }
        drop(relay);
        let mut buffer = [0; 5000];
        while let Ok(length @ 1..) = rustix::io::read(&reader, &mut buffer) {
            taken.extend_from_slice(&buffer[..length]);
        }
        assert!(taken == all);
    }

    #[test]
    fn a_reader_that_leaves_is_told_once_and_the_writer_goes_on() {
        let ((from, writer), (reader, to)) = (pipe(), pipe());
        let mut relay = Relay::new(from, to).unwrap();
        drop(reader);
        assert_eq!(relay.turn(), Turn::Still);
        rustix::io::write(&writer, b"one").unwrap();
        assert_eq!((relay.turn(), relay.turn()), (Turn::Moved, Turn::Unread));
        rustix::io::write(&writer, b"two").unwrap();
        assert_eq!((relay.turn(), relay.turn()), (Turn::Moved, Turn::Still));
        drop(writer);
        assert_eq!(relay.turn(), Turn::Ended);
    }
}
