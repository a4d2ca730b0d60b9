//! What is thrown away: out of sight at once by one rename, off the disk in the background, and after a restart if it has to be.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::is_no_space;
use crate::tree;

/// The trash of one file system.
#[derive(Debug)]
pub(crate) struct Trash {
    folder: PathBuf,
}

/// Names that this process has given: several may share a folder.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Trash {
    /// Opens the trash below `root`, and goes on emptying it.
    pub(crate) fn open(root: &Path) -> io::Result<Trash> {
        let trash = Trash { folder: root.join("trash") };
        std::fs::create_dir_all(&trash.folder)?;
        trash.empty();
        Ok(trash)
    }

    /// What has been thrown away and is still there.
    pub(crate) fn contents(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// Removes in the background what was thrown away and could not be removed then.
    pub(crate) fn empty(&self) {
        self.contents().into_iter().for_each(remove_in_background);
    }

    /// Throws away what did not become anything, or that nobody needs any more.
    pub(crate) fn discard(&self, path: &Path) {
        if let Err(error) = self.throw_away(path) {
            tracing::warn!(path = %path.display(), %error, "cannot be thrown away");
        }
    }

    /// Takes a directory or file out of sight at once. One that is not there is gone already.
    pub(crate) fn throw_away(&self, path: &Path) -> io::Result<()> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let to = self.folder.join(format!("{}-{number}", std::process::id()));
        match std::fs::rename(path, &to) {
            Ok(()) => remove_in_background(to),
            // Left by an earlier process of the same number.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return self.throw_away(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Even a name takes room in the trash. What goes file by file gives room from the first one on.
            Err(error) if is_no_space(&error) => remove_path(path)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Removes a directory without making anybody wait.
pub(crate) fn remove_in_background(path: PathBuf) {
    let work = move || {
        if let Err(error) = remove_path(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot be removed; it is tried again at the next start");
        }
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

/// Removes a directory tree of ours by path; its parent is a trusted folder.
fn remove_path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = match File::open(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        done => done?,
    };
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    tree::remove(parent.as_fd(), &name)
}
