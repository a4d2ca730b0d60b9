//! Keyrings (RFC 9580, section 10.1): keys with their user ids and subkeys, and what the owner signed of them.

use std::fmt::Write as _;

use super::crypto::{Material, sha1};
use super::message::Signed;
use super::packet::{
    self, PUBLIC_KEY, PUBLIC_SUBKEY, Packet, SECRET_KEY, SIGNATURE, USER_ATTRIBUTE, USER_ID,
};
use super::signature::{
    CERTIFICATION_REVOCATION, DIRECT_KEY, KEY_REVOCATION, PRIMARY_KEY_BINDING, SUBKEY_BINDING,
    SUBKEY_REVOCATION, Signature,
};
use super::{BadKeyring, PgpError, armor};

/// "May sign data" among the key flags (RFC 9580, section 5.2.3.29).
const FLAG_SIGN: u8 = 0x02;

/// The keys whose signatures count.
#[derive(Debug, Clone)]
pub(crate) struct Keyring {
    keys: Vec<OwnedKey>,
}

/// One owner's key with its subkeys.
#[derive(Debug, Clone)]
struct OwnedKey {
    primary: Key,
    /// What the owner signed of the key itself or of a user id.
    own: Vec<Signature>,
    is_revoked: bool,
    subkeys: Vec<Subkey>,
}

#[derive(Debug, Clone)]
struct Subkey {
    key: Key,
    bindings: Vec<Signature>,
    is_revoked: bool,
}

#[derive(Debug, Clone)]
struct Key {
    material: Material,
    /// Seconds since 1970.
    created: u64,
    fingerprint: Vec<u8>,
    /// As it goes into signatures about it.
    hashed: Vec<u8>,
}

impl Key {
    fn read(body: &[u8]) -> Result<Key, &'static str> {
        let &[version, a, b, c, d, algorithm, ref rest @ ..] = body else { return Err("a key is cut off") };
        if version != 4 {
            return Err("a key is of a version other than 4");
        }
        let length = u16::try_from(body.len()).map_err(|_| "a key is too large")?;
        let hashed = [&[0x99], length.to_be_bytes().as_slice(), body].concat();
        Ok(Key {
            material: Material::read(algorithm, rest)?,
            created: u64::from(u32::from_be_bytes([a, b, c, d])),
            fingerprint: sha1(&hashed),
            hashed,
        })
    }

    fn id(&self) -> [u8; 8] {
        self.fingerprint.last_chunk::<8>().copied().unwrap_or_default()
    }

    fn name(&self) -> String {
        hex(&self.fingerprint)
    }

    fn is_expired(&self, by: &Signature, now: u64) -> bool {
        by.key_expires_after.is_some_and(|after| self.created.saturating_add(after) <= now)
    }
}

impl Keyring {
    /// Reads a keyring, binary or armored.
    pub(crate) fn read(bytes: &[u8]) -> Result<Keyring, BadKeyring> {
        let decoded = armor::decode(bytes);
        let packets = packet::all(decoded.as_deref().unwrap_or(bytes)).map_err(BadKeyring::Malformed)?;
        if packets.iter().any(|packet| packet.tag == SECRET_KEY) {
            return Err(BadKeyring::Secret);
        }
        let mut keys = Vec::new();
        let mut why_not = None;
        for packets in packets.chunk_by(|_, next| next.tag != PUBLIC_KEY) {
            match OwnedKey::read(packets) {
                Ok(key) => keys.push(key),
                Err(why) => why_not = Some(why),
            }
        }
        match (keys.is_empty(), why_not) {
            (false, _) => Ok(Keyring { keys }),
            (true, Some(why)) => Err(BadKeyring::Unusable(why.to_owned())),
            (true, None) => Err(BadKeyring::NoKey),
        }
    }

    /// Adds the keys of another.
    pub(crate) fn extend(&mut self, other: Keyring) {
        self.keys.extend(other.keys);
    }

    /// Whether one of the keys signed this, and was good for it.
    pub(super) fn verify(&self, signed: &Signed, now: u64) -> Result<(), PgpError> {
        let signature = &signed.signature;
        if let Some(what) = signature.unsupported() {
            return Err(PgpError::Unsupported(what));
        }
        let mut failure = None;
        for owned in &self.keys {
            let subkeys = owned.subkeys.iter().map(|subkey| (&subkey.key, Some(subkey)));
            for (key, subkey) in std::iter::once((&owned.primary, None)).chain(subkeys) {
                if signature.issuer.is_some_and(|issuer| issuer != key.id()) {
                    continue;
                }
                match check(owned, key, subkey, signed, now) {
                    Ok(()) => return Ok(()),
                    Err(why) => failure = Some(why),
                }
            }
        }
        let issuer = || signature.issuer.map_or_else(|| "without a name".to_owned(), |id| hex(&id));
        Err(failure.unwrap_or_else(|| PgpError::UnknownKey(issuer())))
    }
}

