//! Reading Rust source just closely enough to tell code from comments and strings.

/// The source with comments, strings and characters blanked out; lines and columns of what is left stay the same.
pub(super) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match skipped_at(bytes, at) {
            Some(end) => end,
            None => {
                out.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment, string or character that begins at `at` ends, if one begins there.
fn skipped_at(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + string(rest, 1)),
        [b'b' | b'c', b'"', ..] if !in_word => Some(at + string(rest, 2)),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string(rest, 1).map(|length| at + length),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !in_word => raw_string(rest, 2).map(|length| at + length),
        [b'\'', ..] => character(rest).map(|length| at + length),
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

fn string(rest: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#`; a raw name such as `r#gen` is none.
fn raw_string(rest: &[u8], from: usize) -> Option<usize> {
    let hashes = rest[from..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(from + hashes) != Some(&b'"') {
        return None;
    }
    let body = from + hashes + 1;
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let end = rest[body..].windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| body + end + close.len()))
}

/// A character literal; a lifetime such as `'a` is none.
fn character(rest: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(&rest[1..rest.len().min(16)])
        .unwrap_or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).unwrap_or_default());
    let mut chars = text.char_indices();
    match chars.next()? {
        (_, '\\') => {
            let escaped = text.char_indices().nth(2).map_or(text.len(), |(at, _)| at);
            text[escaped..].find('\'').map(|end| 1 + escaped + end + 1)
        }
        _ => chars.next().filter(|(_, next)| *next == '\'').map(|(at, _)| 1 + at + 1),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The lines, from 1, that have `word` standing alone.
pub(super) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let has = |line: &str| line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word);
    code.lines().enumerate().filter(|(_, line)| has(line)).map(|(at, _)| at + 1).collect()
}

/// Whether the file begins with inner documentation whose first paragraph is a sentence.
pub(super) fn opens_with_sentence(text: &str) -> bool {
    let paragraph = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph: Vec<&str> = paragraph.take_while(|line| !line.is_empty()).collect();
    let sentence = paragraph.join(" ");
    sentence.split_whitespace().count() >= 2 && sentence.ends_with(['.', ':', '!', '?'])
}

/// Error names such as `PNT-` and capitals after it, with their lines.
pub(super) fn error_names(text: &str) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for piece in line.split("\"PNT-").skip(1) {
            let name: String = piece
                .chars()
                .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '-')
                .collect();
            if !name.is_empty() {
                names.push((format!("PNT-{name}"), at + 1));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let cases = [
            ("a // unsafe\nb", "a b"),
            ("/* a /* unsafe */ b */ c", "c"),
            (r#"let a = "un\"safe"; b"#, "let a = ; b"),
            ("let a = r#\"unsafe \"quoted\" \"#; b", "let a = ; b"),
            ("b\"x\" br\"y\" c\"z\" d", "d"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            (r"match c { '\'' => '\u{1f}', '/' => 'ü' }", "match c { => , => }"),
            ("r#gen::run()", "r#gen::run()"),
            ("xr\"a\"", "xr"),
        ];
        for (text, expected) in cases {
            let code = code_only(text);
            assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{text}");
            assert_eq!((code.len(), code.lines().count()), (text.len(), text.lines().count()), "{text}");
        }
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(lines_with_word("unsafe_code\nx unsafe{\nnot_unsafe", "unsafe"), [2]);
    }

    #[test]
    fn broken_source_is_no_trouble() {
        for text in ["\"", "'", "r#\"", "/*", "'\\", "b'", "\u{2028}'", "'ü", "r", "br#"] {
            code_only(text);
        }
    }

    #[test]
    fn a_sentence_may_go_over_lines() {
        assert!(opens_with_sentence("//! What this\n//! is for.\n//!\n//! more\n"));
        assert!(!opens_with_sentence("//! words without end\n"));
        assert!(!opens_with_sentence("use std::fs;\n//! Too late.\n"));
    }

    #[test]
    fn error_names_are_found_in_strings() {
        assert_eq!(error_names("x\nconst A: &str = \"PNT-NET-001\";"), [("PNT-NET-001".to_owned(), 2)]);
    }
}
