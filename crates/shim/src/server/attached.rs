//! Somebody who is attached to a container: what it writes is copied to his pipes as far as they take it, beside the log.
//!
//! His pipes are the only buffer. Once one is full, output is left out until it has room again, and a line in its place says how much: neither
//! the container nor its log waits for a reader. Whoever closes all his reading ends has left.

use crate::parent::poller::{NOTHING, Poller, READ, Token, WRITE};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

#[derive(Debug)]
pub(super) struct Attached {
    pub(super) serial: u32,
    sinks: [Option<Sink>; 2],
    /// What he writes to the container.
    pub(super) source: Option<OwnedFd>,
}

/// The descriptors of somebody who attaches; what is `None` he does not want.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) source: Option<OwnedFd>,
    pub(super) sinks: [Option<OwnedFd>; 2],
}

impl Attached {
    /// Starts to notice when he leaves. `read` says whether his input is listened to already.
    pub(super) fn open(ends: Ends, serial: u32, read: bool, poller: &Poller) -> rustix::io::Result<Attached> {
        let sinks = ends.sinks.map(|pipe| pipe.map(|pipe| Sink { pipe, lost: 0 }));
        let attached = Attached { serial, sinks, source: ends.source };
        attached.listen(read, poller).inspect_err(|_| attached.forget(poller))?;
        Ok(attached)
    }

    fn listen(&self, read: bool, poller: &Poller) -> rustix::io::Result<()> {
        for (index, sink) in (0..).zip(&self.sinks) {
            if let Some(sink) = sink {
                rustix::io::ioctl_fionbio(&sink.pipe, true)?;
                poller.add(&sink.pipe, Token::Sink(self.serial, index), NOTHING)?;
            }
        }
        match &self.source {
            Some(source) if read => poller.add(source, Token::Source(self.serial), READ),
            _ => Ok(()),
        }
    }

    /// Hands him output of the container.
    pub(super) fn offer(&mut self, index: usize, bytes: &[u8], poller: &Poller) -> Still {
        let token = Token::Sink(self.serial, index as u8);
        let Some(sink) = &mut self.sinks[index] else {
            return Still::There;
        };
        match sink.offer(bytes, token, poller) {
            Still::There => Still::There,
            Still::Gone => self.close_sink(index, poller),
        }
    }

    /// One of his pipes has room, or nobody reads it any more.
    pub(super) fn sink_ready(&mut self, index: usize, poller: &Poller) -> Still {
        let token = Token::Sink(self.serial, index as u8);
        let Some(sink) = &mut self.sinks[index] else {
            return Still::There;
        };
        // The event may be older than what was done about it.
        let here = if sink.has_reader() { sink.catch_up(token, poller) } else { Still::Gone };
        match here {
            Still::There => Still::There,
            Still::Gone => self.close_sink(index, poller),
        }
    }

    /// The container writes nothing more to this output.
    pub(super) fn end_of_output(&mut self, index: usize, poller: &Poller) {
        let token = Token::Sink(self.serial, index as u8);
        if let Some(sink) = &mut self.sinks[index] {
            sink.catch_up(token, poller);
        }
        self.close_sink(index, poller);
    }

    /// Whether he neither reads nor writes.
    pub(super) fn is_over(&self) -> bool {
        self.source.is_none() && self.sinks.iter().all(Option::is_none)
    }

    /// Stops waiting for anything of his, before his descriptors are closed.
    pub(super) fn forget(&self, poller: &Poller) {
        self.sinks.iter().flatten().for_each(|sink| poller.remove(&sink.pipe));
        self.source.iter().for_each(|source| poller.remove(source));
    }

    /// He has left when this was the last output that he read.
    fn close_sink(&mut self, index: usize, poller: &Poller) -> Still {
        if let Some(sink) = self.sinks[index].take() {
            poller.remove(&sink.pipe);
        }
        if self.sinks.iter().all(Option::is_none) { Still::Gone } else { Still::There }
    }
}

/// Whether somebody is attached yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Still {
    There,
    Gone,
}

/// The writing end of a pipe that he reads.
#[derive(Debug)]
struct Sink {
    pipe: OwnedFd,
    /// Bytes left out since the pipe was full. While there are any, its having room again is waited for.
    lost: u64,
}

