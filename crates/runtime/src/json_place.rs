//! Which field of a JSON document an error is about: serde names lines and columns, people look for fields.

/// The field that the text up to `line` and `column` (both as serde_json counts them) ends in, such as `linux.namespaces[2].type`; empty
/// for the document itself.
pub(crate) fn field(text: &[u8], line: usize, column: usize) -> String {
    let start: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let text = &text[..text.len().min(start + column)];
    let mut open: Vec<Step> = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' => open.push(Step::Key(None)),
            b'[' => open.push(Step::Index(0)),
            b'}' | b']' => {
                open.pop();
            }
            b',' => match open.last_mut() {
                Some(Step::Key(key)) => *key = None,
                Some(Step::Index(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let end = end_of_string(text, at);
                if let Some(Step::Key(key @ None)) = open.last_mut() {
                    let name = &text[at + 1..end.saturating_sub(1).max(at + 1)];
                    *key = Some(String::from_utf8_lossy(name).into_owned());
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for step in open {
        match step {
            Step::Key(Some(key)) if path.is_empty() => path.push_str(&key),
            Step::Key(Some(key)) => path.push_str(&format!(".{key}")),
            Step::Key(None) => {}
            Step::Index(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

enum Step {
    Key(Option<String>),
    Index(usize),
}

/// Where the string that begins at `start` ends, behind its last quote.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Parses a document; an error names the field.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        let field = field(text, error.line(), error.column());
        if field.is_empty() { error.to_string() } else { format!("{field}: {error}") }
    })
}

/// As [`parse`], for a document with a process at `process` (a JSON pointer) that may say nothing of its user: it is root then, as callers
/// written for runc have it.
pub(crate) fn parse_with_process<T: serde::de::DeserializeOwned>(
    text: &[u8],
    process: &str,
) -> Result<T, String> {
    let refusal = match parse(text) {
        Err(refusal) if refusal.contains("missing field `user`") => refusal,
        other => return other,
    };
    let mut document: serde_json::Value = serde_json::from_slice(text).map_err(|_| refusal.clone())?;
    let place = document.pointer_mut(process).and_then(serde_json::Value::as_object_mut);
    match place {
        Some(place) if !place.contains_key("user") => {
            place.insert("user".into(), serde_json::json!({"uid": 0, "gid": 0}))
        }
        _ => return Err(refusal),
    };
    serde_json::from_value(document).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::Spec;
    use proptest::prelude::*;

    #[test]
    fn the_field_is_named() {
        let of = |text: &str| parse::<Spec>(text.as_bytes()).unwrap_err();
        for (text, expected) in [
            (
                r#"{"ociVersion": "1.0.0", "linux": {"namespaces": [{"type": "pid"}, {"type": "nope"}]}}"#,
                "linux.namespaces[1].type: ",
            ),
            (
                "{\"ociVersion\": \"1.0.0\",\n \"process\": {\"cwd\": \"/\",\n  \"rlimits\": [{\"type\": \"RLIMIT_X\"}]}}",
                "process.rlimits[0].type: ",
            ),
            (
                r#"{"ociVersion": "1.0.0", "process": {"capabilities": {"bounding": ["CAP_NOPE"]}}}"#,
                "process.capabilities.bounding",
            ),
            (r#"{"ociVersion": "1.0.0", "process": {"user": {"uid": -1}}}"#, "process.user.uid: "),
            (r#"{"ociVersion": 7}"#, "ociVersion: "),
            (r#"{"ociVersion": "1.0.0", "a\"b": {"x": [1, {"y\\": 2}]}, "linux": 3}"#, "linux: "),
        ] {
            let error = of(text);
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(!of("{").is_empty() && !of("").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[\\[\\]{}\",:\\\\a1\n]*", line in 0_usize..5, column in 0_usize..40) {
            let _ = field(text.as_bytes(), line, column);
        }
    }
}
