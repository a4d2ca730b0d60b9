//! Reading what an administrator wrote: regular files of a sensible size.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::RouteError;

/// The largest file that is read. `registries.conf` with a thousand aliases has some 60 kB.
const FILE_MAX: u64 = 4 << 20;

/// The bytes of a file; none: there is no such file.
///
/// # Errors
/// [`RouteError::Unreadable`].
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, RouteError> {
    let fail = |source| RouteError::unreadable(path, source);
    // Without waiting for a writer, should it be a pipe.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(fail(io::Error::other("it is no regular file")));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(fail(io::Error::other(format!("it is larger than {FILE_MAX} bytes"))));
    }
    Ok(Some(bytes))
}

/// A file that something names: that it is missing is an error.
pub(super) fn read_named(path: &Path) -> Result<Vec<u8>, RouteError> {
    read(path)?.ok_or_else(|| RouteError::unreadable(path, io::ErrorKind::NotFound.into()))
}

/// The files in a folder whose names end so, sorted by name; none: there is no such folder.
pub(super) fn with_suffix(folder: &Path, suffix: &str) -> Result<Vec<PathBuf>, RouteError> {
    let fail = |source| RouteError::unreadable(folder, source);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        let fits = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(suffix));
        if fits && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether there is such a folder.
pub(super) fn is_folder(path: &Path) -> Result<bool, RouteError> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(RouteError::unreadable(path, error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
