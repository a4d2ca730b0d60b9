//! Loop devices: block devices whose blocks are a file's (loop(4)).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// How often another may take the free device first.
const TRIES: u32 = 64;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const NOTHING: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A loop device, open. It lets go of its file when nobody has it open and nothing of it is mounted.
#[derive(Debug)]
pub struct LoopDevice {
    _device: OwnedFd,
    number: u32,
}

impl LoopDevice {
    /// It is `/dev/loop` with this number.
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// A read-only device of the file at `path`: the one that there is already, so that its file system is the same, or a new one.
///
/// # Errors
/// The kernel has no loop devices or none left, or the file cannot be opened.
pub fn of_file(path: &Path) -> io::Result<LoopDevice> {
    let file = File::open(path)?;
    match existing(path, &file) {
        Some(device) => Ok(device),
        None => new(path, &file),
    }
}

fn existing(path: &Path, file: &File) -> Option<LoopDevice> {
    let wanted = file.metadata().ok()?;
    std::fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        let number: u32 = name.to_str()?.strip_prefix("loop")?.parse().ok()?;
        let backing = std::fs::read(entry.path().join("loop/backing_file")).ok()?;
        if backing.trim_ascii_end() != path.as_os_str().as_bytes() {
            return None;
        }
        // From here on it stays what it is, since it is open; it may have been let go of a moment before.
        let device = File::open(device_path(number)).ok()?;
        let mut info = NOTHING;
        // SAFETY: info is a loop_info64, which the call fills; the descriptor is open for the call.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
        // The kernel writes devices' numbers in its own way, of which the low bits are enough beside the inode and the name.
        let same = done == 0
            && info.inode == wanted.ino()
            && info.offset == 0
            && info.flags & LO_FLAGS_READ_ONLY != 0;
        same.then(|| LoopDevice { _device: device.into(), number })
    })
}

fn new(path: &Path, file: &File) -> io::Result<LoopDevice> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let mut info = NOTHING;
    info.flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR;
    // What `losetup` shows; the end of the path says more than its beginning.
    let name = path.as_os_str().as_bytes();
    let name = &name[name.len().saturating_sub(info.file_name.len() - 1)..];
    info.file_name[..name.len()].copy_from_slice(name);
    let config = Config { fd: file.as_raw_fd() as u32, block_size: 0, info, reserved: [0; 8] };
    for _ in 0..TRIES {
        // SAFETY: this call has no argument; the descriptor is open for it.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        let number = u32::try_from(number).map_err(|_| io::Error::last_os_error())?;
        let device = File::open(device_path(number))?;
        // SAFETY: config is a loop_config, which the call reads; both descriptors are open for it.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
        if done == 0 {
            return Ok(LoopDevice { _device: device.into(), number });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn device_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_device_as_long_as_it_is_open() {
        let folder = std::env::temp_dir().join(format!("pintle-loop-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("file");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        let first = of_file(&path);
        let checked = first.as_ref().ok().map(|first| {
            let second = of_file(&path).unwrap();
            let bytes = std::fs::read(device_path(first.number())).unwrap();
            let device = File::options().write(true).open(device_path(first.number()));
            let wrote =
                device.and_then(|device| std::os::unix::fs::FileExt::write_at(&device, &[0; 4096], 0));
            (second.number() == first.number(), bytes == vec![7; 8192], wrote.is_ok())
        });
        std::fs::remove_dir_all(&folder).unwrap();
        match (first, checked) {
            (Ok(_), Some(checked)) => assert_eq!(checked, (true, true, false)),
            (Err(error), _) => println!("SKIPPED: no loop devices: {error}"),
            _ => unreachable!(),
        }
    }
}
