//! The file of a log: opened without following links, appended to in whole records, exchanged when it was rotated.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom};
use rustix::io::Errno;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why a log file could not be opened. No file was made, or the one that was made is removed again.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    #[error("the log path {path:?} is not the absolute path of a file")]
    BadPath { path: PathBuf },
    #[error(
        "the folder {path:?} of a log cannot be opened: {cause}; the kubelet makes it before it creates the container"
    )]
    Folder { path: PathBuf, cause: Errno },
    #[error("the log file {path:?} cannot be opened: {cause}")]
    File { path: PathBuf, cause: Errno },
    #[error("the log path {path:?} is not a regular file")]
    NotRegular { path: PathBuf },
}

/// Where records go.
#[derive(Debug)]
pub struct LogFile {
    /// `None` discards.
    open: Option<Open>,
    /// Bytes the file may have; `u64::MAX` without a limit.
    limit: u64,
    dropped: u64,
    last_ns: i64,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    fd: OwnedFd,
    /// Its length as far as we have written it.
    length: u64,
    /// There was no such file before.
    is_new: bool,
}

impl LogFile {
    /// A log that keeps nothing.
    pub fn discard() -> LogFile {
        LogFile { open: None, limit: u64::MAX, dropped: 0, last_ns: 0 }
    }

    /// Opens or makes the file at `path` (absolute) for appending. `max_bytes` of 0 is no limit.
    ///
    /// # Errors
    /// The folder's last component or the file is a symbolic link, is of another type, or cannot be opened.
    pub fn open(path: &Path, max_bytes: u64) -> Result<LogFile, OpenLogError> {
        let limit = if max_bytes == 0 { u64::MAX } else { max_bytes };
        Ok(LogFile { open: Some(Open::at(path)?), limit, dropped: 0, last_ns: 0 })
    }

    #[cfg(test)]
    pub(super) fn of_descriptor(fd: OwnedFd) -> LogFile {
        let open = Open { path: PathBuf::new(), fd, length: 0, is_new: false };
        LogFile { open: Some(open), limit: u64::MAX, dropped: 0, last_ns: 0 }
    }

    /// Opens the same path again and from now on writes there. Records are never divided between the two files. A log that
    /// keeps nothing goes on keeping nothing.
    ///
    /// # Errors
    /// As [`LogFile::open`]; the old file stays in use.
    pub fn reopen(&mut self) -> Result<(), OpenLogError> {
        if let Some(open) = &mut self.open {
            *open = Open::at(&open.path)?;
        }
        Ok(())
    }

    /// Removes the file again if it was made by opening it: the container that it was for did not come to be, and nothing of it ever ran.
    pub fn take_back(&mut self) {
        if let Some(open) = self.open.take_if(|open| open.is_new)
            && let (Ok(folder), Some(name)) = (Open::folder(&open.path), open.path.file_name())
        {
            let _ = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
        }
    }

    /// The text of the last record, cut to a length that a message can have.
    pub fn last_words(&self) -> Option<String> {
        let open = self.open.as_ref()?;
        let file = std::fs::File::open(format!("/proc/self/fd/{}", open.fd.as_raw_fd())).ok()?;
        let mut end = [0; 4096];
        let length = file.read_at(&mut end, open.length.saturating_sub(4096)).ok()?;
        let text = String::from_utf8_lossy(&end[..length]);
        let record = text.lines().last()?;
        // The time, the stream, whether the line goes on; then the line.
        let words: String = record.splitn(4, ' ').nth(3)?.chars().take(1000).collect();
        let words = words.replace(char::is_control, " ");
        (!words.trim().is_empty()).then(|| words.trim().to_owned())
    }

    /// Records that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// `now_ns`, or the time of the record before if the clock was set back.
    pub(super) fn monotone(&mut self, now_ns: i64) -> i64 {
        self.last_ns = self.last_ns.max(now_ns);
        self.last_ns
    }

