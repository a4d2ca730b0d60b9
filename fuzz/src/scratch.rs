//! A folder to unpack into, beside things that must stay as they are.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

/// `root/` is for the layer; `outside/canary` is not.
pub(crate) struct Scratch {
    folder: TempDir,
    root: File,
    before: (u32, u32, u64, i64, u64, i64),
}

impl Scratch {
    pub(crate) fn new() -> Scratch {
        // In memory, where there is such a place.
        let place =
            if fs::metadata("/dev/shm").is_ok_and(|meta| meta.is_dir()) { "/dev/shm" } else { "/tmp" };
        let folder = tempfile::Builder::new().prefix("pintle-fuzz-").tempdir_in(place).expect("a folder");
        for name in ["root", "outside"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::write(folder.path().join("outside/canary"), "alive").expect("a canary");
        let root = File::open(folder.path().join("root")).expect("a folder");
        let before = state(&folder);
        Scratch { folder, root, before }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Fails if anything beside the root changed.
    pub(crate) fn check(&self) {
        assert_eq!(state(&self.folder), self.before, "something outside was touched");
        assert_eq!(
            fs::read_dir(self.folder.path()).expect("the folder").count(),
            2,
            "something was made outside"
        );
        let outside = fs::read_dir(self.folder.path().join("outside")).expect("outside");
        assert_eq!(outside.count(), 1, "something was made outside");
    }
}

fn state(folder: &TempDir) -> (u32, u32, u64, i64, u64, i64) {
    let file = fs::symlink_metadata(folder.path().join("outside/canary")).expect("the canary");
    let outside = fs::symlink_metadata(folder.path().join("outside")).expect("outside");
    (file.mode(), file.uid(), file.nlink(), file.mtime_nsec(), file.size(), outside.mtime_nsec())
}
