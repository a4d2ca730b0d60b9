//! Several connections over one socket, as NRI does it: an eight-byte header (connection, length; big endian), then bytes of that connection.

/// Bytes before a frame's payload.
pub(crate) const HEADER_BYTES: usize = 8;

/// The longest payload that a frame may announce: one ttrpc frame.
pub(crate) const MAX_PAYLOAD: usize = ttrpc::HEADER_BYTES + ttrpc::MAX_PAYLOAD;

/// The usual plugin reads through a buffer of this size, and loses its connection over a frame that does not fit what it has room for.
const PEER_BUFFER: usize = 4096;

/// The connections of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// The plugin serves, the runtime calls.
    Plugin,
    /// The runtime serves, the plugin calls.
    Runtime,
    /// One that NRI does not know; what comes on it is dropped.
    Other,
}

impl Channel {
    fn number(self) -> u32 {
        match self {
            Channel::Plugin => 1,
            Channel::Runtime => 2,
            Channel::Other => 0,
        }
    }
}

/// A frame announces more than one may have: nothing behind it can be found any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong(pub(crate) usize);

/// Reads a header: whose bytes follow, and how many.
pub(crate) fn parse(header: [u8; HEADER_BYTES]) -> Result<(Channel, usize), TooLong> {
    let [c0, c1, c2, c3, l0, l1, l2, l3] = header;
    let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD {
        return Err(TooLong(length));
    }
    let channel = match u32::from_be_bytes([c0, c1, c2, c3]) {
        1 => Channel::Plugin,
        2 => Channel::Runtime,
        _ => Channel::Other,
    };
    Ok((channel, length))
}

/// One message as it goes over the socket. Its first frame fills the peer's read buffer at most; the peer reads the rest, however much,
/// in one piece.
pub(crate) fn wrap(channel: Channel, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 2 * HEADER_BYTES);
    let (first, rest) = message.split_at(message.len().min(PEER_BUFFER));
    for piece in [first, rest].into_iter().filter(|piece| !piece.is_empty()) {
        out.extend_from_slice(&channel.number().to_be_bytes());
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes());
        out.extend_from_slice(piece);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Takes frames apart again.
    fn unwrap(mut wire: &[u8]) -> Vec<(Channel, Vec<u8>)> {
        let mut frames = Vec::new();
        while let Some((header, rest)) = wire.split_first_chunk::<HEADER_BYTES>() {
            let (channel, length) = parse(*header).unwrap();
            frames.push((channel, rest[..length].to_vec()));
            wire = &rest[length..];
        }
        assert!(wire.is_empty());
        frames
    }

    proptest! {
        #[test]
        fn a_message_comes_through(length in 0usize..20_000) {
            let message: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let frames = unwrap(&wrap(Channel::Plugin, &message));
            prop_assert!(frames.len() <= 2);
            prop_assert!(frames.iter().all(|(channel, _)| *channel == Channel::Plugin));
            prop_assert!(frames.first().is_none_or(|(_, bytes)| bytes.len() <= PEER_BUFFER));
            prop_assert_eq!(frames.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>(), message);
        }

        #[test]
        fn any_header_is_judged(header: [u8; 8]) {
            if let Ok((_, length)) = parse(header) {
                prop_assert!(length <= MAX_PAYLOAD);
            }
        }
    }

    #[test]
    fn the_longest_is_exact() {
        let header = |length: u32| {
            let [a, b, c, d] = length.to_be_bytes();
            [0, 0, 0, 2, a, b, c, d]
        };
        assert_eq!(parse(header(MAX_PAYLOAD as u32)), Ok((Channel::Runtime, MAX_PAYLOAD)));
        assert_eq!(parse(header(MAX_PAYLOAD as u32 + 1)), Err(TooLong(MAX_PAYLOAD + 1)));
        assert_eq!(parse([0; 8]), Ok((Channel::Other, 0)));
    }
}
