//! What fuzzers feed: it takes any text, and has to come to an end without a panic.

use crate::file::{Form, parse};

/// A vendor's file, in both forms.
pub fn file(text: &str) {
    let _ = parse(text, Form::Json);
    let _ = parse(text, Form::Yaml);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_ends(text in "(\\PC|\n){0,200}") {
            super::file(&text);
        }
    }
}
