//! What fuzzers feed: it takes any text, and has to come to an end without a panic.

use std::collections::BTreeMap;

use crate::Asked;
use crate::file::parse;

/// A file of a folder of hooks, and whether a container gets what is in it.
pub fn file(text: &str) {
    let annotations = BTreeMap::from([("some.key".to_owned(), "some value".to_owned())]);
    if let Ok(described) = parse(text) {
        let _ = described.when.matches(&Asked { annotations: &annotations, bind_mounts: true }, "/bin/sh");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_ends(text in ".{0,200}") {
            super::file(&text);
        }
    }
}
