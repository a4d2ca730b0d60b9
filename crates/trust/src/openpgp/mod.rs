//! OpenPGP (RFC 4880, RFC 9580) as far as signed images need it: keyrings of version 4 keys, and messages with one signature by one of them.
//!
//! Cryptography is `ring`'s. What is not needed is refused by name: encryption, versions 3 and 6, DSA, text signatures.

mod armor;
mod crypto;
mod keyring;
mod message;
mod packet;
mod signature;

use std::time::SystemTime;

pub(crate) use keyring::Keyring;

/// Why some bytes are no usable keyring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeyring {
    #[error("it has no OpenPGP public key")]
    NoKey,
    #[error("it has a secret key; export the public one (gpg --export)")]
    Secret,
    #[error("it is not an OpenPGP keyring: {0}")]
    Malformed(&'static str),
    #[error("none of its keys can be used: {0}")]
    Unusable(String),
}

/// Why a signed message is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PgpError {
    #[error("it is not an OpenPGP signed message: {0}")]
    NotSigned(&'static str),
    #[error("its {0} is not supported")]
    Unsupported(String),
    #[error("it is by key {0}, which is not among those of the policy")]
    UnknownKey(String),
    #[error("key {0} did not make it, or it was changed since")]
    Wrong(String),
    #[error("it expired {ago_secs} s ago")]
    Expired { ago_secs: u64 },
    #[error("it is from {ahead_secs} s in the future; is a clock wrong?")]
    InFuture { ahead_secs: u64 },
    #[error("key {0} has expired")]
    KeyExpired(String),
    #[error("key {0} was revoked")]
    KeyRevoked(String),
    #[error("key {0} is not one for signing")]
    NotForSigning(String),
}

/// What a message says, once it is certain that a key of `keyring` signed exactly this, and may have now.
pub(crate) fn verify(keyring: &Keyring, message: &[u8], now: SystemTime) -> Result<Vec<u8>, PgpError> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let signed = message::read(message)?;
    keyring.verify(&signed, now)?;
    Ok(signed.content)
}

/// Reads a message without verifying it: for fuzzing.
pub(crate) fn read_message(message: &[u8]) {
    let _ = message::read(message);
}
