//! One record of a CRI log file: `TIME STREAM P|F TEXT`, as the kubelet defines it. Pure.

use jiff::Timestamp;

/// Which of the program's two outputs a record is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// A parsed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// The time as it is written in the file.
    pub time: &'a str,
    pub stream: Stream,
    /// The line goes on in the next record of the same stream.
    pub partial: bool,
    pub text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads one line, without its final newline. `None` when it is not a CRI log record.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Record<'a>> {
        let (time, rest) = word(line)?;
        let (stream, rest) = word(rest)?;
        // The text may be empty, and then some writers leave out the blank before it.
        let (tag, text) = word(rest).unwrap_or((rest, b""));
        let stream = match stream {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // The tag field may carry more tags behind colons; the first says whether the line is complete.
        let partial = match tag.split(|byte| *byte == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Record { time: std::str::from_utf8(time).ok()?, stream, partial, text })
    }

    /// When it was written, or `None` when the time cannot be read.
    pub(crate) fn timestamp(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Splits at the first blank.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..blank], &text[blank + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_and_a_partial_record() {
        let record = Record::parse(b"2026-11-20T01:02:03.5Z stdout F hello  world").unwrap();
        assert_eq!(
            (record.stream, record.partial, record.text),
            (Stream::Stdout, false, &b"hello  world"[..])
        );
        assert_eq!(record.timestamp().unwrap(), "2026-11-20T01:02:03.5Z".parse().unwrap());
        assert!(Record::parse(b"2026-11-20T01:02:03Z stderr P x").unwrap().partial);
    }

    #[test]
    fn an_empty_line_is_a_record() {
        assert_eq!(Record::parse(b"t stdout F ").unwrap().text, b"");
        assert_eq!(Record::parse(b"t stdout F").unwrap().text, b"");
    }

    #[test]
    fn further_tags_are_ignored() {
        assert!(Record::parse(b"t stdout P:x:y z").unwrap().partial);
    }

    #[test]
    fn what_is_no_record_is_not_taken_for_one() {
        for line in [&b""[..], b"hello", b"t other F x", b"t stdout Q x", b"t stdout"] {
            assert_eq!(Record::parse(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Record::parse(&line).map(|record| record.timestamp());
        }
    }
}
