//! One client: bytes in, frames and descriptors out of them, answers queued until the socket takes them.

use super::poller::{Poller, READ, READ_AND_WRITE, Token, WRITE};
use crate::protocol::{CallError, Decoder, ErrorCode, FrameKind, Response, encode};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use std::collections::VecDeque;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// Descriptors that may have arrived before the requests that claim them.
const MAX_UNCLAIMED: usize = 64;

/// With this many bytes of answers waiting, no further request of this client is looked at.
const HOLD_BACK: usize = 64 << 10;

/// With this many, the client is given up: it asks for waits and never reads.
const GIVE_UP: usize = 8 << 20;

/// Why a client is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gone {
    #[error("it closed its end")]
    Closed,
    #[error("its bytes are no frame, or claim descriptors that did not come")]
    Garbage,
    #[error("it does not read its answers")]
    Slow,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) serial: u32,
    pub(crate) decoder: Decoder,
    /// Calls of this client that wait for an answer.
    pub(crate) outstanding: usize,
    socket: OwnedFd,
    unclaimed: VecDeque<OwnedFd>,
    out: Vec<u8>,
    sent: usize,
    interest: rustix::event::epoll::EventFlags,
}

impl Connection {
    /// Starts to wait for requests on `socket`, which must not block.
    pub(crate) fn open(socket: OwnedFd, serial: u32, poller: &Poller) -> rustix::io::Result<Connection> {
        poller.add(&socket, Token::Connection(serial), READ)?;
        Ok(Connection {
            serial,
            decoder: Decoder::new(),
            outstanding: 0,
            socket,
            unclaimed: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            interest: READ,
        })
    }

    /// Reads what is there into the decoder. False when nothing was.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<bool, Gone> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_UNCLAIMED))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match rustix::net::recvmsg(&self.socket, &mut slices, &mut ancillary, flags) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(_) => return Err(Gone::Closed),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                self.unclaimed.extend(rights);
            }
        }
        if received == 0 {
            return Err(Gone::Closed);
        }
        if self.unclaimed.len() > MAX_UNCLAIMED {
            return Err(Gone::Garbage);
        }
        self.decoder.feed(&buffer[..received]);
        Ok(true)
    }

    /// The next `number` descriptors: frames claim them in the order in which both were sent.
    pub(crate) fn claim(&mut self, number: usize) -> Result<Vec<OwnedFd>, Gone> {
        if number > self.unclaimed.len() {
            return Err(Gone::Garbage);
        }
        Ok(self.unclaimed.drain(..number).collect())
    }

    /// Whether this client has to read before it is listened to again.
    pub(crate) fn is_held_back(&self) -> bool {
        self.out.len() - self.sent > HOLD_BACK
    }

    /// Queues an answer, or if it is too long for a frame the error that it is.
    pub(crate) fn push(&mut self, stream: u32, response: &Response) {
        if let Err(cause) = encode(&mut self.out, stream, FrameKind::Response, response) {
            let error = CallError::new(ErrorCode::Internal, format!("the answer cannot be sent: {cause}"));
            let _ = encode(&mut self.out, stream, FrameKind::Response, &error.response());
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Writes what the socket takes and waits for what is needed next.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Result<(), Gone> {
        while self.has_output() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.out[self.sent..], flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Gone::Closed),
            }
        }
        if !self.has_output() {
            self.sent = 0;
            self.out.clear();
            if self.out.capacity() > 4096 {
                self.out = Vec::new();
            }
        } else if self.out.len() - self.sent > GIVE_UP {
            return Err(Gone::Slow);
        } else if self.sent > HOLD_BACK {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        let interest = match (self.has_output(), self.is_held_back()) {
            (false, _) => READ,
            (true, false) => READ_AND_WRITE,
            (true, true) => WRITE,
        };
        if interest != self.interest {
            poller.change(&self.socket, Token::Connection(self.serial), interest);
            self.interest = interest;
        }
        Ok(())
    }

    /// Ends it. Answers that wait are lost, calls go on.
    pub(crate) fn close(self, poller: &Poller) {
        poller.remove(&self.socket);
    }
}