/// The signature first, so that what is said of a key concerns one that really made it.
fn check(
    owned: &OwnedKey,
    key: &Key,
    subkey: Option<&Subkey>,
    signed: &Signed,
    now: u64,
) -> Result<(), PgpError> {
    if let Material::Other(what) = key.material {
        return Err(PgpError::Unsupported(format!("key ({what})")));
    }
    let signature = &signed.signature;
    if !signature.is_by(&key.material, &signed.content) {
        return Err(PgpError::Wrong(key.name()));
    }
    if owned.is_revoked || subkey.is_some_and(|subkey| subkey.is_revoked) {
        return Err(PgpError::KeyRevoked(key.name()));
    }
    let own = owned.newest(now).ok_or_else(|| PgpError::KeyExpired(key.name()))?;
    let by = match subkey {
        None => own,
        Some(subkey) => newest(&subkey.bindings, now).ok_or_else(|| PgpError::KeyExpired(key.name()))?,
    };
    if owned.primary.is_expired(own, now) || key.is_expired(by, now) {
        return Err(PgpError::KeyExpired(key.name()));
    }
    let may_sign = match (by.key_flags, subkey) {
        (Some(flags), _) => flags & FLAG_SIGN != 0,
        // Keys older than the flags sign; of a subkey it has to be said.
        (None, None) => true,
        (None, Some(_)) => false,
    };
    let proves = |subkey: &Subkey| {
        let covered = [owned.primary.hashed.as_slice(), &subkey.key.hashed].concat();
        by.embedded.as_ref().is_some_and(|back| {
            back.kind == PRIMARY_KEY_BINDING && back.is_by(&subkey.key.material, &covered)
        })
    };
    // A subkey that signs has to say itself whose it is, or somebody could adopt another's.
    if !may_sign || subkey.is_some_and(|subkey| !proves(subkey)) {
        return Err(PgpError::NotForSigning(key.name()));
    }
    if signature.created > now {
        return Err(PgpError::InFuture { ahead_secs: signature.created - now });
    }
    if signature.created < key.created {
        return Err(PgpError::Wrong(key.name()));
    }
    match signature.expires_after.map(|after| signature.created.saturating_add(after)) {
        Some(end) if end <= now => Err(PgpError::Expired { ago_secs: now - end }),
        _ => Ok(()),
    }
}

impl OwnedKey {
    /// A public key packet and everything up to the next one. Signatures that are not the owner's, or not valid, are left out.
    fn read(packets: &[Packet<'_>]) -> Result<OwnedKey, &'static str> {
        let (first, rest) = packets.split_first().ok_or("it is empty")?;
        if first.tag != PUBLIC_KEY {
            return Err("it does not begin with a public key");
        }
        let primary = Key::read(&first.body)?;
        let mut owned = OwnedKey { primary, own: Vec::new(), is_revoked: false, subkeys: Vec::new() };
        // What the signatures that follow are about.
        let mut about = About::Key;
        for packet in rest {
            match packet.tag {
                USER_ID => about = About::User(hashed_user(0xb4, &packet.body)),
                USER_ATTRIBUTE => about = About::User(hashed_user(0xd1, &packet.body)),
                PUBLIC_SUBKEY => {
                    about = match Key::read(&packet.body) {
                        Ok(key) => {
                            owned.subkeys.push(Subkey { key, bindings: Vec::new(), is_revoked: false });
                            About::Subkey
                        }
                        Err(_) => About::Nothing,
                    }
                }
                SIGNATURE => {
                    if let Ok(Some(signature)) = Signature::read(&packet.body) {
                        owned.take(signature, &about);
                    }
                }
                // Trust packets of GnuPG, padding.
                _ => {}
            }
        }
        match owned.own.is_empty() {
            true => Err(
                "a key has no valid signature of its owner (one of at least 2048 bits, with SHA-1 or SHA-2)",
            ),
            false => Ok(owned),
        }
    }

    fn take(&mut self, signature: Signature, about: &About) {
        let key = &self.primary;
        let by_owner = |covered: &[&[u8]]| signature.is_by(&key.material, &covered.concat());
        match about {
            About::Key if signature.kind == KEY_REVOCATION => self.is_revoked |= by_owner(&[&key.hashed]),
            About::Key if signature.kind == DIRECT_KEY => {
                if by_owner(&[&key.hashed]) {
                    self.own.push(signature);
                }
            }
            About::User(user) if signature.is_certification() => {
                if by_owner(&[&key.hashed, user]) {
                    self.own.push(signature);
                }
            }
            // A user id that was taken back no longer vouches for the key; its certifications came before.
            About::User(user) if signature.kind == CERTIFICATION_REVOCATION => {
                if by_owner(&[&key.hashed, user]) {
                    let covered = [key.hashed.as_slice(), user].concat();
                    let material = key.material.clone();
                    self.own.retain(|own| {
                        own.created > signature.created
                            || !own.is_certification()
                            || !own.is_by(&material, &covered)
                    });
                }
            }
            About::Subkey => {
                let Some(subkey) = self.subkeys.last_mut() else { return };
                let covered = [key.hashed.as_slice(), &subkey.key.hashed];
                match signature.kind {
                    SUBKEY_BINDING if by_owner(&covered) => subkey.bindings.push(signature),
                    SUBKEY_REVOCATION => subkey.is_revoked |= by_owner(&covered),
                    _ => {}
                }
            }
            About::Key | About::User(_) | About::Nothing => {}
        }
    }

    /// What the owner said last.
    fn newest(&self, now: u64) -> Option<&Signature> {
        newest(&self.own, now)
    }
}

fn newest(signatures: &[Signature], now: u64) -> Option<&Signature> {
    signatures.iter().filter(|signature| signature.is_current(now)).max_by_key(|signature| signature.created)
}

enum About {
    Key,
    /// A user id as it goes into signatures.
    User(Vec<u8>),
    /// The last of the subkeys.
    Subkey,
    /// Something that was left out.
    Nothing,
}

fn hashed_user(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], (body.len() as u32).to_be_bytes().as_slice(), body].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
