//! Entries for fuzzing: everything here that reads bytes of strangers. None may panic, whatever it is given.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::bundle::Bundle;
use crate::lookaside::Registries;
use crate::openpgp::{self, Keyring};
use crate::payload::{self, Format};
use crate::policy::Policy;
use crate::rekor::Entry;
use crate::{Signature, key};

/// Reads `bytes` as a policy, and as a file of registries.d.
pub fn policy(bytes: &[u8]) {
    let _ = Policy::parse(Path::new("policy.json"), bytes);
    let _ = Registries::default().add(bytes);
}

/// Reads `bytes` as each form of signature, and as each kind of key.
pub fn signature(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    if let Ok(keyring) = Keyring::read(bytes) {
        let _ = openpgp::verify(&keyring, bytes, now);
    }
    openpgp::read_message(bytes);
    let _ = payload::read(Format::Simple, bytes);
    let _ = payload::read(Format::Cosign, bytes);
    let _ = Signature::from_lookaside(bytes.to_vec());
    if let Ok(bundle) = Bundle::read(bytes) {
        let _ = bundle.claims();
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Entry::read(text).map(|entry| entry.promised());
    }
    let _ = key::PublicKey::from_pem(bytes);
    let _ = key::PublicKey::from_info(bytes);
    crate::certificate::read(bytes);
}
