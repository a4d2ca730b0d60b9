//! A range of a body's bytes, as it is asked for and as it is answered (RFC 9110, section 14).

use std::fmt;

use http::header::{self, HeaderMap};

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

/// What came: `Content-Range`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub from: u64,
    pub last: u64,
    /// Of the whole, if it is known.
    pub total: Option<u64>,
}

impl ContentRange {
    /// None if there is no such header, or it makes no sense.
    pub(crate) fn of(headers: &HeaderMap) -> Option<ContentRange> {
        ContentRange::parse(headers.get(header::CONTENT_RANGE)?.to_str().ok()?)
    }

    fn parse(text: &str) -> Option<ContentRange> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (from, last) = range.split_once('-')?;
        let total = match total {
            "*" => None,
            total => Some(total.parse().ok()?),
        };
        let came = ContentRange { from: from.parse().ok()?, last: last.parse().ok()?, total };
        (came.from <= came.last && total.is_none_or(|total| came.last < total)).then_some(came)
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bytes {}-{}/", self.from, self.last)?;
        match self.total {
            Some(total) => write!(out, "{total}"),
            None => write!(out, "*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        for text in ["bytes 0-9/10", "bytes 5-5/*", "bytes 0-0/1"] {
            assert_eq!(ContentRange::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "",
            "0-9/10",
            "bytes 0-9",
            "bytes */10",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes -1-2/3",
            "bytes 0-9/x",
        ] {
            assert!(ContentRange::parse(bad).is_none(), "{bad}");
        }
    }
}
