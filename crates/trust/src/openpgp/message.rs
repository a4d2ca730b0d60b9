//! Signed messages (RFC 9580, section 10.3): one signature, one text, perhaps compressed.

use std::io::{self, Read};

use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use super::PgpError;
use super::packet::{self, COMPRESSED, LITERAL, ONE_PASS_SIGNATURE, Packet, SIGNATURE};
use super::signature::Signature;

/// More than this nobody signs about an image.
const CONTENT_MAX: u64 = 1 << 20;

/// A message, not verified.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) content: Vec<u8>,
    pub(super) signature: Signature,
}

/// Reads a message.
pub(super) fn read(bytes: &[u8]) -> Result<Signed, PgpError> {
    let packets = packet::all(bytes).map_err(PgpError::NotSigned)?;
    match packets.as_slice() {
        [packet] if packet.tag == COMPRESSED => {
            let inside = decompress(&packet.body)?;
            signed(&packet::all(&inside).map_err(PgpError::NotSigned)?)
        }
        packets => signed(packets),
    }
}

fn decompress(body: &[u8]) -> Result<Vec<u8>, PgpError> {
    let (&algorithm, data) = body.split_first().ok_or(PgpError::NotSigned("a packet is cut off"))?;
    let mut inside = Vec::new();
    let left = match algorithm {
        0 => read_some(data, &mut inside).map(|_| &[][..]),
        1 => read_some(DeflateDecoder::new(data), &mut inside).map(DeflateDecoder::into_inner),
        2 => read_some(ZlibDecoder::new(data), &mut inside).map(ZlibDecoder::into_inner),
        _ => return Err(PgpError::Unsupported(format!("compression (number {algorithm})"))),
    };
    let left = left.map_err(|_| PgpError::NotSigned("its compressed data is damaged"))?;
    if inside.len() as u64 > CONTENT_MAX {
        return Err(PgpError::NotSigned("it is too large"));
    }
    if !left.is_empty() {
        return Err(PgpError::NotSigned("something follows it"));
    }
    Ok(inside)
}

/// Reads what a message may have, and a byte more.
fn read_some<R: Read>(mut from: R, into: &mut Vec<u8>) -> io::Result<R> {
    from.by_ref().take(CONTENT_MAX + 1).read_to_end(into)?;
    Ok(from)
}

/// Exactly one signature around exactly one text: with more, it would not be clear who signed what.
fn signed(packets: &[Packet<'_>]) -> Result<Signed, PgpError> {
    let (literal, signature) = match packets {
        [one_pass, literal, signature]
            if (one_pass.tag, literal.tag, signature.tag) == (ONE_PASS_SIGNATURE, LITERAL, SIGNATURE) =>
        {
            (literal, signature)
        }
        [signature, literal] if (signature.tag, literal.tag) == (SIGNATURE, LITERAL) => (literal, signature),
        [literal] if literal.tag == LITERAL => return Err(PgpError::NotSigned("it has no signature")),
        [signature] if signature.tag == SIGNATURE => {
            return Err(PgpError::NotSigned("it is a detached signature, without what is signed"));
        }
        _ => return Err(PgpError::NotSigned("it is not one signature around one text")),
    };
    let signature = Signature::read(&signature.body).map_err(PgpError::NotSigned)?;
    let signature = signature.ok_or_else(|| PgpError::Unsupported("signature's version".to_owned()))?;
    // Its format, and a file name and date, which are not signed.
    let (_, rest) = literal.body.split_first().ok_or(PgpError::NotSigned("its text is cut off"))?;
    let content = rest
        .split_first()
        .and_then(|(&length, rest)| rest.get(usize::from(length) + 4..))
        .ok_or(PgpError::NotSigned("its text is cut off"))?;
    Ok(Signed { content: content.to_vec(), signature })
}
