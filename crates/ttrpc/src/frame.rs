//! ttrpc framing: a ten-byte header, then a protobuf message.
//!
//! Header, big endian: payload length (u32), stream id (u32), kind (u8), flags (u8), as containerd/ttrpc's PROTOCOL.md has it.

use prost::Message;

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 10;

/// The longest payload a peer may announce (ttrpc's own limit).
pub const MAX_PAYLOAD: usize = 4 << 20;

/// The sender will send no more on this stream.
pub const FLAG_REMOTE_CLOSED: u8 = 0x1;
/// The sender will send more on this stream.
pub const FLAG_REMOTE_OPEN: u8 = 0x2;
/// A data frame without data.
pub const FLAG_NO_DATA: u8 = 0x4;

/// A receive buffer larger than this is given back once it is empty.
const KEEP_CAPACITY: usize = 4096;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    Request,
    Response,
    Data,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            FrameKind::Request => 1,
            FrameKind::Response => 2,
            FrameKind::Data => 3,
        }
    }
}

/// Why bytes are no frame. After one the connection is lost: there is no way to find the next frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame announces {announced} bytes, more than the {MAX_PAYLOAD} a frame may have")]
    TooLong { announced: usize },
    #[error("a frame is of kind {kind}, which is neither request (1), response (2) nor data (3)")]
    UnknownKind { kind: u8 },
}

/// The first ten bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub length: u32,
    pub stream: u32,
    pub kind: FrameKind,
    pub flags: u8,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// The length is over the limit or the kind is not known.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, flags] = *bytes;
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong { announced: length as usize });
        }
        let kind = match kind {
            1 => FrameKind::Request,
            2 => FrameKind::Response,
            3 => FrameKind::Data,
            kind => return Err(FrameError::UnknownKind { kind }),
        };
        Ok(Header { length, stream: u32::from_be_bytes([s0, s1, s2, s3]), kind, flags })
    }

    /// The header as it goes over the wire.
    pub fn bytes(&self) -> [u8; HEADER_BYTES] {
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, l3, s0, s1, s2, s3, self.kind.byte(), self.flags]
    }
}

/// Appends one frame with `message` to `out`.
///
/// # Errors
/// The message is longer than a frame may be; `out` is unchanged then.
pub fn encode(
    out: &mut Vec<u8>,
    stream: u32,
    kind: FrameKind,
    message: &impl Message,
) -> Result<(), FrameError> {
    let length = message.encoded_len();
    if length > MAX_PAYLOAD {
        return Err(FrameError::TooLong { announced: length });
    }
    out.reserve(HEADER_BYTES + length);
    out.extend_from_slice(&Header { length: length as u32, stream, kind, flags: 0 }.bytes());
    // A Vec grows as needed, so this cannot fail.
    let _ = message.encode(out);
    Ok(())
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    pub stream: u32,
    pub kind: FrameKind,
    pub flags: u8,
    pub payload: &'a [u8],
}

/// Cuts received bytes into frames. It never holds more than one frame and one read.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were handed out.
    consumed: usize,
}

impl Decoder {
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes bytes in the order in which they arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.consumed > 0 {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_CAPACITY {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// The bytes are no frame; so will every later call say.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let rest = self.buffer.get(self.consumed..).unwrap_or_default();
        let Some((head, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::parse(head)?;
        let Some(payload) = rest.get(..header.length as usize) else {
            return Ok(None);
        };
        self.consumed += HEADER_BYTES + payload.len();
        Ok(Some(Frame { stream: header.stream, kind: header.kind, flags: header.flags, payload }))
    }

    /// Gives back the memory of a large frame once nothing is pending.
    pub fn shrink(&mut self) {
        if self.consumed == self.buffer.len() {
            self.consumed = 0;
            self.buffer.clear();
            if self.buffer.capacity() > KEEP_CAPACITY {
                self.buffer = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyValue, Request};
    use proptest::prelude::*;

    fn request() -> impl Strategy<Value = Request> {
        (".{0,20}", ".{0,20}", prop::collection::vec(any::<u8>(), 0..3000), any::<i64>(), ".{0,9}").prop_map(
            |(service, method, payload, timeout_nano, key)| Request {
                service,
                method,
                payload,
                timeout_nano,
                metadata: vec![KeyValue { key, value: "1".into() }],
            },
        )
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            requests in prop::collection::vec((any::<u32>(), request()), 0..8),
            cuts in prop::collection::vec(1usize..4000, 1..40),
        ) {
            let mut wire = Vec::new();
            for (stream, request) in &requests {
                encode(&mut wire, *stream, FrameKind::Request, request).unwrap();
            }
            let mut decoder = Decoder::new();
            let mut got = Vec::new();
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                decoder.feed(now);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    prop_assert_eq!(frame.kind, FrameKind::Request);
                    got.push((frame.stream, Request::decode(frame.payload).unwrap()));
                }
                decoder.shrink();
            }
            prop_assert_eq!(got, requests);
            prop_assert!(decoder.buffer.capacity() <= KEEP_CAPACITY);
        }

        #[test]
        fn garbage_never_panics_and_never_loops(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let total: usize = chunks.iter().map(Vec::len).sum();
            let mut decoder = Decoder::new();
            let mut frames = 0;
            'outer: for chunk in &chunks {
                decoder.feed(chunk);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => {
                            let _ = Request::decode(frame.payload);
                            frames += 1;
                        }
                        Ok(None) => break,
                        Err(first) => {
                            prop_assert_eq!(decoder.next_frame().unwrap_err(), first);
                            break 'outer;
                        }
                    }
                }
            }
            prop_assert!(frames * HEADER_BYTES <= total);
        }
    }

    #[test]
    fn limits_are_exact() {
        let header = |length: u32, kind: u8| {
            let [a, b, c, d] = length.to_be_bytes();
            Header::parse(&[a, b, c, d, 0, 0, 0, 9, kind, 0])
        };
        assert_eq!(header(4 << 20, 2).unwrap().stream, 9);
        assert_eq!(header((4 << 20) + 1, 2), Err(FrameError::TooLong { announced: (4 << 20) + 1 }));
        assert_eq!(header(0, 4), Err(FrameError::UnknownKind { kind: 4 }));
        let mut out = vec![7];
        let long = Request { payload: vec![0; MAX_PAYLOAD], ..Request::default() };
        assert!(encode(&mut out, 1, FrameKind::Request, &long).is_err());
        assert_eq!(out, [7]);
    }
}
