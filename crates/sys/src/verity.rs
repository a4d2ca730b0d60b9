//! fs-verity: files that the kernel checks whenever it reads them from the disk (its documentation, "fs-verity: read-only file-based
//! authenticity protection").

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const FS_IOC_ENABLE_VERITY: libc::c_ulong = 0x4080_6685;
const FS_IOC_MEASURE_VERITY: libc::c_ulong = 0xc004_6686;
const SHA256: u32 = 1;
const BLOCK: u32 = 4096;

/// `struct fsverity_enable_arg` of linux/fsverity.h.
#[repr(C)]
struct Enable {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved_1: u32,
    signature: u64,
    reserved_2: [u64; 11],
}

/// `struct fsverity_digest` with room for the largest digest there is.
#[repr(C)]
struct Measured {
    algorithm: u16,
    size: u16,
    digest: [u8; 64],
}

/// Computes a tree of hashes of a file that nobody has open for writing, and has the kernel hold it against everything that is read
/// from then on. It reads the whole file. From then on nobody can write to it.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP`: the file system has no such thing.
pub fn enable(file: BorrowedFd<'_>) -> io::Result<()> {
    let argument = Enable {
        version: 1,
        hash_algorithm: SHA256,
        block_size: BLOCK,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved_1: 0,
        signature: 0,
        reserved_2: [0; 11],
    };
    // SAFETY: the call reads an fsverity_enable_arg, which `argument` is, without salt or signature to follow; the descriptor is open for
    // the call, since it is borrowed.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_ENABLE_VERITY as _, &raw const argument) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The digest of a file that the kernel checks, in hexadecimal; none if it does not check it.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP`: the file system has no such thing.
pub fn digest(file: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let mut measured = Measured { algorithm: 0, size: 64, digest: [0; 64] };
    // SAFETY: the call fills an fsverity_digest with at most the 64 bytes that its size says; the descriptor is open for the call, since it
    // is borrowed.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY as _, &raw mut measured) };
    if done == 0 {
        let bytes = &measured.digest[..usize::from(measured.size).min(64)];
        return Ok(Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENODATA) => Ok(None),
        error => Err(error),
    }
}

/// Whether an error says that the file system cannot do this.
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_checked_file_can_be_read_and_not_written() {
        assert_eq!(size_of::<Enable>(), 128);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        match enable(file.as_fd()) {
            Err(error) if is_unsupported(&error) => {
                println!("SKIPPED: no fs-verity in {}: {error}", folder.path().display());
                return;
            }
            done => done.unwrap(),
        }
        assert_eq!(digest(file.as_fd()).unwrap().unwrap().len(), 64);
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 100_000]);
        assert!(std::fs::File::options().write(true).open(&path).is_err());
    }
}
