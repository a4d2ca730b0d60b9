//! What can be wrong with a configuration, said so that it can be mended.

use std::fmt;
use std::path::PathBuf;

/// Everything wrong with a configuration: all of it at once, in the order of the files.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            write!(out, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A place in a file. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: PathBuf,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One thing wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{file}: cannot be read: {why}", file = .file.display())]
    Unreadable { file: PathBuf, why: String },

    #[error("{file}: is longer than {limit} bytes, which no configuration is", file = .file.display())]
    TooLong { file: PathBuf, limit: u64 },

    #[error("{file}: is not UTF-8 text ({why}); save it as UTF-8", file = .file.display())]
    NotText { file: PathBuf, why: String },

    /// TOML's own rules are broken: also a table or a key that stands twice.
    #[error("{place}: {why}")]
    Syntax { place: Place, why: String },

    #[error("{place}: there is no setting `{key}`{}", advice(.meant, .known))]
    UnknownKey { place: Place, key: String, meant: Option<String>, known: Vec<String> },

    #[error("{place}: there is no section `[{section}]`{}", advice(.meant, .known))]
    UnknownSection { place: Place, section: String, meant: Option<String>, known: Vec<String> },

    #[error(
        "{place}: a handler cannot be called {name:?}: lower-case letters, digits and dashes, at most 63, no dash at either end"
    )]
    HandlerName { place: Place, name: String },

    /// Settings that are right by themselves.
    #[error("[{section}]: {why}")]
    Contradiction { section: String, why: String },

    #[error("{place}: `{key}` takes {takes}, not {found}{}", advice(.meant, &[]))]
    WrongValue { place: Place, key: String, takes: String, found: String, meant: Option<String> },

    #[error(
        "{place}: the file says version {found}, but this Pintle reads versions up to {newest}; \
         use a newer Pintle, or write the file for this one"
    )]
    FromTheFuture { place: Place, found: String, newest: u32 },
}

fn advice(meant: &Option<String>, known: &[String]) -> String {
    match meant {
        Some(meant) => format!("; did you mean {meant}?"),
        None if known.is_empty() => String::new(),
        None => format!("; there are {}", known.join(", ")),
    }
}
