//! What containerd says of a process's standard streams: paths of fifos, or URLs of files and of programs that take the output.

use std::path::PathBuf;

/// As it was told, which is told again when asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stdio {
    pub(super) stdin: String,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) terminal: bool,
}

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Nowhere,
    /// A fifo, or a file that is there already.
    Path(PathBuf),
    /// A file, made if it is not there.
    File(PathBuf),
    Program(Program),
}

/// A program that takes the output of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    /// It says that it is ready by a byte; otherwise closing its end says so too.
    pub(super) must_say_ready: bool,
}

impl Target {
    /// Reads what containerd says of an output.
    ///
    /// # Errors
    /// It is a URL of a kind that this shim does not know.
    pub(super) fn parse(text: &str) -> Result<Target, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(if text.is_empty() { Target::Nowhere } else { Target::Path(text.into()) });
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = PathBuf::from(unescape(path)?);
        if !path.is_absolute() {
            return Err(format!("{text:?}: its path is not absolute"));
        }
        match scheme {
            "fifo" => Ok(Target::Path(path)),
            "file" => Ok(Target::File(path)),
            "binary" | "binary-v2" => Ok(Target::Program(Program {
                path,
                arguments: arguments(query)?,
                must_say_ready: scheme == "binary-v2",
            })),
            other => Err(format!(
                "{text:?}: output to {other:?} is not supported; fifo, file, binary and binary-v2 are"
            )),
        }
    }
}

/// Each key of a query becomes an argument, followed by its value if it has one.
fn arguments(query: &str) -> Result<Vec<String>, String> {
    let mut arguments: Vec<String> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plus = |text: &str| unescape(&text.replace('+', " "));
        arguments.push(plus(key)?);
        if !value.is_empty() {
            arguments.push(plus(value)?);
        }
    }
    Ok(arguments)
}

/// Percent-encoding undone (RFC 3986).
fn unescape(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} is not percent-encoded as it should be");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit =
                    || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(bad);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    if bytes.contains(&0) {
        return Err(bad());
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_kind_of_target_is_understood() {
        assert_eq!(Target::parse("").unwrap(), Target::Nowhere);
        assert_eq!(Target::parse("/run/x-stdout").unwrap(), Target::Path("/run/x-stdout".into()));
        assert_eq!(Target::parse("fifo:///a").unwrap(), Target::Path("/a".into()));
        assert_eq!(Target::parse("file:///a%20b").unwrap(), Target::File("/a b".into()));
        let Target::Program(program) =
            Target::parse("binary:///bin/log?_INTERNAL=%2Fvar%2Flib&flag&x=a+b").unwrap()
        else {
            panic!("it is a program");
        };
        assert_eq!(program.path, PathBuf::from("/bin/log"));
        assert_eq!(program.arguments, ["_INTERNAL", "/var/lib", "flag", "x", "a b"]);
        assert!(!program.must_say_ready);
        assert!(matches!(Target::parse("binary-v2:///x").unwrap(), Target::Program(p) if p.must_say_ready));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, word) in [
            ("npipe:///a", "npipe"),
            ("ttrpc+unix:///run/s?streaming_id=1", "ttrpc+unix"),
            ("file://relative", "absolute"),
            ("binary:///a%zz", "percent"),
            ("binary:///a%00", "percent"),
        ] {
            let why = Target::parse(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "(binary|file|[a-z]{0,4})?(://)?/?\\PC{0,20}") {
            let _ = Target::parse(&text);
        }
    }
}
