//! Paths that a request names inside a container: absolute, lexically clean, bounded. Resolving them is the runtime's business, by
//! descriptors.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// PATH_MAX of Linux, with the final NUL.
const PATH_MAX: usize = 4096;
/// NAME_MAX of Linux.
const NAME_MAX: usize = 255;

/// Why a path is refused. It quotes only the beginning of what it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("it is empty")]
    Empty,
    #[error("{0:?} is not an absolute path")]
    Relative(String),
    #[error("{0:?}... is longer than a path can be (4095 bytes, 255 for a name)")]
    TooLong(String),
    #[error("{0:?} holds a NUL byte")]
    Nul(String),
}

/// The path without `.`, `..` and doubled slashes. `..` at the root stays there, as in chroot(2).
pub(crate) fn clean_absolute(path: &Path) -> Result<PathBuf, BadPath> {
    let bytes = path.as_os_str().as_bytes();
    let quote = || path.to_string_lossy().chars().take(80).collect::<String>();
    if bytes.is_empty() {
        return Err(BadPath::Empty);
    }
    if bytes.contains(&0) {
        return Err(BadPath::Nul(quote()));
    }
    if bytes.len() >= PATH_MAX || bytes.split(|b| *b == b'/').any(|name| name.len() > NAME_MAX) {
        return Err(BadPath::TooLong(quote()));
    }
    if !path.is_absolute() {
        return Err(BadPath::Relative(quote()));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_cleaned_and_bad_ones_named() {
        let clean = |p: &str| clean_absolute(Path::new(p));
        assert_eq!(clean("/a/./b//c/../d"), Ok("/a/b/d".into()));
        assert_eq!(clean("/../../etc"), Ok("/etc".into()));
        assert_eq!(clean(""), Err(BadPath::Empty));
        assert_eq!(clean("a/b"), Err(BadPath::Relative("a/b".into())));
        assert_eq!(clean("/a\0b"), Err(BadPath::Nul("/a\0b".into())));
        assert!(matches!(clean(&format!("/{}", "x".repeat(256))), Err(BadPath::TooLong(_))));
        assert!(matches!(clean(&"/a".repeat(3000)), Err(BadPath::TooLong(_))));
    }

    proptest! {
        #[test]
        fn a_clean_path_is_absolute_and_stays_as_it_is(path in "/[a./]{0,40}") {
            let clean = clean_absolute(Path::new(&path)).unwrap();
            prop_assert!(clean.is_absolute());
            prop_assert!(clean.components().all(|c| !matches!(c, Component::ParentDir)));
            prop_assert_eq!(clean_absolute(&clean).unwrap(), clean);
        }
    }
}
