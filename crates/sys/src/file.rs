//! Files that are whole or absent: written beside their place, then renamed into it. And bytes on their way to the disk before anybody waits for them.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of a crash a written file must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process: what tmpfs and records of running pods need. No fsync.
    Process,
    /// A power cut: the file and its folder are synced before this returns.
    Disk,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Replaces `path` by a file with `bytes` and `mode`; a reader sees the old file or the new one, never a part.
///
/// # Errors
/// Whatever the file system says; the temporary file beside `path` is removed then.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file name"))?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let temporary = folder.join(temporary);
    let write = || -> io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)?;
        if durability == Durability::Disk {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

/// What files that are read at once mostly fit in. The kernel's own tell no size, and a buffer that grows from nothing asks a dozen times.
const MOSTLY: usize = 16 << 10;

/// Reads the file at `path`, at most `limit` bytes of it.
///
/// # Errors
/// It cannot be opened or read.
pub fn read(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    read_from(std::fs::File::open(path)?, limit)
}

/// Reads `file` from where it is, at most `limit` bytes.
///
/// # Errors
/// It cannot be read.
pub fn read_from(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MOSTLY);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Starts to write a range of a file to the disk and does not wait for it (sync_file_range(2)): a sync later finds less to do. It promises
/// nothing and changes nothing that can be read, so that an error means only that nothing was gained.
pub fn begin_writeback(file: BorrowedFd<'_>, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else { return };
    // SAFETY: sync_file_range reads and writes no memory of this process; `file` is open for the call, since it is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_no_temporary_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        write_atomic(&path, b"one", 0o600, Durability::Disk).unwrap();
        write_atomic(&path, b"two", 0o600, Durability::Process).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert!(
            write_atomic(&folder.path().join("absent/record"), b"x", 0o600, Durability::Process).is_err()
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path, u64::MAX).unwrap(), bytes);
        assert_eq!(read(&path, 70_000).unwrap(), bytes[..70_000]);
        assert!(!read("/proc/self/mountinfo", 1 << 20).unwrap().is_empty());
        assert!(read(folder.path().join("absent"), 1).is_err());
    }
}
