//! Where somebody said something: a file and a line of it, or a setting.

use std::fmt;
use std::path::{Path, PathBuf};

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub file: PathBuf,
    /// Counted from one; zero: the file as a whole.
    pub line: usize,
}

impl Place {
    /// The file as a whole.
    pub fn whole(file: &Path) -> Place {
        Place { file: file.to_owned(), line: 0 }
    }

    /// The line of `text` in which the byte at `offset` is.
    pub fn at(file: &Path, text: &[u8], offset: usize) -> Place {
        let before = text.get(..offset).unwrap_or(text);
        Place { file: file.to_owned(), line: 1 + before.iter().filter(|&&byte| byte == b'\n').count() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(out, "{}", self.file.display()),
            line => write!(out, "{}:{line}", self.file.display()),
        }
    }
}