    /// Appends records of `per_record` slices each. What cannot be written whole is taken back and counted as dropped: the container
    /// must never wait for a disk that is full.
    pub(super) fn append(&mut self, slices: &[IoSlice<'_>], per_record: usize) {
        let Some(open) = &mut self.open else {
            return;
        };
        let (fitting, _) = whole_records(slices, per_record, self.limit.saturating_sub(open.length));
        self.dropped += (slices.len() / per_record - fitting) as u64;
        let mut rest = &slices[..fitting * per_record];
        while !rest.is_empty() {
            let written = match rustix::io::writev(&open.fd, rest) {
                Err(Errno::INTR) => continue,
                Err(_) | Ok(0) => {
                    self.dropped += (rest.len() / per_record) as u64;
                    return;
                }
                Ok(written) => written as u64,
            };
            open.length += written;
            let (whole, torn) = whole_records(rest, per_record, written);
            rest = &rest[whole * per_record..];
            if torn > 0 {
                let (record, after) = rest.split_at(per_record);
                rest = after;
                self.dropped += u64::from(!open.complete(record, torn));
            }
        }
    }
}

/// How many of the records lie within the first `bytes`, and how many bytes are left of those.
fn whole_records(slices: &[IoSlice<'_>], per_record: usize, mut bytes: u64) -> (usize, u64) {
    let mut whole = 0;
    for record in slices.chunks(per_record) {
        let length = record.iter().map(|slice| slice.len() as u64).sum::<u64>();
        if length > bytes {
            break;
        }
        bytes -= length;
        whole += 1;
    }
    (whole, bytes)
}

impl Open {
    fn at(path: &Path) -> Result<Open, OpenLogError> {
        let directory = Open::folder(path)?;
        let name = path.file_name().ok_or_else(|| OpenLogError::BadPath { path: path.into() })?;
        // NONBLOCK, so that a fifo somebody put there cannot stop us; a regular file does not know it.
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | OFlags::NONBLOCK
            | OFlags::NOCTTY;
        let open = |flags| rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o640));
        let (fd, is_new) = match open(flags | OFlags::EXCL) {
            Err(Errno::EXIST) => (open(flags), false),
            other => (other, true),
        };
        let fd = fd.map_err(|cause| OpenLogError::File { path: path.into(), cause })?;
        let stat = rustix::fs::statat(&fd, c"", AtFlags::EMPTY_PATH)
            .map_err(|cause| OpenLogError::File { path: path.into(), cause })?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(OpenLogError::NotRegular { path: path.into() });
        }
        Ok(Open { path: path.into(), fd, length: stat.st_size as u64, is_new })
    }

    /// The folder of the file at `path`.
    fn folder(path: &Path) -> Result<OwnedFd, OpenLogError> {
        let folder = path.parent().filter(|_| path.is_absolute() && path.file_name().is_some());
        let folder = folder.ok_or_else(|| OpenLogError::BadPath { path: path.into() })?;
        rustix::fs::openat2(
            rustix::fs::CWD,
            folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::NO_MAGICLINKS,
        )
        .map_err(|cause| OpenLogError::Folder { path: folder.into(), cause })
    }

    /// Writes the rest of a record whose first `torn` bytes are in the file, or takes those back; says which.
    fn complete(&mut self, record: &[IoSlice<'_>], mut torn: u64) -> bool {
        let mut skip = torn as usize;
        for slice in record {
            let mut left = &slice[skip.min(slice.len())..];
            skip -= skip.min(slice.len());
            while !left.is_empty() {
                match rustix::io::write(&self.fd, left) {
                    Err(Errno::INTR) => {}
                    Err(_) | Ok(0) => {
                        self.take_back(torn);
                        return false;
                    }
                    Ok(written) => {
                        left = &left[written..];
                        torn += written as u64;
                        self.length += written as u64;
                    }
                }
            }
        }
        true
    }

    /// After an appending write the position is the file's end (open(2)).
    fn take_back(&mut self, torn: u64) {
        if let Ok(end) = rustix::fs::seek(&self.fd, SeekFrom::Current(0)) {
            let _ = rustix::fs::ftruncate(&self.fd, end.saturating_sub(torn));
        }
        self.length = self.length.saturating_sub(torn);
    }
}
