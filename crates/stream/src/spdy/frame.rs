//! Frames of SPDY/3: what the bytes on the wire say. Pure but for the state of the header compression.

use bytes::{Buf, BufMut, BytesMut};

use super::headers::{Headers, Inflater};

/// The version in every control frame; 3.1 differs from 3 in the session's window only.
const VERSION: u16 = 3;
/// A control frame's payload may be this long: a few headers are a few hundred bytes.
pub(crate) const MAX_CONTROL: u32 = 64 * 1024;
/// The length of a frame's head.
pub(crate) const HEAD: usize = 8;
/// The largest window, and the largest identifier.
pub(crate) const MAX_31: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const INITIAL_WINDOW_SIZE: u32 = 7;

/// What a client sent is no SPDY/3.1, or more than it may be. It ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("a control frame of SPDY version {0}")]
    Version(u16),
    #[error("a control frame of {0} bytes")]
    TooLong(u32),
    #[error("a frame of type {0} whose length or flags are wrong")]
    Shape(u16),
    #[error("a header block that does not inflate")]
    Compression,
    #[error("a header block of too many bytes")]
    BlockTooLarge,
    #[error("a header block whose parts do not add up")]
    Headers,
    #[error("a stream with the identifier {0}")]
    Identifier(u32),
    #[error("a window that grows past its end")]
    Window,
}

/// Why a stream ends at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reset {
    Refused = 3,
    Cancel = 5,
    FlowControl = 7,
}

/// The first eight bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    Data { stream: u32, fin: bool, length: u32 },
    Control { kind: u16, flags: u8, length: u32 },
}

impl Head {
    pub(crate) fn parse(bytes: &[u8; HEAD]) -> Result<Head, Broken> {
        let mut bytes = &bytes[..];
        let first = bytes.get_u32();
        let second = bytes.get_u32();
        let (flags, length) = ((second >> 24) as u8, second & 0x00ff_ffff);
        if first & 0x8000_0000 == 0 {
            return Ok(Head::Data { stream: first, fin: flags & FIN != 0, length });
        }
        let version = (first >> 16) as u16 & 0x7fff;
        if version != VERSION {
            return Err(Broken::Version(version));
        }
        if length > MAX_CONTROL {
            return Err(Broken::TooLong(length));
        }
        Ok(Head::Control { kind: first as u16, flags, length })
    }
}

/// A control frame that a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Control {
    /// A new stream. With `fin` the client sends nothing on it; a `unidirectional` one carries nothing back.
    SynStream {
        stream: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    },
    RstStream {
        stream: u32,
    },
    /// What each stream's window to the client begins with, if that was among the settings.
    Settings {
        initial_window: Option<u32>,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// More headers, or the answer to a stream that nobody opened: of both only the end of the stream matters.
    Headers {
        stream: u32,
        fin: bool,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    /// Of a type that is not known; it is to be passed over.
    Unknown,
}

/// What is remembered from frame to frame.
pub(crate) struct Decoder {
    inflater: Inflater,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { inflater: Inflater::new() }
    }

    /// The control frame with this head and this (whole) payload.
    pub(crate) fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) -> Result<Control, Broken> {
        let shape = Broken::Shape(kind);
        let mut rest = payload;
        let number = |rest: &mut &[u8]| rest.try_get_u32().map_err(|_| shape);
        let fin = flags & FIN != 0;
        let control = match kind {
            SYN_STREAM => {
                let stream = number(&mut rest)? & MAX_31;
                let _associated_to = number(&mut rest)?;
                // Priority and credential slot.
                rest.try_get_u16().map_err(|_| shape)?;
                let headers = self.inflater.headers(std::mem::take(&mut rest))?;
                Control::SynStream { stream, fin, unidirectional: flags & UNIDIRECTIONAL != 0, headers }
            }
            SYN_REPLY | HEADERS => {
                let stream = number(&mut rest)? & MAX_31;
                self.inflater.headers(std::mem::take(&mut rest))?;
                Control::Headers { stream, fin }
            }
            RST_STREAM => {
                let stream = number(&mut rest)? & MAX_31;
                let _status = number(&mut rest)?;
                Control::RstStream { stream }
            }
            SETTINGS => settings(&mut rest).ok_or(shape)?,
            PING => Control::Ping { id: number(&mut rest)? },
            GOAWAY => {
                let (_last_good, _status) = (number(&mut rest)?, number(&mut rest)?);
                Control::GoAway
            }
            WINDOW_UPDATE => Control::WindowUpdate {
                stream: number(&mut rest)? & MAX_31,
                delta: number(&mut rest)? & MAX_31,
            },
            _ => return Ok(Control::Unknown),
        };
        if rest.is_empty() { Ok(control) } else { Err(shape) }
    }
}

fn settings(rest: &mut &[u8]) -> Option<Control> {
    let count = rest.try_get_u32().ok()? as usize;
    if rest.len() != count.checked_mul(8)? {
        return None;
    }
    let mut initial_window = None;
    for _ in 0..count {
        let id = rest.try_get_u32().ok()? & 0x00ff_ffff;
        let value = rest.try_get_u32().ok()?;
        if id == INITIAL_WINDOW_SIZE {
            initial_window = Some(value);
        }
    }
    Some(Control::Settings { initial_window })
}

/// The head of a data frame.
pub(crate) fn data(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&stream.to_be_bytes());
    head[4..].copy_from_slice(&(length as u32 & 0x00ff_ffff).to_be_bytes());
    head[4] = if fin { FIN } else { 0 };
    head
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, payload: &[&[u8]]) {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
    payload.iter().for_each(|part| out.put_slice(part));
}

/// Takes a stream. `block` is its compressed headers.
pub(crate) fn syn_reply(out: &mut BytesMut, stream: u32, block: &[u8]) {
    control(out, SYN_REPLY, 0, &[&stream.to_be_bytes(), block]);
}

pub(crate) fn rst_stream(out: &mut BytesMut, stream: u32, why: Reset) {
    control(out, RST_STREAM, 0, &[&stream.to_be_bytes(), &(why as u32).to_be_bytes()]);
}

/// Tells the client what it may send on each stream before it hears of more.
pub(crate) fn settings_window(out: &mut BytesMut, window: u32) {
    let parts = [1u32.to_be_bytes(), INITIAL_WINDOW_SIZE.to_be_bytes(), window.to_be_bytes()];
    control(out, SETTINGS, 0, &[parts.as_flattened()]);
}

pub(crate) fn ping(out: &mut BytesMut, id: u32) {
    control(out, PING, 0, &[&id.to_be_bytes()]);
}

/// The end of the connection: in peace, or because of what the client did.
pub(crate) fn goaway(out: &mut BytesMut, last_good: u32, protocol_error: bool) {
    control(out, GOAWAY, 0, &[&last_good.to_be_bytes(), &u32::from(protocol_error).to_be_bytes()]);
}

pub(crate) fn window_update(out: &mut BytesMut, stream: u32, delta: u32) {
    control(out, WINDOW_UPDATE, 0, &[&stream.to_be_bytes(), &delta.to_be_bytes()]);
}
