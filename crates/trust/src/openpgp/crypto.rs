//! Keys and signatures as `ring` takes them.

use ring::digest;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};

use super::packet::{mpi, padded};

/// What a key can verify with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The point, uncompressed.
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    /// It encrypts, or is of a kind that is not supported: its name.
    Other(&'static str),
}

/// The hash functions that signatures may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    /// Only between the parts of one key, which the administrator chose: many old ones have it.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(super) fn of(number: u8) -> Option<Hash> {
        match number {
            2 => Some(Hash::Sha1),
            8 => Some(Hash::Sha256),
            9 => Some(Hash::Sha384),
            10 => Some(Hash::Sha512),
            _ => None,
        }
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
        }
    }
}

const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

impl Material {
    /// The algorithm-specific part of a public key (RFC 9580, section 5.5.5).
    pub(super) fn read(algorithm: u8, mut bytes: &[u8]) -> Result<Material, &'static str> {
        match algorithm {
            1 | 3 => {
                let modulus = mpi(&mut bytes)?.to_vec();
                Ok(Material::Rsa { modulus, exponent: mpi(&mut bytes)?.to_vec() })
            }
            19 | 22 => {
                let (&length, rest) = bytes.split_first().ok_or("a key is cut off")?;
                let (curve, mut rest) =
                    rest.split_at_checked(usize::from(length)).ok_or("a key is cut off")?;
                let point = mpi(&mut rest)?;
                Ok(match (algorithm, curve, point) {
                    (19, P256, [4, coordinates @ ..]) if coordinates.len() == 64 => {
                        Material::P256(point.to_vec())
                    }
                    (19, P384, [4, coordinates @ ..]) if coordinates.len() == 96 => {
                        Material::P384(point.to_vec())
                    }
                    (22, ED25519, [0x40, key @ ..]) if key.len() == 32 => Material::Ed25519(key.to_vec()),
                    (19, ..) => Material::Other("an ECDSA key on a curve other than P-256 and P-384"),
                    _ => Material::Other("an EdDSA key on a curve other than Ed25519"),
                })
            }
            27 => Ok(match bytes.len() {
                32 => Material::Ed25519(bytes.to_vec()),
                _ => return Err("an Ed25519 key has a wrong length"),
            }),
            17 => Ok(Material::Other("a DSA key")),
            2 | 16 | 18 | 25 | 26 => Ok(Material::Other("a key for encryption")),
            28 => Ok(Material::Other("an Ed448 key")),
            _ => Ok(Material::Other("a key of an unknown kind")),
        }
    }

    /// Whether the numbers in `signature` are this key's over `message`.
    pub(super) fn verifies(&self, algorithm: u8, hash: Hash, message: &[u8], mut signature: &[u8]) -> bool {
        let with =
            |algorithm: &'static dyn VerificationAlgorithm, key: &[u8], message: &[u8], signature: &[u8]| {
                UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
            };
        let mut pair = |length| {
            let (first, second) = (mpi(&mut signature).ok()?, mpi(&mut signature).ok()?);
            let both = [padded(first, length)?, padded(second, length)?].concat();
            signature.is_empty().then_some(both)
        };
        match (self, algorithm, hash) {
            (Material::Rsa { modulus, exponent }, 1 | 3, hash) => {
                let Some(number) = mpi(&mut signature).ok().and_then(|number| padded(number, modulus.len()))
                else {
                    return false;
                };
                let algorithm = match hash {
                    Hash::Sha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    Hash::Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Hash::Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Hash::Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                };
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                signature.is_empty() && key.verify(algorithm, message, &number).is_ok()
            }
            (Material::P256(key), 19, Hash::Sha256) => {
                pair(32).is_some_and(|pair| with(&signature::ECDSA_P256_SHA256_FIXED, key, message, &pair))
            }
            (Material::P384(key), 19, Hash::Sha384) => {
                pair(48).is_some_and(|pair| with(&signature::ECDSA_P384_SHA384_FIXED, key, message, &pair))
            }
            (Material::Ed25519(key), 22 | 27, hash) => {
                // It signs the hash, not the message.
                let hashed = digest::digest(hash.algorithm(), message);
                let numbers = if algorithm == 27 { Some(signature.to_vec()) } else { pair(32) };
                numbers.is_some_and(|numbers| with(&signature::ED25519, key, hashed.as_ref(), &numbers))
            }
            _ => false,
        }
    }
}

/// SHA-1, which names keys of version 4.
pub(super) fn sha1(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref().to_vec()
}
