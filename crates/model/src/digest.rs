//! Digests as the OCI image specification writes them: `sha256:` or `sha512:` and lower-case hexadecimal digits.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The hash functions whose digests are accepted; the specification registers these two for general use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    /// Its name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits its digests have.
    pub fn digits(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

/// The name of some bytes by their hash. Safe as a file name in the form of [`Digest::hex`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// The whole text, so that showing it costs nothing.
    text: Arc<str>,
}

/// Why a text is not a digest. It quotes only the beginning of what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDigest {
    #[error("digest {given:?} has no algorithm: expected sha256:<64 hexadecimal digits>")]
    NoAlgorithm { given: String },
    #[error("digest {given:?} has an algorithm that is not supported: sha256 and sha512 are")]
    UnknownAlgorithm { given: String },
    #[error("digest {given:?} does not have {digits} lower-case hexadecimal digits after the colon")]
    NotHex { given: String, digits: usize },
}

impl Digest {
    /// Takes `algorithm:hex`, with lower-case digits of exactly the algorithm's length.
    ///
    /// # Errors
    /// [`BadDigest`], naming the beginning of the text.
    pub fn parse(text: &str) -> Result<Digest, BadDigest> {
        let given = || text.chars().take(80).collect::<String>();
        let (name, hex) = text.split_once(':').ok_or_else(|| BadDigest::NoAlgorithm { given: given() })?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(BadDigest::UnknownAlgorithm { given: given() }),
        };
        let digits = algorithm.digits();
        if hex.len() != digits || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(BadDigest::NotHex { given: given(), digits });
        }
        Ok(Digest { algorithm, text: text.into() })
    }

    /// The digest that a finished SHA-256 spells.
    pub fn sha256(bytes: [u8; 32]) -> Digest {
        Digest { algorithm: Algorithm::Sha256, text: spell(Algorithm::Sha256, &bytes) }
    }

    /// The digest that a finished SHA-512 spells.
    pub fn sha512(bytes: [u8; 64]) -> Digest {
        Digest { algorithm: Algorithm::Sha512, text: spell(Algorithm::Sha512, &bytes) }
    }

    /// Which hash function it is of.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits after the colon.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.name().len() + 1..]
    }

    /// The whole text, `sha256:...`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn spell(algorithm: Algorithm, bytes: &[u8]) -> Arc<str> {
    let digits = b"0123456789abcdef";
    let mut text = String::with_capacity(algorithm.digits() + 8);
    text.push_str(algorithm.name());
    text.push(':');
    for byte in bytes {
        text.push(char::from(digits[usize::from(byte >> 4)]));
        text.push(char::from(digits[usize::from(byte & 15)]));
    }
    text.into()
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Digest({})", self.text)
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Digest, BadDigest> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Digest::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// An image: the digest of its configuration, which names the layers by what they contain. It is the same in every registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageId(Digest);

impl ImageId {
    /// The image whose configuration has this digest.
    pub fn of_config(digest: Digest) -> ImageId {
        ImageId(digest)
    }

    /// Takes a whole id, `sha256:<64 digits>`.
    ///
    /// # Errors
    /// As [`Digest::parse`].
    pub fn parse(text: &str) -> Result<ImageId, BadDigest> {
        Digest::parse(text).map(ImageId)
    }

    /// The digest of the configuration.
    pub fn digest(&self) -> &Digest {
        &self.0
    }

    /// The whole text, `sha256:...`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_a_hash_spells_parses_back(short: [u8; 32], long in proptest::collection::vec(any::<u8>(), 64)) {
            let digest = Digest::sha256(short);
            prop_assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
            let long: [u8; 64] = long.try_into().unwrap();
            let digest = Digest::sha512(long);
            prop_assert_eq!(digest.hex().len(), 128);
            prop_assert_eq!(Digest::parse(digest.as_str()).unwrap(), digest);
        }

        #[test]
        fn whatever_parses_shows_as_it_was_given(text in "(sha256|sha512|md5|):?[0-9a-fA-F]{0,130}") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }

    #[test]
    fn bad_digests_are_told_apart() {
        let hex = "a".repeat(64);
        assert!(Digest::parse(&format!("sha256:{hex}")).is_ok());
        assert!(matches!(Digest::parse(&hex), Err(BadDigest::NoAlgorithm { .. })));
        assert!(matches!(Digest::parse(&format!("md5:{hex}")), Err(BadDigest::UnknownAlgorithm { .. })));
        assert!(matches!(
            Digest::parse(&format!("sha256:{}", hex.to_uppercase())),
            Err(BadDigest::NotHex { .. })
        ));
        assert!(matches!(Digest::parse("sha256:../../../../etc/passwd"), Err(BadDigest::NotHex { .. })));
        assert!(matches!(
            Digest::parse(&format!("sha512:{hex}")),
            Err(BadDigest::NotHex { digits: 128, .. })
        ));
        let giant = Digest::parse(&"x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(giant.len() < 200, "{}", giant.len());
    }
}
