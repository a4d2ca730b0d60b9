//! Whole trees by descriptors: removed and measured in bounded memory, however deep a hostile container made them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a tree takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// On disk, in bytes.
    pub bytes: u64,
    pub inodes: u64,
}

/// Whether a path without links is a directory below `root`.
pub(crate) fn is_directory(root: BorrowedFd<'_>, path: &[u8]) -> bool {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    fs::openat2(root, path, OPEN | OFlags::PATH, Mode::empty(), resolve).is_ok()
}

/// Removes the directory `name` in `parent` with everything in it. Links are removed, not followed.
///
/// Directories within it are first renamed to its top, so that nothing is ever deeper than two levels and no path, stack or set of
/// descriptors grows with the tree.
///
/// # Errors
/// What the file system says; what was not removed is still below `name`. Absent is fine.
pub(crate) fn remove(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let top = match fs::openat(parent, name, OPEN, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(fs::unlinkat(parent, name, AtFlags::empty())?),
        Err(error) => return Err(error.into()),
    };
    // Names that cannot be met by chance: they are made unique by trying.
    let mut next = 0u64;
    // Whatever is a directory at the top is emptied into the top and removed, until there is none.
    loop {
        let directories = clear(&top)?;
        if directories.is_empty() {
            break;
        }
        for child in directories {
            let fd = fs::openat(&top, &child, OPEN, Mode::empty())?;
            for grandchild in clear(&fd)? {
                next = raise(&fd, &grandchild, &top, next)?;
            }
            drop(fd);
            fs::unlinkat(&top, &child, AtFlags::REMOVEDIR)?;
        }
    }
    drop(top);
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        done => Ok(done?),
    }
}

/// Moves a directory to the top under a new name.
fn raise(from: &OwnedFd, name: &CStr, top: &OwnedFd, mut next: u64) -> io::Result<u64> {
    loop {
        let new = format!(".pintle-removed-{next}");
        next += 1;
        match fs::renameat_with(from, name, top, new.as_str(), fs::RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // Not every file system has the flag; an empty directory in the way is replaced then, which is as well.
            Err(Errno::INVAL) => {
                fs::renameat(from, name, top, new.as_str())?;
                return Ok(next);
            }
            done => return Ok(done.map(|()| next)?),
        }
    }
}

/// Removes everything that is no directory, and names the directories.
fn clear(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            directories.push(name.to_owned());
            continue;
        }
        match fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => directories.push(name.to_owned()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(directories)
}

/// Measures a tree that somebody may be changing at the same time. A file with several names counts once per name it is met by.
///
/// # Errors
/// What the file system says of the top; what vanishes or cannot be read below is left out.
pub(crate) fn usage(top: OwnedFd) -> io::Result<Usage> {
    let mut usage = Usage::default();
    add(&mut usage, &fs::fstat(&top)?);
    let mut here = top;
    // Of every directory on the way down: who it is, and which of its directories are still to be measured.
    let mut stack = vec![(identity(&here)?, measure(&here, &mut usage)?)];
    while let Some((_, pending)) = stack.last_mut() {
        if let Some(name) = pending.pop() {
            let Ok(next) = fs::openat(&here, &name, OPEN, Mode::empty()) else { continue };
            let Ok(children) = measure(&next, &mut usage) else { continue };
            stack.push((identity(&next)?, children));
            here = next;
            continue;
        }
        stack.pop();
        let Some((parent, _)) = stack.last() else { break };
        // Only one directory is held open, however deep; but whoever moves it elsewhere must not lead us there.
        let up = fs::openat(&here, c"..", OPEN, Mode::empty())?;
        if identity(&up)? != *parent {
            break;
        }
        here = up;
    }
    Ok(usage)
}

fn identity(fd: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn measure(directory: &OwnedFd, usage: &mut Usage) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let Ok(entry) = entry else { break };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        add(usage, &stat);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            directories.push(name.to_owned());
        }
    }
    Ok(directories)
}

fn add(usage: &mut Usage, stat: &fs::Stat) {
    usage.inodes += 1;
    usage.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        fs::open(path, OPEN, Mode::empty()).unwrap()
    }

    #[test]
    fn very_deep_trees_are_measured_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let top = open(folder.path());
        fs::mkdirat(&top, "deep", Mode::RWXU).unwrap();
        let mut here = fs::openat(&top, "deep", OPEN, Mode::empty()).unwrap();
        // Deeper than a path can say.
        for _ in 0..2100 {
            fs::mkdirat(&here, "d", Mode::RWXU).unwrap();
            here = fs::openat(&here, "d", OPEN, Mode::empty()).unwrap();
        }
        let usage = usage(fs::openat(&top, "deep", OPEN, Mode::empty()).unwrap()).unwrap();
        assert_eq!(usage.inodes, 2101);
        remove(top.as_fd(), c"deep").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn removing_follows_no_links() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("canary"), "alive").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("a/link")).unwrap();
        std::os::unix::fs::symlink("..", inside.join("a/b/up")).unwrap();
        std::fs::create_dir(inside.join(".pintle-removed-0")).unwrap();
        std::fs::write(inside.join(".pintle-removed-0/x"), "").unwrap();
        let parent = open(folder.path());
        remove(parent.as_fd(), c"in").unwrap();
        assert!(!inside.exists());
        assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"alive");
        remove(parent.as_fd(), c"in").unwrap();
    }
}
