//! tmpcopyup: fills a new tmpfs with what it is about to cover. The content is the image's and hostile: it is read by descriptor,
//! without following links, and within bounds.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

const DEEPEST: u32 = 128;
const MOST_ENTRIES: u32 = 1 << 20;

/// Copies directories, regular files, links, fifos and sockets' names with owner and mode from `from` to `to`. Devices are left out.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let from = open(from, c".", OFlags::DIRECTORY)?;
    let stat = rustix::fs::fstat(&from)?;
    let to = open(to, c".", OFlags::DIRECTORY)?;
    own(&to, &stat)?;
    let mut left = MOST_ENTRIES;
    directory(from, &to, DEEPEST, &mut left)
}

fn open(at: BorrowedFd<'_>, name: &CStr, more: OFlags) -> io::Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn own(fd: &OwnedFd, stat: &rustix::fs::Stat) -> io::Result<()> {
    rustix::fs::fchown(fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

fn directory(from: OwnedFd, to: &OwnedFd, depth: u32, left: &mut u32) -> io::Result<()> {
    let too_much = || io::Error::new(io::ErrorKind::InvalidData, "too deep or too many files");
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(too_much)?;
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match kind {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, mode)?;
                let made = open(to.as_fd(), name, OFlags::DIRECTORY)?;
                own(&made, &stat)?;
                let source = open(from.as_fd(), name, OFlags::DIRECTORY)?;
                directory(source, &made, depth.checked_sub(1).ok_or_else(too_much)?, left)?;
            }
            FileType::RegularFile => {
                let source = open(from.as_fd(), name, OFlags::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let made = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
                let mut made = std::fs::File::from(made);
                io::copy(&mut std::fs::File::from(source), &mut made)?;
                own(&OwnedFd::from(made), &stat)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            FileType::Fifo => {
                rustix::fs::mknodat(to, name, kind, mode, 0)?;
                let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}
