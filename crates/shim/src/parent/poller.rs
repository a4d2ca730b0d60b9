//! epoll, with a token for each thing that is waited for.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// What became ready. The numbers are serials, which are never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Listener,
    Children,
    Connection(u32),
    Helper(u32),
    Start(u32),
    /// An output of a container: 0 is stdout or the terminal, 1 stderr.
    Output(u32, u8),
    /// A pipe that somebody who is attached reads the output of that index from.
    Sink(u32, u8),
    /// What somebody who is attached writes.
    Source(u32),
    /// The standard input of a container.
    Input(u32),
    /// Where events are published.
    Publisher,
    /// Memory has run out in the control group of that container.
    Memory(u32),
    /// What a foreign shim says of itself.
    ForeignLog,
}

impl Token {
    fn data(self) -> EventData {
        let (kind, serial, index) = match self {
            Token::Listener => (0, 0, 0),
            Token::Children => (1, 0, 0),
            Token::Connection(serial) => (2, serial, 0),
            Token::Helper(serial) => (3, serial, 0),
            Token::Start(serial) => (4, serial, 0),
            Token::Output(serial, index) => (5, serial, index),
            Token::Sink(serial, index) => (6, serial, index),
            Token::Source(serial) => (7, serial, 0),
            Token::Input(serial) => (8, serial, 0),
            Token::Publisher => (9, 0, 0),
            Token::Memory(serial) => (10, serial, 0),
            Token::ForeignLog => (11, 0, 0),
        };
        EventData::new_u64(u64::from(kind as u8) << 40 | u64::from(index) << 32 | u64::from(serial))
    }

    fn parse(data: EventData) -> Option<Token> {
        let [s0, s1, s2, s3, index, kind, ..] = data.u64().to_le_bytes();
        let serial = u32::from_le_bytes([s0, s1, s2, s3]);
        match kind {
            0 => Some(Token::Listener),
            1 => Some(Token::Children),
            2 => Some(Token::Connection(serial)),
            3 => Some(Token::Helper(serial)),
            4 => Some(Token::Start(serial)),
            5 => Some(Token::Output(serial, index)),
            6 => Some(Token::Sink(serial, index)),
            7 => Some(Token::Source(serial)),
            8 => Some(Token::Input(serial)),
            9 => Some(Token::Publisher),
            10 => Some(Token::Memory(serial)),
            11 => Some(Token::ForeignLog),
            _ => None,
        }
    }
}

/// The set of what is waited for. What is in it must be removed before it is closed: a fork may hold a copy of the descriptor, and with
/// it the entry, for a while longer.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

pub(crate) const READ: EventFlags = EventFlags::IN;
pub(crate) const READ_AND_WRITE: EventFlags = EventFlags::IN.union(EventFlags::OUT);
pub(crate) const WRITE: EventFlags = EventFlags::OUT;
/// Only what is always told: an error, or that the other end is closed.
pub(crate) const NOTHING: EventFlags = EventFlags::empty();

/// How many events one wait gives at most.
const EVENTS: usize = 32;

impl Poller {
    pub(crate) fn new() -> rustix::io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(crate) fn add(
        &self,
        source: impl AsFd,
        token: Token,
        interest: EventFlags,
    ) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, source, token.data(), interest)
    }

    pub(crate) fn change(&self, source: impl AsFd, token: Token, interest: EventFlags) {
        let _ = epoll::modify(&self.epoll, source, token.data(), interest);
    }

    pub(crate) fn remove(&self, source: impl AsFd) {
        let _ = epoll::delete(&self.epoll, source);
    }

    /// Waits for events, or for `timeout` to pass.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> rustix::io::Result<Tokens> {
        let timeout = timeout.map(|left| Timespec {
            tv_sec: left.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; EVENTS];
        let ready = match epoll::wait(&self.epoll, &mut events[..], timeout.as_ref()) {
            Err(Errno::INTR) => 0,
            other => other?,
        };
        Ok(Tokens { events, next: 0, ready })
    }
}

/// The events of one wait.
pub(crate) struct Tokens {
    events: [Event; EVENTS],
    next: usize,
    ready: usize,
}

impl Iterator for Tokens {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while self.next < self.ready {
            self.next += 1;
            if let Some(token) = Token::parse(self.events[self.next - 1].data) {
                return Some(token);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Listener,
            Token::Children,
            Token::Connection(7),
            Token::Helper(u32::MAX),
            Token::Start(1),
            Token::Output(u32::MAX, 1),
            Token::Sink(9, 1),
            Token::Source(9),
            Token::Input(u32::MAX),
            Token::Publisher,
            Token::Memory(u32::MAX),
            Token::ForeignLog,
        ] {
            assert_eq!(Token::parse(token.data()), Some(token));
        }
        assert_eq!(Token::parse(EventData::new_u64(u64::MAX)), None);
    }
}
