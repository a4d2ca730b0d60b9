//! Clients whose `:authority` is a path: on a unix socket it means nothing, and must not be what a connection breaks at.
//!
//! gRPC for Go before 1.36 (kubelets and crictl of the v1alpha2 days) sends the socket's path as `:authority`. RFC 9113 forbids that, and the
//! HTTP/2 library ends the stream. So the bytes of a client pass through here first, and in every HEADERS frame a literal `:authority` is given
//! another value of the same length: the client's and the server's table of known headers (RFC 7541, section 2.3.2) stay the same size, and
//! nothing has to be remembered from frame to frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once.
const CHUNK: usize = 16 << 10;
/// The client's first bytes (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const FRAME_HEADER: usize = 9;
/// The largest frame that the server allows (RFC 9113, section 4.2). A larger one passes as it is, and is refused for its size.
const LARGEST_FRAME: usize = 16 << 10;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A connection of a client, read with its authorities replaced.
pub(super) struct AnyAuthority<S> {
    socket: S,
    /// Read, and not yet looked at: the beginning of a frame.
    held: Vec<u8>,
    /// To be given to the reader, from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// How many bytes may pass before the next frame header.
    passing: usize,
}

impl<S> AnyAuthority<S> {
    pub(super) fn new(socket: S) -> AnyAuthority<S> {
        AnyAuthority { socket, held: Vec::new(), ready: Vec::new(), given: 0, passing: PREFACE }
    }

    /// Moves what is complete of `held` to `ready`.
    fn look(&mut self) {
        let mut held = self.held.as_slice();
        while !held.is_empty() {
            if self.passing > 0 {
                let (passing, rest) = held.split_at(self.passing.min(held.len()));
                self.ready.extend_from_slice(passing);
                self.passing -= passing.len();
                held = rest;
                continue;
            }
            let Some((header, rest)) = held.split_first_chunk::<FRAME_HEADER>() else { break };
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            if header[3] != HEADERS || length > LARGEST_FRAME {
                self.passing = FRAME_HEADER + length;
                continue;
            }
            if rest.len() < length {
                break;
            }
            let (payload, rest) = rest.split_at(length);
            let payload = replaced(payload, header[4]).unwrap_or_else(|| payload.to_vec());
            let [_, high, middle, low] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
            self.ready.extend_from_slice(&[high, middle, low]);
            self.ready.extend_from_slice(&header[3..]);
            self.ready.extend_from_slice(&payload);
            held = rest;
        }
        let looked_at = self.held.len() - held.len();
        self.held.drain(..looked_at);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        reader: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.given == this.ready.len() {
            this.ready.clear();
            this.given = 0;
            // In the middle of a large message: no need to look at it.
            if this.held.is_empty() && this.passing >= reader.remaining() {
                let before = reader.filled().len();
                ready!(Pin::new(&mut this.socket).poll_read(context, reader))?;
                this.passing -= reader.filled().len() - before;
                return Poll::Ready(Ok(()));
            }
            let mut chunk = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.socket).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.held.extend_from_slice(buffer.filled());
            this.look();
        }
        let waiting = &this.ready[this.given..];
        let given = waiting.len().min(reader.remaining());
        reader.put_slice(&waiting[..given]);
        this.given += given;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// The payload of a HEADERS frame with another authority; None where there is none, or it is not understood: that is for the library to judge.
fn replaced(payload: &[u8], flags: u8) -> Option<Vec<u8>> {
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*payload.first()?) };
    let before = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let block = payload.get(before..payload.len().checked_sub(padding)?)?;
    let (at, value) = authority(block)?;
    let (at, end) = (before + at, before + at + value.encoded);
    let mut new = payload[..at].to_vec();
    put_length(&mut new, value.length);
    new.resize(new.len() + value.length, b'a');
    new.extend_from_slice(&payload[end..]);
    Some(new)
}

/// Where in a header block the value of a literal `:authority` stands.
fn authority(block: &[u8]) -> Option<(usize, Text)> {
    let mut rest = block;
    while let Some(first) = rest.first() {
        // RFC 7541, section 6: an indexed field, a change of the table's size, or a literal with a name that is indexed or spelled out.
        let prefix = match first {
            0x80.. => 7,
            0x40..0x80 => 6,
            0x20..0x40 => 5,
            ..0x20 => 4,
        };
        let (index, length) = integer(rest, prefix)?;
        rest = &rest[length..];
        if matches!(prefix, 7 | 5) {
            continue;
        }
        if index == 0 {
            rest = rest.get(text(rest)?.encoded..)?;
        }
        let value = text(rest)?;
        // Entry 1 of the static table is `:authority` (RFC 7541, appendix A).
        if index == 1 {
            return Some((block.len() - rest.len(), value));
        }
        rest = rest.get(value.encoded..)?;
    }
    None
}

/// A string of a header block (RFC 7541, section 5.2).
struct Text {
    /// How many bytes it takes here, its length among them.
    encoded: usize,
    /// How many bytes it stands for.
    length: usize,
}

fn text(block: &[u8]) -> Option<Text> {
    let packed = block.first()? & 0x80 != 0;
    let (length, before) = integer(block, 7)?;
    let encoded = before.checked_add(length)?;
    let bytes = block.get(before..encoded)?;
    Some(Text { encoded, length: if packed { unpacked_length(bytes)? } else { length } })
}

