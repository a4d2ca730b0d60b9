//! How channels lie in messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, BAD_DATA, PROTOCOL_ERROR, ReadError};

/// The first byte of a message by which version 5 ends a channel.
pub(crate) const END: u8 = 255;

/// The way a connection's messages are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The channel's number as a byte, then the bytes. With `half_close`, 255 and a channel's number end that channel.
    Binary { half_close: bool },
    /// The channel's number as a digit, then base64.
    Base64,
    /// There is one channel, 0, and all is its bytes.
    Raw,
}

/// What a piece of a message means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning<'a> {
    Nothing,
    Bytes { channel: u8, bytes: &'a [u8] },
    End { channel: u8 },
}

/// Reads a client's messages, piece by piece.
pub(crate) struct Parser {
    framing: Framing,
    at: At,
    /// Base64 that does not make whole bytes yet.
    carry: Vec<u8>,
    decoded: Vec<u8>,
}

#[derive(Clone, Copy)]
enum At {
    Start,
    Channel(u8),
    End,
}

impl Parser {
    pub(crate) fn new(framing: Framing) -> Parser {
        Parser { framing, at: At::Start, carry: Vec::new(), decoded: Vec::new() }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// The message is not laid out as was agreed.
    pub(crate) fn piece<'a>(
        &'a mut self,
        mut bytes: &'a [u8],
        first: bool,
        last: bool,
    ) -> Result<Meaning<'a>, ReadError> {
        if first {
            self.carry.clear();
            self.at = At::Start;
        }
        if let At::Start = self.at {
            if self.framing == Framing::Raw {
                self.at = At::Channel(0);
            } else {
                let Some((channel, rest)) = bytes.split_first() else { return Ok(Meaning::Nothing) };
                self.at = match self.framing {
                    Framing::Binary { half_close: true } if *channel == END => At::End,
                    Framing::Base64 => At::Channel(channel.wrapping_sub(b'0')),
                    _ => At::Channel(*channel),
                };
                bytes = rest;
            }
        }
        match self.at {
            At::Channel(channel) if self.framing == Framing::Base64 => {
                self.decode(bytes, last)?;
                Ok(Meaning::Bytes { channel, bytes: &self.decoded })
            }
            At::Channel(channel) => Ok(Meaning::Bytes { channel, bytes }),
            At::End => self.end(bytes, last),
            At::Start => Ok(Meaning::Nothing),
        }
    }

    fn end(&mut self, bytes: &[u8], last: bool) -> Result<Meaning<'_>, ReadError> {
        self.carry.extend_from_slice(&bytes[..bytes.len().min(2)]);
        match self.carry[..] {
            [channel] if last => Ok(Meaning::End { channel }),
            _ if !last && self.carry.len() <= 1 => Ok(Meaning::Nothing),
            _ => Err(ReadError::Broken(PROTOCOL_ERROR, "the end of a channel is told in two bytes")),
        }
    }

    fn decode(&mut self, bytes: &[u8], last: bool) -> Result<(), ReadError> {
        self.carry.extend(bytes.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
        let whole = if last { self.carry.len() } else { self.carry.len() / 4 * 4 };
        self.decoded.clear();
        STANDARD
            .decode_vec(&self.carry[..whole], &mut self.decoded)
            .map_err(|_| ReadError::Broken(BAD_DATA, "a message that is not in base64"))?;
        self.carry.drain(..whole);
        Ok(())
    }
}

impl Framing {
    /// A message's head, with the channel, and what follows it.
    pub(crate) fn message(self, channel: u32, bytes: Bytes) -> (BytesMut, Bytes) {
        match self {
            Framing::Binary { .. } => {
                let mut head = frame::message(false, bytes.len() + 1);
                head.put_u8(channel as u8);
                (head, bytes)
            }
            Framing::Base64 => {
                let text = STANDARD.encode(bytes);
                let mut head = frame::message(true, text.len() + 1);
                head.put_u8(b'0'.wrapping_add(channel as u8));
                (head, text.into())
            }
            Framing::Raw => (frame::message(false, bytes.len()), bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(parser: &mut Parser, piece: &[u8], first: bool, last: bool) -> (u8, Vec<u8>) {
        match parser.piece(piece, first, last) {
            Ok(Meaning::Bytes { channel, bytes }) => (channel, bytes.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn base64_may_come_in_any_pieces() {
        let mut parser = Parser::new(Framing::Base64);
        assert_eq!(bytes(&mut parser, b"0Zm", true, false), (0, b"".to_vec()));
        assert_eq!(bytes(&mut parser, b"9vC", false, false), (0, b"foo".to_vec()));
        assert_eq!(bytes(&mut parser, b"g==", false, true), (0, b"\n".to_vec()));
        assert_eq!(bytes(&mut parser, b"2", true, true), (2, b"".to_vec()));
        assert!(parser.piece(b"0Zg==Zg==", true, true).is_err());
        assert!(parser.piece(b"0Zm9", true, true).is_err());
        assert_eq!(bytes(&mut parser, b"0Zm9v", true, true), (0, b"foo".to_vec()));
    }

    #[test]
    fn version_5_ends_channels() {
        let mut parser = Parser::new(Framing::Binary { half_close: true });
        assert_eq!(parser.piece(&[255, 0], true, true).unwrap(), Meaning::End { channel: 0 });
        assert_eq!(parser.piece(&[255], true, false).unwrap(), Meaning::Nothing);
        assert_eq!(parser.piece(&[4], false, true).unwrap(), Meaning::End { channel: 4 });
        for wrong in [&[255][..], &[255, 0, 0], &[255, 0, 0, 0]] {
            assert!(parser.piece(wrong, true, true).is_err());
        }
        let mut older = Parser::new(Framing::Binary { half_close: false });
        assert_eq!(bytes(&mut older, &[255, 0], true, true), (255, vec![0]));
    }
}
