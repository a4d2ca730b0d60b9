//! Packets (RFC 9580, section 4): a tag and a body.

use std::borrow::Cow;

pub(super) const SIGNATURE: u8 = 2;
pub(super) const ONE_PASS_SIGNATURE: u8 = 4;
pub(super) const SECRET_KEY: u8 = 5;
pub(super) const PUBLIC_KEY: u8 = 6;
pub(super) const COMPRESSED: u8 = 8;
pub(super) const LITERAL: u8 = 11;
pub(super) const USER_ID: u8 = 13;
pub(super) const PUBLIC_SUBKEY: u8 = 14;
pub(super) const USER_ATTRIBUTE: u8 = 17;

/// One packet.
#[derive(Debug, Clone)]
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: Cow<'a, [u8]>,
}

/// Takes the next packet off `bytes`; `None` at the end.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Packet<'a>>, &'static str> {
    let Some((&head, rest)) = bytes.split_first() else { return Ok(None) };
    if head & 0x80 == 0 {
        return Err("there is no packet where one should be");
    }
    *bytes = rest;
    let is_new = head & 0x40 != 0;
    let (tag, body) =
        if is_new { (head & 0x3f, new_body(bytes)?) } else { (head >> 2 & 15, old_body(head & 3, bytes)?) };
    Ok(Some(Packet { tag, body }))
}

/// All packets.
pub(super) fn all(mut bytes: &[u8]) -> Result<Vec<Packet<'_>>, &'static str> {
    let mut packets = Vec::new();
    while let Some(packet) = next(&mut bytes)? {
        packets.push(packet);
    }
    Ok(packets)
}

const CUT: &str = "a packet is cut off";

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], &'static str> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &mut &[u8], digits: usize) -> Result<usize, &'static str> {
    Ok(take(bytes, digits)?.iter().fold(0, |sum, &digit| (sum << 8) | usize::from(digit)))
}

fn old_body<'a>(length_type: u8, bytes: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, &'static str> {
    let length = match length_type {
        0 => number(bytes, 1)?,
        1 => number(bytes, 2)?,
        2 => number(bytes, 4)?,
        // To the end of what there is.
        _ => bytes.len(),
    };
    take(bytes, length).map(Cow::Borrowed)
}

fn new_body<'a>(bytes: &mut &'a [u8]) -> Result<Cow<'a, [u8]>, &'static str> {
    let mut parts: Option<Vec<u8>> = None;
    loop {
        let first = number(bytes, 1)?;
        let (length, is_last) = match first {
            0..192 => (first, true),
            192..224 => (((first - 192) << 8) + number(bytes, 1)? + 192, true),
            224..255 => (1 << (first & 31), false),
            _ => (number(bytes, 4)?, true),
        };
        let part = take(bytes, length)?;
        match (&mut parts, is_last) {
            (None, true) => return Ok(Cow::Borrowed(part)),
            (None, false) => parts = Some(part.to_vec()),
            (Some(whole), _) => whole.extend_from_slice(part),
        }
        if let (Some(whole), true) = (&mut parts, is_last) {
            return Ok(Cow::Owned(std::mem::take(whole)));
        }
    }
}

/// A multiprecision integer: a count of bits and the bytes, the highest first, without leading zeros.
pub(super) fn mpi<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], &'static str> {
    let bits = number(bytes, 2)?;
    let digits = take(bytes, bits.div_ceil(8))?;
    let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
    Ok(&digits[zeros..])
}

/// `digits` with zeros before them up to `length`; `None` if they are more.
pub(super) fn padded(digits: &[u8], length: usize) -> Option<Vec<u8>> {
    let zeros = length.checked_sub(digits.len())?;
    Some([vec![0; zeros].as_slice(), digits].concat())
}
