//! A small parser of command line flags: `--name value`, `--name=value`, `-n value`, and `-abc` for switches.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Problem;

/// A flag that a command knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    pub(super) short: Option<char>,
    /// What its value is called; `None` for a switch.
    pub(super) value: Option<&'static str>,
    pub(super) help: &'static str,
}

impl Flag {
    pub(super) const fn switch(name: &'static str, short: Option<char>, help: &'static str) -> Flag {
        Flag { name, short, value: None, help }
    }

    pub(super) const fn value(
        name: &'static str,
        short: Option<char>,
        value: &'static str,
        help: &'static str,
    ) -> Flag {
        Flag { name, short, value: Some(value), help }
    }
}

/// The flags that were given, and what follows them.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    given: Vec<(&'static str, OsString)>,
    pub(super) rest: Vec<OsString>,
}

impl Parsed {
    pub(super) fn has(&self, name: &str) -> bool {
        self.all(name).last().is_some_and(|value| value != "false")
    }

    /// All values of a flag, in order.
    pub(super) fn all<'p>(&'p self, name: &'p str) -> impl DoubleEndedIterator<Item = &'p OsStr> {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_os_str())
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.all(name).next_back().map(PathBuf::from)
    }

    /// The last value of a flag.
    pub(super) fn text<'p>(&'p self, name: &'p str) -> Result<Option<&'p str>, Problem> {
        self.all(name)
            .next_back()
            .map(|value| value.to_str().ok_or_else(|| Problem::usage(format!("--{name} is not valid UTF-8"))))
            .transpose()
    }

    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Problem> {
        self.text(name)?
            .map(|text| {
                text.parse()
                    .map_err(|_| Problem::usage(format!("--{name} {text:?} is not a number in range")))
            })
            .transpose()
    }
}

/// Parses the flags at the start of `arguments`. Flags end at the first other word if `in_front`, at `--` in any case; otherwise they
/// may stand between the other words.
pub(super) fn parse(known: &[Flag], arguments: &[OsString], in_front: bool) -> Result<Parsed, String> {
    let mut parsed = Parsed::default();
    let mut left = arguments.iter();
    while let Some(word) = left.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            parsed.rest.extend(left.cloned());
            break;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            parsed.rest.push(word.clone());
            if in_front {
                parsed.rest.extend(left.cloned());
                break;
            }
            continue;
        }
        let (name, inline) = match bytes.iter().position(|b| *b == b'=') {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]).to_os_string())),
            None => (bytes, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let bare = name.trim_start_matches('-');
        let find =
            |flag: &&Flag| flag.name == bare || flag.short.is_some_and(|short| bare == short.to_string());
        match (known.iter().find(find), inline) {
            (Some(flag), Some(value)) => parsed.given.push((flag.name, value)),
            (Some(Flag { name, value: None, .. }), None) => parsed.given.push((name, "true".into())),
            (Some(flag), None) => {
                let value = left.next().ok_or_else(|| format!("{name} needs a value"))?;
                parsed.given.push((flag.name, value.clone()));
            }
            (None, None) if !name.starts_with("--") => together(known, bare, &mut parsed)?,
            (None, _) => return Err(format!("unknown flag {name}")),
        }
    }
    Ok(parsed)
}

/// `-it`: several switches in one word.
fn together(known: &[Flag], letters: &str, parsed: &mut Parsed) -> Result<(), String> {
    for letter in letters.chars() {
        match known.iter().find(|flag| flag.short == Some(letter) && flag.value.is_none()) {
            Some(flag) => parsed.given.push((flag.name, "true".into())),
            None => return Err(format!("unknown flag -{letters}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag::switch("all", Some('a'), ""),
        Flag::switch("tty", Some('t'), ""),
        Flag::value("env", Some('e'), "X", ""),
    ];

    fn parse_words(words: &[&str], in_front: bool) -> Result<Parsed, String> {
        parse(FLAGS, &words.iter().map(OsString::from).collect::<Vec<_>>(), in_front)
    }

    #[test]
    fn flags_are_parsed_in_all_spellings() {
        let parsed =
            parse_words(&["-at", "--env", "A=1", "-e", "B", "--env=C=2", "id", "-x", "--", "y"], true)
                .unwrap();
        assert!(parsed.has("all") && parsed.has("tty"));
        assert_eq!(parsed.all("env").collect::<Vec<_>>(), ["A=1", "B", "C=2"]);
        assert_eq!(parsed.rest, ["id", "-x", "--", "y"]);
        let parsed = parse_words(&["id", "--all=false", "KILL"], false).unwrap();
        assert!(!parsed.has("all"));
        assert_eq!(parsed.rest, ["id", "KILL"]);
        for bad in [&["--nope"][..], &["-ax"], &["--env"], &["--nope=1"]] {
            assert!(parse_words(bad, true).is_err(), "{bad:?}");
        }
    }
}