impl Sink {
    fn offer(&mut self, bytes: &[u8], token: Token, poller: &Poller) -> Still {
        if self.catch_up(token, poller) == Still::Gone {
            return Still::Gone;
        }
        let mut rest = bytes;
        while self.lost == 0 && !rest.is_empty() {
            match rustix::io::write(&self.pipe, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    poller.change(&self.pipe, token, WRITE);
                    break;
                }
                Err(_) => return Still::Gone,
            }
        }
        self.lost += rest.len() as u64;
        Still::There
    }

    /// Says how much was left out, if anything was and there is room for it now. A pipe takes so short a line whole or not at all (pipe(7)).
    fn catch_up(&mut self, token: Token, poller: &Poller) -> Still {
        while self.lost > 0 {
            match rustix::io::write(&self.pipe, notice(self.lost).as_bytes()) {
                Ok(_) => {
                    self.lost = 0;
                    poller.change(&self.pipe, token, NOTHING);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Still::Gone,
            }
        }
        Still::There
    }

    fn has_reader(&self) -> bool {
        let mut set = [PollFd::new(&self.pipe, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut set, Some(&now)), Ok(1..))
    }
}

/// What stands in the place of output that was left out.
fn notice(lost: u64) -> String {
    format!("\r\n[pintle: {lost} bytes of output are left out here, this client reads too slowly]\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::pipe::{PipeFlags, pipe_with};

    fn attached(poller: &Poller) -> (Attached, OwnedFd) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let ends = Ends { source: None, sinks: [Some(writer), None] };
        (Attached::open(ends, 7, true, poller).unwrap(), reader)
    }

    fn take(reader: &OwnedFd, most: usize, got: &mut Vec<u8>) {
        let mut buffer = vec![0; most];
        if let Ok(length) = rustix::io::read(reader, &mut buffer) {
            got.extend_from_slice(&buffer[..length]);
        }
    }

    /// What was received, with each notice made into so many zeros.
    fn filled(mut got: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(at) = got.windows(11).position(|window| window == b"\r\n[pintle: ") {
            all.extend_from_slice(&got[..at]);
            got = &got[at + 11..];
            let digits = got.iter().position(|b| *b == b' ').unwrap();
            let lost: usize = std::str::from_utf8(&got[..digits]).unwrap().parse().unwrap();
            all.resize(all.len() + lost, 0);
            got = &got[got.windows(3).position(|window| window == b"]\r\n").unwrap() + 3..];
        }
        all.extend_from_slice(got);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_left_out_is_counted_exactly(
            steps in prop::collection::vec((0usize..6000, 0usize..6000, any::<bool>()), 1..40),
        ) {
            let poller = Poller::new().unwrap();
            let (mut attached, reader) = attached(&poller);
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for (number, (write, read, woken)) in steps.into_iter().enumerate() {
                let bytes = vec![b'a' + (number % 26) as u8; write];
                prop_assert_eq!(attached.offer(0, &bytes, &poller), Still::There);
                sent.extend_from_slice(&bytes);
                take(&reader, read, &mut got);
                if woken {
                    prop_assert_eq!(attached.sink_ready(0, &poller), Still::There);
                }
            }
            take(&reader, 1 << 16, &mut got);
            attached.end_of_output(0, &poller);
            take(&reader, 1 << 16, &mut got);
            let filled = filled(&got);
            prop_assert_eq!(filled.len(), sent.len());
            prop_assert!(filled.iter().zip(&sent).all(|(got, sent)| got == sent || *got == 0));
        }
    }

    #[test]
    fn room_is_waited_for_only_while_something_is_owed_and_leaving_is_noticed() {
        let poller = Poller::new().unwrap();
        let (mut attached, reader) = attached(&poller);
        let events = || poller.wait(Some(std::time::Duration::ZERO)).unwrap().collect::<Vec<_>>();
        assert_eq!(events(), []);
        assert_eq!(attached.offer(0, &[b'x'; 5000], &poller), Still::There);
        assert_eq!(events(), [], "it is full");
        take(&reader, 4096, &mut Vec::new());
        assert_eq!(events(), [Token::Sink(7, 0)]);
        assert_eq!(attached.sink_ready(0, &poller), Still::There);
        assert_eq!(events(), [], "the notice was written");
        drop(reader);
        assert_eq!(events(), [Token::Sink(7, 0)]);
        assert_eq!(attached.sink_ready(0, &poller), Still::Gone);
        assert!(attached.is_over());
        assert_eq!(events(), []);
    }
}
