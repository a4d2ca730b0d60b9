//! Frames: taking apart what a client sends, and the heads of what it is sent.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// How much of a message is passed on at a time.
const PIECE: usize = 16 * 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// The client broke the protocol.
pub(crate) const PROTOCOL_ERROR: u16 = 1002;
/// A message was not what it should be.
pub(crate) const BAD_DATA: u16 = 1007;
/// All was said.
pub(crate) const NORMAL: u16 = 1000;

/// Nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// With the code to close with.
    #[error("{1} (close code {0})")]
    Broken(u16, &'static str),
}

const fn broken(why: &'static str) -> ReadError {
    ReadError::Broken(PROTOCOL_ERROR, why)
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A piece of a message. A message has at least one.
    Piece {
        bytes: &'a [u8],
        first: bool,
        last: bool,
    },
    Ping(Bytes),
    Pong,
    Close(u16),
}

/// Takes frames apart.
pub(crate) struct Reader<R> {
    io: R,
    /// What comes is masked: a client sends it.
    masked: bool,
    frame: Frame,
    /// A message has begun and not ended.
    in_message: bool,
    /// The next piece is the message's first.
    first: bool,
    piece: Vec<u8>,
}

/// What is left of the current data frame.
struct Frame {
    left: u64,
    mask: [u8; 4],
    fin: bool,
}

impl<R: AsyncBufRead + Unpin> Reader<R> {
    /// Of what a client sends.
    pub(crate) fn new(io: R) -> Reader<R> {
        Reader::of(io, true)
    }

    /// Of what a server sends.
    pub(crate) fn of_server(io: R) -> Reader<R> {
        Reader::of(io, false)
    }

    fn of(io: R, masked: bool) -> Reader<R> {
        let frame = Frame { left: 0, mask: [0; 4], fin: true };
        Reader { io, masked, frame, in_message: false, first: true, piece: Vec::new() }
    }

    /// What remains when frames are of no interest any more.
    pub(crate) fn into_inner(self) -> R {
        self.io
    }

    /// The next thing that the client sent.
    ///
    /// # Errors
    /// The connection is at its end, or what came is no WebSocket frame.
    pub(crate) async fn next(&mut self) -> Result<Event<'_>, ReadError> {
        while self.frame.left == 0 {
            if let Some(control) = self.head().await? {
                return Ok(control);
            }
            if self.frame.left == 0 && (self.frame.fin || self.first) {
                // A frame without content, that is all of a message, or its end.
                self.piece.clear();
                return Ok(self.emit());
            }
        }
        let there = self.io.fill_buf().await?;
        if there.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let limit = there.len().min(PIECE);
        let count = usize::try_from(self.frame.left).map_or(limit, |left| limit.min(left));
        self.piece.clear();
        self.piece.extend_from_slice(&there[..count]);
        self.io.consume(count);
        unmask(&mut self.piece, self.frame.mask);
        self.frame.mask.rotate_left(count % 4);
        self.frame.left -= count as u64;
        Ok(self.emit())
    }

    fn emit(&mut self) -> Event<'_> {
        let last = self.frame.left == 0 && self.frame.fin;
        let first = std::mem::replace(&mut self.first, last);
        self.in_message = !last;
        Event::Piece { bytes: &self.piece, first, last }
    }

    /// Reads a frame's head; a control frame is read whole.
    async fn head(&mut self) -> Result<Option<Event<'static>>, ReadError> {
        let mut start = [0; 2];
        self.io.read_exact(&mut start).await?;
        let [first, second] = start;
        if first & 0x70 != 0 {
            return Err(broken("a frame with bits of an extension that was not agreed on"));
        }
        if (second & MASKED != 0) != self.masked {
            return Err(broken(
                "a client's frames are masked and a server's are not; this is the other way round",
            ));
        }
        let (fin, opcode) = (first & FIN != 0, first & 0x0f);
        let length = match second & 0x7f {
            126 => u64::from(self.io.read_u16().await?),
            127 => self.io.read_u64().await?,
            short => u64::from(short),
        };
        if length > i64::MAX as u64 {
            return Err(broken("a frame whose length has its highest bit set"));
        }
        let mut mask = [0; 4];
        if self.masked {
            self.io.read_exact(&mut mask).await?;
        }
        match opcode {
            CONTINUATION | TEXT | BINARY => {
                if (opcode == CONTINUATION) != self.in_message {
                    return Err(broken("a message inside of another, or the rest of none"));
                }
                self.in_message = true;
                self.frame = Frame { left: length, mask, fin };
                Ok(None)
            }
            CLOSE | PING | PONG => {
                if !fin || length > 125 {
                    return Err(broken("a control frame in parts, or of more than 125 bytes"));
                }
                let mut payload = vec![0; length as usize];
                self.io.read_exact(&mut payload).await?;
                unmask(&mut payload, mask);
                Ok(Some(match opcode {
                    PING => Event::Ping(payload.into()),
                    PONG => Event::Pong,
                    _ => Event::Close(match payload[..] {
                        [high, low, ..] => u16::from_be_bytes([high, low]),
                        _ => NORMAL,
                    }),
                }))
            }
            _ => Err(broken("a frame of a type that does not exist")),
        }
    }
}

/// A whole message or control frame as a client sends it.
pub(crate) fn masked(opcode: u8, payload: &[u8], mask: [u8; 4]) -> BytesMut {
    let mut frame = head(opcode, payload.len());
    frame[1] |= MASKED;
    frame.extend_from_slice(&mask);
    let at = frame.len();
    frame.extend_from_slice(payload);
    unmask(&mut frame[at..], mask);
    frame
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut whole = bytes.chunks_exact_mut(4);
    for chunk in &mut whole {
        for (byte, key) in chunk.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in whole.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// The head of a whole message of `length` bytes.
pub(crate) fn message(text: bool, length: usize) -> BytesMut {
    head(if text { TEXT } else { BINARY }, length)
}

pub(crate) fn ping(out: &mut BytesMut) {
    out.extend_from_slice(&head(PING, 0));
}

pub(crate) fn pong(out: &mut BytesMut, payload: &[u8]) {
    out.extend_from_slice(&head(PONG, payload.len()));
    out.extend_from_slice(payload);
}

pub(crate) fn close(out: &mut BytesMut, code: u16) {
    out.extend_from_slice(&head(CLOSE, 2));
    out.put_u16(code);
}

fn head(opcode: u8, length: usize) -> BytesMut {
    let mut head = BytesMut::with_capacity(16);
    head.put_u8(FIN | opcode);
    match length {
        0..=125 => head.put_u8(length as u8),
        126..=0xffff => {
            head.put_u8(126);
            head.put_u16(length as u16);
        }
        _ => {
            head.put_u8(127);
            head.put_u64(length as u64);
        }
    }
    head
}
