//! Owner, mode, times and extended attributes of what was made.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{UnpackError, xattrs};
use crate::tar::Entry;

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
    for (name, value) in xattrs::kept(entry)? {
        tolerate(name, fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty()))
            .map_err(failed)?;
    }
    Ok(())
}

/// Takes from a directory the attributes that an earlier entry gave it: of two entries the last counts.
pub(crate) fn clear(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    if has_no_xattrs(fd) {
        return Ok(());
    }
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(fd, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        listed => listed?,
    };
    for name in names[..length].split(|&b| b == 0).filter(|name| xattrs::is_kept(name)) {
        fs::fremovexattr(fd, OsStr::from_bytes(name))?;
    }
    Ok(())
}

/// Gives a directory what is left when everything is in it.
pub(super) fn apply_last(
    fd: BorrowedFd<'_>,
    mode: Option<u32>,
    acl: Option<&[u8]>,
    mtime: (i64, u32),
) -> Result<(), Errno> {
    if let Some(acl) = acl {
        let name = OsStr::from_bytes(xattrs::ACL_DEFAULT);
        tolerate(xattrs::ACL_DEFAULT, fs::fsetxattr(fd, name, acl, XattrFlags::empty()))?;
    }
    if let Some(mode) = mode {
        fs::fchmod(fd, Mode::from_raw_mode(mode))?;
    }
    fs::futimens(fd, &times(mtime))
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
    let xattrs = xattrs::kept(entry)?;
    if !is_link || !xattrs.is_empty() {
        // chmod(2) and setxattr(2) follow a link in the name's place; what was opened stays what it is, and a link has no mode to change.
        let flags = fs::OFlags::PATH | fs::OFlags::NOFOLLOW | fs::OFlags::CLOEXEC;
        let fd = fs::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if !is_link {
            fs::chmod(&path, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
        }
        for (name, value) in xattrs {
            tolerate(name, fs::setxattr(&path, OsStr::from_bytes(name), value, XattrFlags::empty()))
                .map_err(failed)?;
        }
    }
    fs::utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
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
    Ok(plain && has_no_xattrs(directory.as_fd()))
}

fn has_no_xattrs(fd: BorrowedFd<'_>) -> bool {
    matches!(fs::flistxattr_query(fd), Ok(0) | Err(Errno::OPNOTSUPP))
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
    if has_no_xattrs(from) {
        return Ok(());
    }
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    for name in names[..length].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if xattrs::is_kept(name) {
            let mut value = vec![0u8; xattrs::XATTR_VALUE_MAX];
            let size = fs::fgetxattr(from, OsStr::from_bytes(name), &mut value[..])?;
            tolerate(name, fs::fsetxattr(to, OsStr::from_bytes(name), &value[..size], XattrFlags::empty()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_with_attributes_is_no_implied_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let directory = File::open(folder.path()).unwrap();
        let is_ours = fs::fstat(&directory).unwrap().st_uid == 0;
        assert_eq!(is_implied(&directory).unwrap(), is_ours);
        if fs::fsetxattr(&directory, "user.note", b"x", XattrFlags::empty()).is_err() {
            println!("SKIPPED: no extended attributes in {}", folder.path().display());
            return;
        }
        assert!(!is_implied(&directory).unwrap());
        clear(directory.as_fd()).unwrap();
        assert_eq!(is_implied(&directory).unwrap(), is_ours);
    }
}
