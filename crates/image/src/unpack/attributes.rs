//! Owner, mode, times and extended attributes of what was made.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::UnpackError;
use crate::tar::Entry;

/// The largest name and value of an extended attribute (xattr(7)), and how many one entry may have.
const XATTR_NAME_MAX: usize = 255;
const XATTR_VALUE_MAX: usize = 64 << 10;
const XATTRS_MAX: usize = 128;

/// Name and value.
type Xattr<'a> = (&'a [u8], &'a [u8]);

/// Gives an open file or directory its owner, mode and attributes. The order matters: chown(2) clears the set-id bits and capabilities.
///
/// `made_with` is the mode that it has already.
pub(super) fn apply(fd: BorrowedFd<'_>, entry: &Entry, made_with: u32) -> Result<(), UnpackError> {
    let failed = |error: Errno| UnpackError::io(&entry.path, error);
    if (entry.uid, entry.gid) != (0, 0) {
        fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(failed)?;
    }
    if made_with != entry.mode {
        fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
    }
    for (name, value) in kept_xattrs(entry)? {
        tolerate(name, fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty()))
            .map_err(failed)?;
    }
    Ok(())
}

/// The same for what cannot be opened: links, devices and FIFOs. `is_link`: it has no mode of its own.
pub(super) fn apply_at(
    parent: BorrowedFd<'_>,
    name: &CString,
    entry: &Entry,
    is_link: bool,
) -> Result<(), UnpackError> {
    let failed = |error: Errno| UnpackError::io(&entry.path, error);
    if (entry.uid, entry.gid) != (0, 0) {
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
    }
    if !is_link {
        // Nobody else is in this directory: what was made a moment ago is no link now.
        fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty()).map_err(failed)?;
    }
    let xattrs = kept_xattrs(entry)?;
    if !xattrs.is_empty() {
        let flags = fs::OFlags::PATH | fs::OFlags::NOFOLLOW | fs::OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        for (name, value) in xattrs {
            tolerate(name, fs::setxattr(&path, OsStr::from_bytes(name), value, XattrFlags::empty()))
                .map_err(failed)?;
        }
    }
    fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
}

/// The attributes that a layer may bring. Capabilities, ACLs and the user's own are part of the image; labels of security modules
/// are the host's business, and `trusted.*` and `user.overlay.*` would tell overlayfs to show something else than what was checked.
fn kept_xattrs(entry: &Entry) -> Result<Vec<Xattr<'_>>, UnpackError> {
    let bad = |why| Err(UnpackError::entry(&entry.path, why));
    let mut kept: Vec<Xattr<'_>> = Vec::new();
    for (name, value) in &entry.xattrs {
        let is_kept = name == b"security.capability"
            || name == b"system.posix_acl_access"
            || name == b"system.posix_acl_default"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if !is_kept {
            continue;
        }
        if name.len() > XATTR_NAME_MAX || name.contains(&0) {
            return bad("has an extended attribute whose name is not one");
        }
        if value.len() > XATTR_VALUE_MAX {
            return bad("has an extended attribute larger than 64 KiB");
        }
        kept.push((name, value));
    }
    if kept.len() > XATTRS_MAX {
        return bad("has more than 128 extended attributes");
    }
    Ok(kept)
}

/// A file system or a kind of file without a namespace of attributes loses those of it, save for capabilities, without which
/// programs would fail later.
fn tolerate(name: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM) if name != b"security.capability" => Ok(()),
        other => other,
    }
}

/// Access and change at the same time.
pub(super) fn times(mtime: (i64, u32)) -> Timestamps {
    let time = time_spec(mtime);
    Timestamps { last_access: time, last_modification: time }
}

/// A time as the kernel takes it.
pub(crate) fn time_spec((seconds, nanoseconds): (i64, u32)) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() }
}

/// Whether a directory looks like one that was made without an entry: nothing is lost where such a one covers it.
pub(crate) fn is_implied(directory: impl AsFd) -> io::Result<bool> {
    let stat = fs::fstat(&directory)?;
    let plain = (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777) == (0, 0, super::dirs::IMPLIED_MODE);
    // An empty buffer asks how long the list would be.
    let no_xattrs =
        matches!(fs::flistxattr(directory.as_fd(), &mut [0u8; 0][..]), Ok(0) | Err(Errno::OPNOTSUPP));
    Ok(plain && no_xattrs)
}

/// Gives directory `to` what `from` has: owner, mode, the attributes that layers may have, and times.
pub(crate) fn copy_directory(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    let stat = fs::fstat(from)?;
    fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(from, to)?;
    let mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
    fs::futimens(to, &times(mtime))?;
    Ok(())
}

/// Copies the attributes that layers may have from one open file to another.
pub(crate) fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        let is_kept = name == b"security.capability"
            || name.starts_with(b"system.posix_acl_")
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if is_kept {
            let mut value = vec![0u8; XATTR_VALUE_MAX];
            let size = fs::fgetxattr(from, OsStr::from_bytes(name), &mut value[..])?;
            tolerate(name, fs::fsetxattr(to, OsStr::from_bytes(name), &value[..size], XattrFlags::empty()))?;
        }
    }
    Ok(())
}
