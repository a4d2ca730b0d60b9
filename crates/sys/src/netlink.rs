//! Netlink: building messages with nested attributes, sending a batch in one call, and reading what the kernel answers.
//!
//! The layouts are those of netlink(7), rtnetlink(7) and linux/netfilter/nfnetlink.h; numbers are in the machine's byte order unless a
//! method says `be`. Nothing here knows a family: callers give message kinds and attribute numbers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `nlmsg_flags`, netlink(7).
pub mod flag {
    pub const REQUEST: u16 = 0x1;
    pub const ACK: u16 = 0x4;
    pub const DUMP: u16 = 0x300;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
}

const HEADER: usize = 16;
const KIND_ERROR: u16 = 2;
const KIND_DONE: u16 = 3;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const ACK_TEXT: u16 = 1;
const ATTRIBUTE_NESTED: u16 = 0x8000;
const ATTRIBUTE_KIND: u16 = 0x3fff;
/// A dump is answered in pieces of at most this size (the kernel's own cap is 32 KiB).
const RECEIVE_BYTES: usize = 32 * 1024;

/// Messages that go to the kernel in one system call.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Messages {
    pub fn new() -> Messages {
        Messages { bytes: Vec::with_capacity(1024), starts: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Begins a message; what follows belongs to it until the next `begin`. `flags` get `NLM_F_REQUEST` added.
    pub fn begin(&mut self, kind: u16, flags: u16) -> &mut Messages {
        self.close();
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self
    }

    /// A fixed header of the family (`struct ifinfomsg` and the like), padded to four bytes.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Messages {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Messages {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&value[..usize::from(length) - 4]);
        self.pad();
        self
    }

    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Messages {
        self.attribute(kind, &[value])
    }

    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Messages {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Messages {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub fn u64(&mut self, kind: u16, value: u64) -> &mut Messages {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nfnetlink wants its numbers.
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Messages {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// In network byte order, as nfnetlink wants its numbers.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Messages {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Text with the NUL byte that ends it.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Messages {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// A descriptor by its number, as `IFLA_NET_NS_FD` takes one. It must be open until the messages were sent.
    pub fn descriptor(&mut self, kind: u16, fd: BorrowedFd<'_>) -> &mut Messages {
        self.attribute(kind, &fd.as_raw_fd().to_ne_bytes())
    }

    /// An attribute that holds what `fill` adds.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Messages)) -> &mut Messages {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | ATTRIBUTE_NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Writes the length of the message that was open.
    fn close(&mut self) {
        if let Some(&start) = self.starts.last() {
            let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }
}

/// The kernel refused a message.
#[derive(Debug)]
pub struct Refused {
    /// Which message of the batch, counted from 0; `None` where the batch as a whole was refused.
    pub index: Option<usize>,
    pub errno: Errno,
    /// What the kernel says about it (extended acknowledgement), often empty.
    pub text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", io::Error::from(self.errno))?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Refused {
        Refused { index: None, errno, text: String::new() }
    }
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> io::Error {
        match refused.text.is_empty() {
            true => refused.errno.into(),
            false => io::Error::new(io::Error::from(refused.errno).kind(), refused),
        }
    }
}

/// A netlink socket. It belongs to the network namespace it was opened in, wherever it is used from.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// For links, addresses, routes and queueing disciplines (rtnetlink(7)).
    pub fn route() -> io::Result<Socket> {
        Socket::open(None)
    }

    /// For nftables and connection tracking.
    pub fn netfilter() -> io::Result<Socket> {
        Socket::open(Some(NETFILTER))
    }

    /// A route socket that acts inside `namespace`; it is opened by a thread of its own.
    pub fn route_in(namespace: BorrowedFd<'_>) -> io::Result<Socket> {
        crate::namespace::in_network(namespace, Socket::route)
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Socket> {
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // The kernel answers while the request is being sent. Should it ever not, an error is better than waiting for good.
        set_socket_timeout(&fd, Timeout::Recv, Some(std::time::Duration::from_secs(10)))?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK, libc::NETLINK_GET_STRICT_CHK] {
            enable(fd.as_fd(), option)?;
        }
        Ok(Socket { fd, sequence: 1 })
    }

    /// Sends `messages` and waits until the kernel has taken every one that asks for an acknowledgement (`flag::ACK`).
    ///
    /// # Errors
    /// The first refusal. Of route messages the others were executed; a netfilter batch is taken whole or not at all.
    pub fn transact(&mut self, messages: Messages) -> Result<(), Refused> {
        let waiting = messages
            .starts
            .iter()
            .filter(|&&start| flags_of(&messages.bytes[start..]) & flag::ACK != 0)
            .count();
        let (first, count) = self.send(messages)?;
        let mut refused: Option<Refused> = None;
        let mut answered = 0;
        let mut buffer = room();
        while answered < waiting {
            let length = match self.receive(&mut buffer) {
                Ok(length) => length,
                // After a refusal the kernel owes no further answers.
                Err(_) if refused.is_some() => break,
                Err(errno) => return Err(errno.into()),
            };
            for message in split(&buffer[..length]) {
                let index = message.sequence.wrapping_sub(first) as usize;
                if message.kind != KIND_ERROR || index >= count {
                    continue;
                }
                answered += 1;
                if let Err(mut error) = acknowledgement(&message) {
                    error.index = Some(index);
                    refused.get_or_insert(error);
                    // A batch refused as a whole is answered by one error only.
                    if flags_were_plain(&message) {
                        answered = waiting;
                    }
                }
            }
        }
        if refused.is_some() {
            self.drain(&mut buffer);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Sends one request (with `flag::DUMP` or `flag::ACK`) and hands each answer to `each` as its kind and its payload.
    pub fn query(&mut self, messages: Messages, mut each: impl FnMut(u16, &[u8])) -> Result<(), Refused> {
        let (first, _) = self.send(messages)?;
        let mut buffer = room();
        loop {
            let length = self.receive(&mut buffer)?;
            for message in split(&buffer[..length]) {
                if message.sequence != first {
                    continue;
                }
                match message.kind {
                    KIND_ERROR => return acknowledgement(&message),
                    KIND_DONE => return acknowledgement(&message),
                    kind => each(kind, message.payload),
                }
            }
        }
    }

    fn send(&mut self, mut messages: Messages) -> Result<(u32, usize), Errno> {
        messages.close();
        let first = self.sequence;
        for &start in &messages.starts {
            messages.bytes[start + 8..start + 12].copy_from_slice(&self.sequence.to_ne_bytes());
            self.sequence = self.sequence.wrapping_add(1);
        }
        let sent = rustix::io::retry_on_intr(|| net::send(&self.fd, &messages.bytes, SendFlags::empty()))?;
        if sent != messages.bytes.len() {
            return Err(Errno::MSGSIZE);
        }
        Ok((first, messages.starts.len()))
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let (_, length) = rustix::io::retry_on_intr(|| {
            net::recv(&self.fd, &mut *buffer, RecvFlags::TRUNC).map(|(_, length)| ((), length))
        })?;
        if length > buffer.len() {
            return Err(Errno::MSGSIZE);
        }
        Ok(length)
    }

    /// Throws away what is still queued, so that the next request does not meet old answers.
    fn drain(&self, buffer: &mut [u8]) {
        while let Ok((_, 1..)) = net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT) {}
    }
}

/// Where answers are received: not a part of the socket, since one may be kept for each pod.
fn room() -> Vec<u8> {
    vec![0; RECEIVE_BYTES]
}

/// The attributes in `bytes` as (number, value); a malformed rest ends the sequence.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & ATTRIBUTE_KIND;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn split(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let flags = flags_of(bytes);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, payload })
    })
}

fn flags_of(message: &[u8]) -> u16 {
    message.get(6..8).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// Whether the message that an error answers did not ask for an acknowledgement itself: then it stands for the whole batch.
fn flags_were_plain(error: &Message<'_>) -> bool {
    error.payload.get(4..).is_some_and(|original| flags_of(original) & flag::ACK == 0)
}

/// What an `NLMSG_ERROR` or `NLMSG_DONE` says.
fn acknowledgement(message: &Message<'_>) -> Result<(), Refused> {
    let code = message.payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    if code == 0 {
        return Ok(());
    }
    let mut text = String::new();
    if message.flags & FLAG_ACK_TLVS != 0 {
        let original = match (message.kind, message.flags & FLAG_CAPPED) {
            (KIND_DONE, _) => 0,
            (_, 0) => message.payload.get(4..8).map_or(HEADER, |b| {
                u32::from_ne_bytes([b[0], b[1], b[2], b[3]]).next_multiple_of(4) as usize
            }),
            _ => HEADER,
        };
        let extended = message.payload.get(4 + original..).unwrap_or_default();
        if let Some((_, value)) = attributes(extended).find(|(kind, _)| *kind == ACK_TEXT) {
            text = String::from_utf8_lossy(value).trim_end_matches('\0').to_string();
        }
    }
    Err(Refused { index: None, errno: Errno::from_raw_os_error(code.saturating_neg()), text })
}

fn enable(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: setsockopt(2) reads `size_of::<c_int>()` bytes at `&on`, which lives through the call; the descriptor is borrowed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_is_read_again() {
        let mut messages = Messages::new();
        messages.begin(7, flag::ACK).fixed(&[1, 2, 3, 4, 5]).text(1, "eth0").nest(2, |inner| {
            inner.be16(3, 80).u8(4, 9);
        });
        messages.begin(8, 0).u32(5, 6);
        messages.close();
        let split: Vec<Message<'_>> = split(&messages.bytes).collect();
        assert_eq!(split.iter().map(|m| (m.kind, m.flags)).collect::<Vec<_>>(), [(7, 5), (8, 1)]);
        let of: Vec<(u16, &[u8])> = attributes(&split[0].payload[8..]).collect();
        assert_eq!(of[0], (1, &b"eth0\0"[..]));
        let inner: Vec<(u16, &[u8])> = attributes(of[1].1).collect();
        assert_eq!(inner, [(3, &[0, 80][..]), (4, &[9][..])]);
    }

    #[test]
    fn malformed_bytes_end_the_sequence() {
        for bytes in [&[][..], &[1], &[0, 0, 1, 0], &[3, 0, 1, 0], &[200, 0, 1, 0, 1], &[255, 255, 255, 255]]
        {
            assert_eq!(attributes(bytes).count(), 0);
            assert_eq!(split(bytes).count(), 0);
        }
        let mut long = [0; 32];
        long[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(split(&long).count(), 0);
    }

    #[test]
    fn a_refusal_names_the_message_and_the_next_request_is_not_confused() {
        const NEW_LINK: u16 = 16;
        const GET_LINK: u16 = 18;
        let Ok(namespace) = crate::namespace::new_network() else {
            println!("SKIPPED: no permission to make a network namespace");
            return;
        };
        let mut socket = Socket::route_in(namespace.as_fd()).unwrap();
        let mut header = [0; 16];
        let mut messages = Messages::new();
        header[4] = 1;
        messages.begin(NEW_LINK, flag::ACK).fixed(&header);
        header[4] = 99;
        messages.begin(NEW_LINK, flag::ACK).fixed(&header);
        messages.begin(NEW_LINK, flag::ACK).fixed(&header);
        let refused = socket.transact(messages).unwrap_err();
        assert_eq!((refused.index, refused.errno), (Some(1), Errno::NODEV));
        let mut request = Messages::new();
        request.begin(GET_LINK, flag::DUMP).fixed(&[0; 16]);
        let mut links = 0;
        socket.query(request, |_, _| links += 1).unwrap();
        assert_eq!(links, 1);
    }
}