/// An integer with a prefix of so many bits, and how many bytes it takes (RFC 7541, section 5.1).
fn integer(block: &[u8], prefix: u32) -> Option<(usize, usize)> {
    let most = (1 << prefix) - 1;
    let first = usize::from(*block.first()?) & most;
    if first < most {
        return Some((first, 1));
    }
    let mut value = most;
    for (index, byte) in block.iter().skip(1).take(3).enumerate() {
        value += usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 2));
        }
    }
    None
}

/// The length of a string that is not packed.
fn put_length(block: &mut Vec<u8>, length: usize) {
    const MOST: usize = 0x7f;
    if length < MOST {
        block.push(length as u8);
        return;
    }
    block.push(MOST as u8);
    let mut rest = length - MOST;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// How many of HPACK's codes have each length, from no bits to thirty: the code is canonical, so this is enough to tell where each ends
/// (RFC 7541, appendix B).
const CODES: [u32; 31] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];

/// How many bytes these packed ones stand for.
fn unpacked_length(packed: &[u8]) -> Option<usize> {
    let mut length = 0;
    let (mut code, mut first, mut bits) = (0_u32, 0_u32, 0_usize);
    for bit in packed.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        code = code << 1 | u32::from(bit);
        first <<= 1;
        bits += 1;
        let codes = *CODES.get(bits)?;
        if code.wrapping_sub(first) < codes {
            length += 1;
            (code, first, bits) = (0, 0, 0);
        } else {
            first += codes;
        }
    }
    // What is left is padding: less than a byte, and all ones.
    (bits < 8 && code + 1 == 1 << bits).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, high, middle, low] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// What a reader gets of `bytes`, which arrive in pieces of `size`.
    fn through(bytes: &[u8], size: usize) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut mock = tokio_test::io::Builder::new();
            for piece in bytes.chunks(size) {
                mock.read(piece);
            }
            let mut read = Vec::new();
            AnyAuthority::new(mock.build()).read_to_end(&mut read).await.unwrap();
            read
        })
    }

    #[test]
    fn an_authority_is_replaced_by_one_of_its_length() {
        // The first request of RFC 7541, appendix C.4.1: `www.example.com`, packed.
        let block = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff\x87";
        let expected = b"\x82\x86\x84\x41\x0faaaaaaaaaaaaaaa\x87";
        assert_eq!(replaced(block, 4).unwrap(), expected);
        // A path as old gRPC sends it, not packed, behind padding and a priority.
        let padded = [&[3, 0, 0, 0, 0, 16], b"\x01\x05/x/yz\x82".as_slice(), &[0; 3]].concat();
        let new = replaced(&padded, PADDED | PRIORITY).unwrap();
        assert_eq!(new, [&[3, 0, 0, 0, 0, 16], b"\x01\x05aaaaa\x82".as_slice(), &[0; 3]].concat());
        // None there: a name that is spelled out, the indexed one of an earlier request.
        assert_eq!(replaced(b"\x00\x01x\x01y\x81\xbf", 4), None);
    }

    #[test]
    fn lengths_are_those_of_the_packed_words() {
        // Appendix C.4 and C.6: no-cache, custom-key, custom-value, private.
        for (packed, length) in [
            (b"\xa8\xeb\x10\x64\x9c\xbf".as_slice(), 8),
            (b"\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f", 10),
            (b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf", 12),
            (b"\xae\xc3\x77\x1a\x4b", 7),
        ] {
            assert_eq!(unpacked_length(packed), Some(length));
        }
        assert_eq!(unpacked_length(&[0xff]), None, "eight bits of padding are too many");
        assert_eq!(CODES.iter().sum::<u32>(), 257);
    }

    proptest! {
        #[test]
        fn other_frames_pass_as_they_are(
            frames in prop::collection::vec((2_u8.., any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..6),
            rest in prop::collection::vec(any::<u8>(), 0..8),
            size in 1_usize..200,
        ) {
            let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
            frames.iter().for_each(|(kind, flags, payload)| bytes.extend(frame(*kind, *flags, payload)));
            prop_assert_eq!(through(&bytes, size), bytes.clone());
            // Less than a frame's header at the end is dropped with the connection.
            let whole = [bytes.as_slice(), &rest].concat();
            prop_assert!(through(&whole, size).starts_with(&bytes));
        }

        #[test]
        fn a_replaced_block_is_the_same_however_it_arrives(
            name in "[ -~]{0,300}", before in 2_u8..15, size in 1_usize..100,
        ) {
            let block = |value: &str| {
                let mut block = vec![0x80 | before, 0x41];
                put_length(&mut block, value.len());
                [block.as_slice(), value.as_bytes(), b"\x10\x01k\x01v"].concat()
            };
            let of = |value: &str| [[b'p'; PREFACE].as_slice(), &frame(HEADERS, 4, &block(value)), &frame(0, 1, b"data")].concat();
            prop_assert_eq!(through(&of(&name), size), of(&"a".repeat(name.len())));
        }

        #[test]
        fn no_bytes_are_too_strange(block in prop::collection::vec(any::<u8>(), 0..400), flags in any::<u8>()) {
            if let Some(new) = replaced(&block, flags) {
                prop_assert!(new.len() <= block.len() * 2);
            }
        }
    }
}
