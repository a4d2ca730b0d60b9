//! The skips that CI may have, each with why.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// `.ci/skips.txt`: a line is a part of the skip's reason, ` -- `, and why it cannot be had in CI.
pub(super) struct Allowed(Vec<(String, String)>);

impl Allowed {
    /// Reads the file; `#` begins a comment.
    pub(super) fn read(file: &Path) -> Result<Allowed> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Allowed::parse(&text).with_context(|| file.display().to_string())
    }

    fn parse(text: &str) -> Result<Allowed> {
        let mut allowed = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match line.split_once(" -- ") {
                Some((part, why)) if !part.trim().is_empty() && !why.trim().is_empty() => {
                    allowed.push((part.trim().to_owned(), why.trim().to_owned()));
                }
                _ => bail!(
                    "line {}: write a part of the skip's reason, ` -- `, and why CI cannot have it",
                    at + 1
                ),
            }
        }
        Ok(Allowed(allowed))
    }

    /// Why a skip with this reason is allowed, if it is.
    pub(super) fn reason(&self, skip: &str) -> Option<&str> {
        self.0.iter().find(|(part, _)| skip.contains(part.as_str())).map(|(_, why)| why.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_allowed_by_a_part_of_its_reason() {
        let allowed = Allowed::parse("# comment\n\nno systemd -- CI runs in a container\n").unwrap();
        assert_eq!(allowed.reason("there is no systemd here"), Some("CI runs in a container"));
        assert_eq!(allowed.reason("not root"), None);
    }

    #[test]
    fn a_line_without_why_is_refused() {
        for text in ["not root", "not root -- ", " -- why"] {
            assert!(Allowed::parse(text).is_err(), "{text}");
        }
    }
}
