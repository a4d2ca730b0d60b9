//! Public keys in PEM, and the signatures that they verify: ECDSA on P-256 and P-384, Ed25519, and RSA of 2048 to 8192 bits.

use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::alg_id;
use rustls_pki_types::pem::{SectionKind, from_buf};

use crate::der::{BIT_STRING, Der, SEQUENCE};

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicKey {
    kind: Kind,
    /// As `ring` takes it.
    bytes: Vec<u8>,
    /// The whole SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    info: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// Why some bytes are no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("there is no PEM block \"PUBLIC KEY\" in it")]
    NoPem,
    #[error("there is more than one PEM block in it; a file is for one key")]
    SeveralKeys,
    #[error("its PEM is malformed")]
    Pem,
    #[error("its PEM block is not a public key; is it the private one?")]
    NotPublic,
    #[error("the key in it is malformed")]
    Malformed,
    #[error("{0} keys are not supported: ECDSA on P-256 or P-384, Ed25519 and RSA are")]
    Unsupported(&'static str),
}

impl PublicKey {
    /// The key of a PEM file.
    pub(crate) fn from_pem(pem: &[u8]) -> Result<PublicKey, BadKey> {
        let mut rest = pem;
        let section = from_buf(&mut rest).map_err(|_| BadKey::Pem)?;
        if from_buf(&mut rest).map_err(|_| BadKey::Pem)?.is_some() {
            return Err(BadKey::SeveralKeys);
        }
        match section {
            Some((SectionKind::PublicKey, der)) => PublicKey::from_info(&der),
            Some(_) => Err(BadKey::NotPublic),
            None => Err(BadKey::NoPem),
        }
    }

    /// The key of a SubjectPublicKeyInfo.
    pub(crate) fn from_info(info: &[u8]) -> Result<PublicKey, BadKey> {
        let parts = Der(info).only(SEQUENCE).and_then(|inside| {
            let mut parts = Der(inside);
            let algorithm = parts.expect(SEQUENCE)?;
            let key = parts.only(BIT_STRING)?;
            // How many bits of the last byte are not used: of a key, none.
            Some((algorithm, key.strip_prefix(&[0])?))
        });
        let (algorithm, key) = parts.ok_or(BadKey::Malformed)?;
        let (kind, length) = match algorithm {
            a if a == alg_id::ECDSA_P256.as_ref() => (Kind::P256, Some(65)),
            a if a == alg_id::ECDSA_P384.as_ref() => (Kind::P384, Some(97)),
            a if a == alg_id::ED25519.as_ref() => (Kind::Ed25519, Some(32)),
            a if a == alg_id::RSA_ENCRYPTION.as_ref() => (Kind::Rsa, None),
            a if a == alg_id::ECDSA_P521.as_ref() => return Err(BadKey::Unsupported("ECDSA P-521")),
            _ => return Err(BadKey::Unsupported("such")),
        };
        if length.is_some_and(|length| key.len() != length) {
            return Err(BadKey::Malformed);
        }
        Ok(PublicKey { kind, bytes: key.to_vec(), info: info.to_vec() })
    }

    /// The whole SubjectPublicKeyInfo.
    pub(crate) fn info(&self) -> &[u8] {
        &self.info
    }

    /// Whether it is for ECDSA.
    pub(crate) fn is_ecdsa(&self) -> bool {
        matches!(self.kind, Kind::P256 | Kind::P384)
    }

    /// Whether `signature` is this key's over `message`. ECDSA signatures are ASN.1, RSA's PKCS#1 v1.5 with SHA-256.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        // Signers hash for P-384 with SHA-256 (older ones) or with SHA-384.
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &[&signature::ECDSA_P256_SHA256_ASN1],
            Kind::P384 => &[&signature::ECDSA_P384_SHA256_ASN1, &signature::ECDSA_P384_SHA384_ASN1],
            Kind::Ed25519 => &[&signature::ED25519],
            Kind::Rsa => &[&signature::RSA_PKCS1_2048_8192_SHA256],
        };
        algorithms.iter().any(|&algorithm| {
            UnparsedPublicKey::new(algorithm, &self.bytes).verify(message, signature).is_ok()
        })
    }
}

/// The contents of the blocks of a PEM text that are certificates.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut rest = pem;
    let mut found = Vec::new();
    while let Some((kind, der)) = from_buf(&mut rest).ok()? {
        if kind != SectionKind::Certificate || found.len() >= 32 {
            return None;
        }
        found.push(der);
    }
    Some(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rcgen::{KeyPair, PublicKeyData};

    pub(crate) fn pair(algorithm: &'static rcgen::SignatureAlgorithm) -> (KeyPair, PublicKey) {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let key = PublicKey::from_pem(pair.public_key_pem().as_bytes()).unwrap();
        assert_eq!(key.info(), pair.subject_public_key_info());
        (pair, key)
    }

    #[test]
    fn signatures_of_each_kind_of_key_are_told_from_others() {
        use rcgen::SigningKey as _;
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
        {
            let (private, key) = pair(algorithm);
            let (_, other) = pair(algorithm);
            let signature = private.sign(b"message").unwrap();
            assert!(key.verifies(b"message", &signature));
            assert!(!key.verifies(b"massage", &signature));
            assert!(!other.verifies(b"message", &signature));
            assert!(!key.verifies(b"message", &signature[1..]));
            assert!(!key.verifies(b"message", &[]));
        }
    }

    #[test]
    fn bad_keys_say_what_is_wrong() {
        let (pair, _) = pair(&rcgen::PKCS_ED25519);
        assert_eq!(PublicKey::from_pem(b"").unwrap_err(), BadKey::NoPem);
        assert_eq!(PublicKey::from_pem(b"not a key").unwrap_err(), BadKey::NoPem);
        assert_eq!(PublicKey::from_pem(pair.serialize_pem().as_bytes()).unwrap_err(), BadKey::NotPublic);
        let two = pair.public_key_pem().repeat(2);
        assert_eq!(PublicKey::from_pem(two.as_bytes()).unwrap_err(), BadKey::SeveralKeys);
        assert_eq!(PublicKey::from_info(&[0x30, 0]).unwrap_err(), BadKey::Malformed);
        let mut info = pair.subject_public_key_info();
        let last = info.len() - 34;
        info[last + 1] = 1;
        assert_eq!(PublicKey::from_info(&info).unwrap_err(), BadKey::Malformed);
    }
}
