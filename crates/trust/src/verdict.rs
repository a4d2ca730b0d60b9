//! What was decided of an image, and by which rule of which file.

use std::fmt;
use std::path::PathBuf;

use crate::claim::SignatureError;
use crate::policy::PolicyError;
use crate::requirement::KeyError;

/// How many refused signatures a message tells of.
const SHOWN: usize = 8;

/// Whether an image is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accepted { rule: Rule },
    Rejected { rule: Rule, why: Why },
}

/// One requirement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub file: PathBuf,
    pub line: u32,
    /// The requirement's `type`.
    pub kind: &'static str,
    /// As messages name it: the transport and the scope that applied.
    pub scope: String,
}

/// Why a requirement is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The policy rejects whatever is in the scope.
    Reject,
    Unsupported(String),
    Keys(KeyError),
    /// No signature counts: these were found, each with where and why not.
    NotSigned {
        refused: Vec<(String, SignatureError)>,
    },
}

/// Why an image is not admitted: the whole sentence for whoever wanted it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error("{0}; nothing is admitted until it is repaired")]
    Policy(#[from] PolicyError),
    #[error("{rule} is not met: {why}")]
    Rule { rule: Rule, why: Why },
    #[error("{from}: {why}")]
    Store { from: String, why: String },
    #[error("{setting} {scope:?} wants images by digest (name@sha256:...), and {name} is none")]
    NotPinned { setting: &'static str, scope: String, name: String },
    #[error("{0}")]
    Verifier(#[from] crate::verifier::VerifierError),
}

impl fmt::Display for Rule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {} for {}", self.file.display(), self.line, self.kind, self.scope)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Reject => out.write_str("images from there are not wanted"),
            Why::Unsupported(what) => write!(out, "{what} is not supported"),
            Why::Keys(error) => write!(out, "{error}"),
            Why::NotSigned { refused } if refused.is_empty() => out.write_str("no signature was found"),
            Why::NotSigned { refused } => {
                out.write_str("no signature counts")?;
                for (from, why) in refused.iter().take(SHOWN) {
                    write!(out, "; {from}: {why}")?;
                }
                match refused.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(out, "; and {more} more"),
                }
            }
        }
    }
}
