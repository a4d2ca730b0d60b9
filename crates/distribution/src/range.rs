//! A range of a body's bytes, as it is asked for and as it is answered (RFC 9110, section 14).

use std::fmt;

/// What is asked for: `Range`. Written as the header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub from: u64,
    /// The last byte; none: all the rest.
    pub last: Option<u64>,
}

impl fmt::Display for Range {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bytes={}-", self.from)?;
        self.last.map_or(Ok(()), |last| write!(out, "{last}"))
    }
}
