//! Cuts a stream of bytes into the records of a log. Pure.
//!
//! A line ends at a newline, which is not part of its content; more than [`MAX_CONTENT`] bytes without one become partial records. What
//! a pipe carried is kept to the byte. From a terminal, the carriage return that its line discipline put before each newline is
//! taken off again, so that the log has what the program wrote. containerd takes it off everywhere, CRI-O nowhere.

/// The most content bytes of one record.
pub const MAX_CONTENT: usize = 16 * 1024;

/// Whether a record ends its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `F`: the line ends here.
    Full,
    /// `P`: the line goes on in the stream's next record, or the stream ended without a newline.
    Partial,
}

/// Content of one record: `head`, then `body`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub tag: Tag,
    /// From what was held back.
    pub head: &'a [u8],
    /// From what arrived now.
    pub body: &'a [u8],
}

impl Record<'_> {
    pub const EMPTY: Record<'static> = Record { tag: Tag::Full, head: &[], body: &[] };
}

/// What has to be held back: the tail of what was held before, then the tail of what arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// How many bytes of the held part have become records.
    pub held_done: usize,
    /// The same of the new part.
    pub new_done: usize,
}

impl Rest {
    /// The bytes to hold, in the memory of what was held before. An empty rest owns no memory.
    pub fn join(self, mut held: Vec<u8>, new: &[u8]) -> Vec<u8> {
        held.drain(..self.held_done.min(held.len()));
        held.extend_from_slice(new.get(self.new_done..).unwrap_or_default());
        if held.is_empty() { Vec::new() } else { held }
    }
}

/// Cuts `held` followed by `new` into records; `held` is the [`Rest`] of the call before and has no newline.
pub fn split<'a>(held: &'a [u8], new: &'a [u8], terminal: bool, mut emit: impl FnMut(Record<'a>)) -> Rest {
    let all = new;
    let (mut head, mut new) = (held, new);
    while let Some(end) = newline(new) {
        let (line, after) = (&new[..end], &new[end + 1..]);
        let (line_head, line_body) = if terminal { strip_return(head, line) } else { (head, line) };
        let (line_head, line_body) = partials(line_head, line_body, 0, &mut emit);
        emit(Record { tag: Tag::Full, head: line_head, body: line_body });
        head = &[];
        new = after;
    }
    // A carriage return at the very end may belong to a newline that has not arrived.
    let last = new.last().or(head.last());
    let keep = usize::from(terminal && last == Some(&b'\r'));
    let (head, new) = partials(head, new, keep, &mut emit);
    Rest { held_done: held.len() - head.len(), new_done: all.len() - new.len() }
}

/// Cuts what is left when the stream ends.
pub fn finish<'a>(held: &'a [u8], mut emit: impl FnMut(Record<'a>)) {
    let (head, _) = partials(held, &[], 0, &mut emit);
    if !head.is_empty() {
        emit(Record { tag: Tag::Partial, head, body: &[] });
    }
}

/// Emits partial records until at most [`MAX_CONTENT`] and `keep` bytes are left, which it returns.
fn partials<'a>(
    mut head: &'a [u8],
    mut body: &'a [u8],
    keep: usize,
    emit: &mut impl FnMut(Record<'a>),
) -> (&'a [u8], &'a [u8]) {
    while head.len() + body.len() > MAX_CONTENT + keep {
        let from_head = head.len().min(MAX_CONTENT);
        let (now_head, later_head) = head.split_at(from_head);
        let (now_body, later_body) = body.split_at(MAX_CONTENT - from_head);
        emit(Record { tag: Tag::Partial, head: now_head, body: now_body });
        (head, body) = (later_head, later_body);
    }
    (head, body)
}

fn strip_return<'a>(head: &'a [u8], line: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    match (line, head) {
        ([line @ .., b'\r'], _) => (head, line),
        ([], [head @ .., b'\r']) => (head, line),
        _ => (head, line),
    }
}

/// Where the first newline is, looking at eight bytes at a time.
fn newline(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    const NEWLINES: u64 = ONES * b'\n' as u64;
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let zeros = u64::from_le_bytes(*word) ^ NEWLINES;
        // The lowest set bit marks the first zero byte; higher ones may be wrong, which does not matter.
        let found = zeros.wrapping_sub(ONES) & !zeros & HIGHS;
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    tail.iter().position(|byte| *byte == b'\n').map(|at| words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_newline_is_found(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(0x0bu8), any::<u8>()], 0..70)) {
            prop_assert_eq!(newline(&bytes), bytes.iter().position(|b| *b == b'\n'));
        }
    }

    fn cut(chunks: &[&[u8]], terminal: bool) -> Vec<(Tag, Vec<u8>)> {
        let mut out = Vec::new();
        let mut held = Vec::new();
        for chunk in chunks {
            let rest = split(&held, chunk, terminal, |r| out.push((r.tag, [r.head, r.body].concat())));
            held = rest.join(held.clone(), chunk);
        }
        finish(&held, |r| out.push((r.tag, [r.head, r.body].concat())));
        out
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        let full = |s: &str| (Tag::Full, s.as_bytes().to_vec());
        assert_eq!(cut(&[b"one\ntwo\n"], false), [full("one"), full("two")]);
        assert_eq!(
            cut(&[b"o", b"ne\n", b"\n", b"x"], false),
            [full("one"), full(""), (Tag::Partial, b"x".to_vec())]
        );
        assert_eq!(cut(&[], false), []);
    }

    #[test]
    fn sixteen_kibibytes_fit_and_one_more_is_cut() {
        let line = [b'x'; MAX_CONTENT + 1];
        let exact = cut(&[&line[1..], b"\n"], false);
        assert_eq!(
            exact.iter().map(|(tag, c)| (*tag, c.len())).collect::<Vec<_>>(),
            [(Tag::Full, MAX_CONTENT)]
        );
        for chunks in [vec![&line[..], b"\n"], vec![&line[..5], &line[5..], b"\n"]] {
            let lengths: Vec<_> = cut(&chunks, false).iter().map(|(tag, c)| (*tag, c.len())).collect();
            assert_eq!(lengths, [(Tag::Partial, MAX_CONTENT), (Tag::Full, 1)]);
        }
    }

    #[test]
    fn a_terminals_carriage_returns_go_and_a_pipes_stay() {
        for chunks in [&[&b"a\r\nb\r\r\n\r\n"[..]][..], &[b"a\r", b"\nb\r", b"\r\n", b"\r", b"\n"]] {
            let content = |terminal| cut(chunks, terminal).into_iter().map(|(_, c)| c).collect::<Vec<_>>();
            assert_eq!(content(true), [&b"a"[..], b"b\r", b""]);
            assert_eq!(content(false), [&b"a\r"[..], b"b\r\r", b"\r"]);
        }
        let mut line = vec![b'x'; MAX_CONTENT];
        line.push(b'\r');
        assert_eq!(cut(&[&line, b"\n"], true), [(Tag::Full, vec![b'x'; MAX_CONTENT])]);
        assert_eq!(cut(&[&line, b"y"], true).concat_content(), [&line[..], b"y"].concat());
    }

    trait Content {
        fn concat_content(&self) -> Vec<u8>;
    }
    impl Content for Vec<(Tag, Vec<u8>)> {
        fn concat_content(&self) -> Vec<u8> {
            self.iter().flat_map(|(_, content)| content.clone()).collect()
        }
    }
}
