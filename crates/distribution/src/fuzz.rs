//! What fuzzers feed: each takes any text, and has to come to an end without a panic.

use crate::challenge;

/// The value of a `WWW-Authenticate` header.
pub fn challenge(value: &str) {
    for challenge in challenge::parse(value) {
        assert!(!challenge.scheme.bytes().any(|byte| byte.is_ascii_uppercase()), "{challenge:?}");
        let _ = challenge.get("realm");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_ends(text in ".{0,200}") {
            super::challenge(&text);
        }
    }
}
