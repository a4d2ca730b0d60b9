//! Digests of bytes as they pass.

use model::digest::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};

/// One of the hash functions that digests name.
pub enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// SHA-256, which everything that is named here for the first time is named by.
    pub fn new() -> Hasher {
        Hasher::Sha256(Sha256::new())
    }

    /// The hash function of a digest.
    pub fn like(like: &Digest) -> Hasher {
        match like.algorithm() {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hash) => hash.update(bytes),
            Hasher::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all bytes.
    pub fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hash) => Digest::sha256(hash.finalize().into()),
            Hasher::Sha512(hash) => Digest::sha512(hash.finalize().into()),
        }
    }
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher::new()
    }
}
