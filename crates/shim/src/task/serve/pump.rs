//! Moves the output of a process to where containerd wants it. Between pipes the bytes are spliced and never held here; when nobody reads,
//! the process waits in its own pipe, and the server does not.

use crate::messages::warning;
use crate::parent::poller::{Poller, READ, Token, WRITE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What one splice moves at most: as much as a pipe usually holds.
const SPLICED: usize = 64 << 10;

/// Where output goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// A fifo or a pipe. While `reader` is open, a fifo that nobody else reads fills up and does not break: containerd may be restarting.
    Pipe {
        writer: OwnedFd,
        reader: Option<OwnedFd>,
    },
    File(OwnedFd),
    Nowhere,
}

/// One output of a process.
#[derive(Debug)]
pub(super) struct Pump {
    source: OwnedFd,
    sink: Sink,
    token: (u32, u8),
    /// The sink takes no more: that it does again is waited for, and the source is not read from.
    full: bool,
}

/// What became of moving bytes once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    Some,
    /// There is nothing now.
    Empty,
    /// The sink is full.
    Full,
    Ended,
}

impl Pump {
    /// Starts to wait for output number `index` of the process `serial`.
    pub(super) fn open(
        source: OwnedFd,
        sink: Sink,
        token: (u32, u8),
        poller: &Poller,
    ) -> rustix::io::Result<Pump> {
        rustix::io::ioctl_fionbio(&source, true)?;
        poller.add(&source, Token::Output(token.0, token.1), READ)?;
        Ok(Pump { source, sink, token, full: false })
    }

    /// The source has something, or has ended.
    pub(super) fn readable(&mut self, buffer: &mut [u8], poller: &Poller) -> Moved {
        let moved = self.move_once(buffer);
        if moved == Moved::Full {
            self.wait_for_sink(poller);
        }
        moved
    }

    /// The sink has room again, or nobody reads from it any more, as the next move will say.
    pub(super) fn writable(&mut self, poller: &Poller) {
        let Sink::Pipe { writer, .. } = &self.sink else {
            return;
        };
        if self.full {
            poller.remove(writer);
            self.full = false;
            let _ = poller.add(&self.source, Token::Output(self.token.0, self.token.1), READ);
        }
    }

    /// Moves what there is, up to a bound: somebody who is alive may write faster than this moves.
    pub(super) fn drain(&mut self, buffer: &mut [u8], poller: &Poller) -> Moved {
        const ROUNDS: usize = 128;
        if self.full {
            return Moved::Full;
        }
        for _ in 0..ROUNDS {
            match self.readable(buffer, poller) {
                Moved::Some => {}
                other => return other,
            }
        }
        Moved::Some
    }

    /// A fifo that nobody else reads breaks from now on, so that nothing waits for it.
    pub(super) fn let_break(&mut self) {
        if let Sink::Pipe { reader, .. } = &mut self.sink {
            *reader = None;
        }
    }

    pub(super) fn source(&self) -> &OwnedFd {
        &self.source
    }

    pub(super) fn close(self, poller: &Poller) {
        match &self.sink {
            Sink::Pipe { writer, .. } if self.full => poller.remove(writer),
            _ => poller.remove(&self.source),
        }
    }

    fn wait_for_sink(&mut self, poller: &Poller) {
        let Sink::Pipe { writer, .. } = &self.sink else {
            return;
        };
        poller.remove(&self.source);
        if poller.add(writer, Token::Sink(self.token.0, self.token.1), WRITE).is_ok() {
            self.full = true;
        } else {
            let _ = poller.add(&self.source, Token::Output(self.token.0, self.token.1), READ);
        }
    }

