//! The daemon's folders: private to root, and used by one daemon at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;

use super::error::ServeError;
use crate::config::Daemon;

/// How long a folder may be another's before that counts as another daemon.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// The locks of the folders; they are let go when this is dropped, or the process ends however it may.
#[derive(Debug)]
pub(super) struct Folders(#[allow(dead_code, reason = "held for its locks")] [File; 2]);

/// Makes the folders where they are missing and takes them for this daemon.
pub(super) fn take(daemon: &Daemon) -> Result<Folders, ServeError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let root = lock("the root folder", &daemon.root)?;
    let state = lock("the state folder", &daemon.state)?;
    Ok(Folders([root, state]))
}

fn lock(what: &'static str, path: &Path) -> Result<File, ServeError> {
    let failed = |source| ServeError::Folder { what, path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // Layers hold set-uid programs of strangers: nobody else walks in, whatever the umask was.
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("lock"))
        .map_err(failed)?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            // A killed daemon's lock lasts until the last child that it was about to execute has let go of the copy.
            Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ServeError::Taken { path: path.to_owned() }),
            Err(error) => return Err(failed(error.into())),
        }
    }
}
