//! Copies of what is no directory, with all that there is to it: blocks are shared where the file system can, and holes stay holes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Uid};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::unpack::{copy_xattrs, time_spec};

/// Bytes that are copied at once where the kernel does not copy by itself.
const CHUNK: usize = 256 << 10;

/// Copies the file `from`, which need only be open for its path, to `name` in `parent`, where nothing is.
///
/// # Errors
/// What the file system says.
pub(crate) fn copy_any(
    from: &OwnedFd,
    stat: &fs::Stat,
    parent: &OwnedFd,
    name: impl Arg + Copy,
) -> io::Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => copy_file(from, stat, parent, name)?,
        FileType::Symlink => {
            let to = fs::readlinkat(from, c"", Vec::new())?;
            fs::symlinkat(&to, parent, name)?;
        }
        kind => fs::mknodat(parent, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?,
    }
    copy_owner(stat, parent, name)
}

/// Owner and times of something that was just made. Of a regular file the owner is right already; setting it again would clear bits.
pub(crate) fn copy_owner(stat: &fs::Stat, parent: &OwnedFd, name: impl Arg + Copy) -> io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let time = time_spec((stat.st_mtime, stat.st_mtime_nsec as u32));
    let times = fs::Timestamps { last_access: time, last_modification: time };
    Ok(fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn copy_file(from: &OwnedFd, stat: &fs::Stat, parent: &OwnedFd, name: impl Arg + Copy) -> io::Result<()> {
    // It is a regular file, so that opening it waits for nobody.
    let source = File::open(format!("/proc/self/fd/{}", from.as_raw_fd()))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = File::from(fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
    copy_contents(&source, &copy, u64::try_from(stat.st_size).unwrap_or(0))?;
    fs::fchown(&copy, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(source.as_fd(), copy.as_fd())
}

fn copy_contents(source: &File, copy: &File, size: u64) -> io::Result<()> {
    // One file system that shares blocks: nothing is read, and nothing more is taken on disk.
    if size == 0 || fs::ioctl_ficlone(copy, source).is_ok() {
        return Ok(());
    }
    copy.set_len(size)?;
    let mut at = 0;
    while at < size {
        let from = match fs::seek(source, SeekFrom::Data(at)) {
            Ok(from) => from,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(_) => at,
        };
        let to = fs::seek(source, SeekFrom::Hole(from)).unwrap_or(size).clamp(from, size);
        copy_range(source, copy, from, to)?;
        at = to.max(at + 1);
    }
    Ok(())
}

/// By the kernel, which may have a way of its own; else by hand.
fn copy_range(source: &File, copy: &File, from: u64, to: u64) -> io::Result<()> {
    let (mut read, mut written) = (from, from);
    while read < to {
        let length = usize::try_from(to - read).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(source, Some(&mut read), copy, Some(&mut written), length) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_by_hand(source, copy, read, to);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, copy: &File, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = from;
    while at < to {
        let most = usize::try_from(to - at).unwrap_or(CHUNK).min(CHUNK);
        let read = source.read_at(&mut buffer[..most], at)?;
        if read == 0 {
            break;
        }
        copy.write_all_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn check(copying: impl Fn(&File, &File, u64) -> io::Result<()>) -> u64 {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let source = File::options().read(true).write(true).create_new(true).open(path("a")).unwrap();
        source.write_all_at(&[7; 5000], 0).unwrap();
        source.write_all_at(&[8; 300_000], 40 << 20).unwrap();
        source.set_len(80 << 20).unwrap();
        let copy = File::create_new(path("b")).unwrap();
        copying(&source, &copy, 80 << 20).unwrap();
        assert!(std::fs::read(path("a")).unwrap() == std::fs::read(path("b")).unwrap());
        copy.metadata().unwrap().blocks() * 512
    }

    #[test]
    fn holes_stay_holes() {
        let on_disk = check(copy_contents);
        assert!(on_disk < 2 << 20, "{on_disk} bytes");
        check(|source, copy, size| copy.set_len(size).and_then(|()| copy_by_hand(source, copy, 0, size)));
    }
}
