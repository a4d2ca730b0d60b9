//! Signature packets of version 4 (RFC 9580, section 5.2).

use super::crypto::{Hash, Material};

/// What is signed, by number (RFC 9580, section 5.2.1).
pub(super) const BINARY: u8 = 0x00;
pub(super) const TEXT: u8 = 0x01;
pub(super) const SUBKEY_BINDING: u8 = 0x18;
pub(super) const PRIMARY_KEY_BINDING: u8 = 0x19;
pub(super) const DIRECT_KEY: u8 = 0x1f;
pub(super) const KEY_REVOCATION: u8 = 0x20;
pub(super) const SUBKEY_REVOCATION: u8 = 0x28;
pub(super) const CERTIFICATION_REVOCATION: u8 = 0x30;

/// A signature, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) kind: u8,
    algorithm: u8,
    pub(super) hash: Option<Hash>,
    hash_number: u8,
    /// From the version to the end of the hashed subpackets.
    head: Vec<u8>,
    numbers: Vec<u8>,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// Seconds after its creation.
    pub(super) expires_after: Option<u64>,
    /// Seconds after the key's creation.
    pub(super) key_expires_after: Option<u64>,
    pub(super) key_flags: Option<u8>,
    /// The last eight bytes of the fingerprint of who made it, as it says itself.
    pub(super) issuer: Option<[u8; 8]>,
    pub(super) embedded: Option<Box<Signature>>,
    /// It demands that something is understood which is not.
    is_beyond: bool,
}

const CUT: &str = "a signature is cut off";

impl Signature {
    /// Reads one. `None` for versions other than 4, which nobody here can verify.
    pub(super) fn read(body: &[u8]) -> Result<Option<Signature>, &'static str> {
        Signature::read_at(body, 0)
    }

    fn read_at(body: &[u8], depth: u8) -> Result<Option<Signature>, &'static str> {
        if body.first() != Some(&4) {
            return Ok(None);
        }
        let &[_, kind, algorithm, hash_number, high, low, ..] = body else { return Err(CUT) };
        let hashed_length = usize::from(u16::from_be_bytes([high, low]));
        let (head, rest) = body.split_at_checked(6 + hashed_length).ok_or(CUT)?;
        let (unhashed_length, rest) = rest.split_first_chunk::<2>().ok_or(CUT)?;
        let (unhashed, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*unhashed_length))).ok_or(CUT)?;
        // Two bytes of the hash, for those who want to fail early.
        let numbers = rest.get(2..).ok_or(CUT)?.to_vec();
        let mut signature = Signature {
            kind,
            algorithm,
            hash: Hash::of(hash_number),
            hash_number,
            head: head.to_vec(),
            numbers,
            created: 0,
            expires_after: None,
            key_expires_after: None,
            key_flags: None,
            issuer: None,
            embedded: None,
            is_beyond: false,
        };
        signature.subpackets(&head[6..], true, depth)?;
        signature.subpackets(unhashed, false, depth)?;
        Ok(Some(signature))
    }

    /// Takes what counts. Outside of what is hashed anybody may write, so that only hints, and what proves itself, are taken from there.
    fn subpackets(&mut self, mut bytes: &[u8], is_hashed: bool, depth: u8) -> Result<(), &'static str> {
        while let Some((&first, rest)) = bytes.split_first() {
            let (length, rest) = match first {
                0..192 => (usize::from(first), rest),
                192..255 => {
                    let (&second, rest) = rest.split_first().ok_or(CUT)?;
                    (((usize::from(first) - 192) << 8) + usize::from(second) + 192, rest)
                }
                255 => {
                    let (digits, rest) = rest.split_first_chunk::<4>().ok_or(CUT)?;
                    (u32::from_be_bytes(*digits) as usize, rest)
                }
            };
            let (subpacket, rest) = rest.split_at_checked(length).ok_or(CUT)?;
            bytes = rest;
            let (&kind, value) = subpacket.split_first().ok_or(CUT)?;
            self.subpacket(kind & 0x7f, kind & 0x80 != 0, value, is_hashed, depth)?;
        }
        Ok(())
    }

    fn subpacket(
        &mut self,
        kind: u8,
        is_critical: bool,
        value: &[u8],
        is_hashed: bool,
        depth: u8,
    ) -> Result<(), &'static str> {
        let seconds = || -> Result<u64, &'static str> {
            let digits: [u8; 4] = value.try_into().map_err(|_| "a time in a signature has a wrong length")?;
            Ok(u64::from(u32::from_be_bytes(digits)))
        };
        match kind {
            16 => self.issuer = value.try_into().ok().or(self.issuer),
            // Version 4 and a fingerprint.
            33 if value.len() == 21 => self.issuer = value.last_chunk::<8>().copied(),
            32 if depth == 0 => self.embedded = Signature::read_at(value, depth + 1)?.map(Box::new),
            _ if !is_hashed => {}
            2 => self.created = seconds()?,
            // Zero is never.
            3 => self.expires_after = Some(seconds()?).filter(|&after| after > 0),
            9 => self.key_expires_after = Some(seconds()?).filter(|&after| after > 0),
            27 => self.key_flags = Some(value.first().copied().unwrap_or(0)),
            // Preferences, reasons, policies, who else may revoke: they do not change whether it is valid.
            4 | 5 | 7 | 11 | 12 | 20..=31 | 33..=39 if !(is_critical && matches!(kind, 5 | 20 | 37..=39)) => {
            }
            _ => self.is_beyond |= is_critical,
        }
        Ok(())
    }

    /// Whether it is by `key` over `message`, which has what this kind of signature covers, without the trailer.
    pub(super) fn is_by(&self, key: &Material, message: &[u8]) -> bool {
        let Some(hash) = self.hash.filter(|_| !self.is_beyond) else { return false };
        let mut whole = message.to_vec();
        whole.extend_from_slice(&self.head);
        whole.extend_from_slice(&[4, 0xff]);
        whole.extend_from_slice(&(self.head.len() as u32).to_be_bytes());
        key.verifies(self.algorithm, hash, &whole, &self.numbers)
    }

    /// What of it is not supported for a signature over data.
    pub(super) fn unsupported(&self) -> Option<String> {
        match (self.kind, self.hash) {
            (TEXT, _) => Some("kind (text, not binary)".to_owned()),
            (BINARY, Some(Hash::Sha1)) => Some("hash function, SHA-1, which is broken,".to_owned()),
            (BINARY, None) => Some(format!("hash function (number {})", self.hash_number)),
            (BINARY, _) if self.is_beyond => Some("critical subpacket".to_owned()),
            (BINARY, _) => None,
            (other, _) => Some(format!("kind (0x{other:02x})")),
        }
    }

    /// Whether it certifies a user id.
    pub(super) fn is_certification(&self) -> bool {
        (0x10..=0x13).contains(&self.kind)
    }

    /// Whether it counts at `now`.
    pub(super) fn is_current(&self, now: u64) -> bool {
        self.created <= now && self.expires_after.is_none_or(|after| self.created.saturating_add(after) > now)
    }
}