    fn move_once(&mut self, buffer: &mut [u8]) -> Moved {
        match &self.sink {
            Sink::Pipe { writer, .. } => {
                match rustix::pipe::splice(&self.source, None, writer, None, SPLICED, SpliceFlags::NONBLOCK) {
                    Ok(0) => Moved::Ended,
                    Ok(_) | Err(Errno::INTR) => Moved::Some,
                    Err(Errno::AGAIN) if has_something(self.source.as_fd()) => Moved::Full,
                    Err(Errno::AGAIN) => Moved::Empty,
                    // A terminal says so when nobody has its other end.
                    Err(Errno::IO) => Moved::Ended,
                    Err(cause) => self.give_up(cause),
                }
            }
            Sink::File(file) => match rustix::io::read(&self.source, &mut *buffer) {
                Ok(length) if length > 0 => match write_all(file.as_fd(), &buffer[..length]) {
                    Ok(()) => Moved::Some,
                    Err(cause) => self.give_up(cause),
                },
                other => no_bytes(other.map(drop)),
            },
            Sink::Nowhere => match rustix::io::read(&self.source, &mut *buffer) {
                Ok(length) if length > 0 => Moved::Some,
                other => no_bytes(other.map(drop)),
            },
        }
    }

    /// From now on the output is thrown away: the process must not wait for, or end by, what is not its fault.
    fn give_up(&mut self, cause: Errno) -> Moved {
        if cause != Errno::PIPE {
            warning!("the output of a process is thrown away from now on: {cause}");
        }
        self.sink = Sink::Nowhere;
        Moved::Some
    }
}

fn no_bytes(read: rustix::io::Result<()>) -> Moved {
    match read {
        Err(Errno::AGAIN) => Moved::Empty,
        Err(Errno::INTR) => Moved::Some,
        Ok(()) | Err(_) => Moved::Ended,
    }
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

fn has_something(source: BorrowedFd<'_>) -> bool {
    let mut set = [PollFd::from_borrowed_fd(source, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut set, Some(&now)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    struct Setup {
        poller: Poller,
        pump: Pump,
        process: OwnedFd,
        reader: OwnedFd,
    }

    fn setup() -> Setup {
        let poller = Poller::new().unwrap();
        let (source, process) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        let keeper = rustix::io::fcntl_dupfd_cloexec(&reader, 3).unwrap();
        let sink = Sink::Pipe { writer, reader: Some(keeper) };
        let pump = Pump::open(source, sink, (7, 1), &poller).unwrap();
        Setup { poller, pump, process, reader }
    }

    fn events(poller: &Poller) -> Vec<Token> {
        poller.wait(Some(std::time::Duration::ZERO)).unwrap().collect()
    }

    #[test]
    fn a_full_sink_is_waited_for_and_nothing_is_lost() {
        let Setup { poller, mut pump, process, reader } = setup();
        let mut buffer = [0; 4096];
        write_all(process.as_fd(), &[b'x'; 10_000]).unwrap();
        drop(process);
        let mut got = 0;
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds < 1000, "it goes round and round");
            match &events(&poller)[..] {
                [Token::Output(7, 1)] => {
                    if pump.readable(&mut buffer, &poller) == Moved::Ended {
                        break;
                    }
                }
                [Token::Sink(7, 1)] => pump.writable(&poller),
                [] => got += rustix::io::read(&reader, &mut buffer).unwrap(),
                other => panic!("{other:?}"),
            }
        }
        while let Ok(length @ 1..) = rustix::io::read(&reader, &mut buffer) {
            got += length;
        }
        assert_eq!(got, 10_000);
        pump.close(&poller);
    }

    #[test]
    fn without_a_reader_it_waits_until_it_may_break_and_then_throws_away() {
        let Setup { poller, mut pump, process, reader } = setup();
        let mut buffer = [0; 4096];
        drop(reader);
        write_all(process.as_fd(), &[b'x'; 10_000]).unwrap();
        assert_eq!(pump.drain(&mut buffer, &poller), Moved::Full);
        assert_eq!(events(&poller), [], "the reader may come back");
        pump.let_break();
        assert_eq!(events(&poller), [Token::Sink(7, 1)]);
        pump.writable(&poller);
        assert_eq!(pump.drain(&mut buffer, &poller), Moved::Empty);
        drop(process);
        assert_eq!(pump.drain(&mut buffer, &poller), Moved::Ended);
        pump.close(&poller);
    }
}
