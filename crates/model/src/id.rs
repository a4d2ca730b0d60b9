//! Names of pods and containers that cannot be mistaken for anything else: 64 lower-case hexadecimal digits.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Digits in a whole id: 32 random bytes, as every client of CRI expects.
pub const ID_DIGITS: usize = 64;

/// Why a text is not an id. It quotes only the beginning of what it was given, since that may be a megabyte of anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} id {given:?} is not 64 lower-case hexadecimal digits")]
pub struct BadId {
    what: &'static str,
    given: String,
}

fn check(what: &'static str, text: &str) -> Result<Arc<str>, BadId> {
    let plain = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == ID_DIGITS && plain {
        return Ok(text.into());
    }
    Err(BadId { what, given: text.chars().take(ID_DIGITS + 8).collect() })
}

fn hex(bytes: [u8; 32]) -> Arc<str> {
    let digits = b"0123456789abcdef";
    let text: String = bytes
        .iter()
        .flat_map(|b| [digits[usize::from(b >> 4)], digits[usize::from(b & 15)]])
        .map(char::from)
        .collect();
    text.into()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes a whole id. A prefix is not one: whoever knows what exists resolves prefixes.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                check($what, text).map($name)
            }

            /// The id that these random bytes spell.
            pub fn from_random(bytes: [u8; 32]) -> Self {
                $name(hex(bytes))
            }

            /// All 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first thirteen digits, as tools show them to people.
            pub fn short(&self) -> &str {
                &self.0[..13]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                $name::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A pod sandbox.
    PodId, "pod"
);
id!(
    /// A container of a pod.
    ContainerId, "container"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_bytes_spell_an_id_that_parses(bytes: [u8; 32]) {
            let id = PodId::from_random(bytes);
            prop_assert_eq!(PodId::parse(id.as_str()).unwrap(), id);
        }

        #[test]
        fn nothing_else_parses(text in ".*") {
            prop_assume!(text.len() != ID_DIGITS);
            prop_assert!(ContainerId::parse(&text).is_err());
        }
    }

    #[test]
    fn an_error_quotes_little_of_a_giant() {
        let error = PodId::parse(&"a/../".repeat(1 << 20)).unwrap_err().to_string();
        assert!(error.len() < 200, "{}", error.len());
    }
}
