//! Project quotas: what all files of one project may take together, whoever writes them (quotactl(2), and "Project quota" in the
//! documentation of ext4 and XFS).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in a directory belongs to the directory's project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

const PRJQUOTA: u32 = 2;
const Q_GETQUOTA: u32 = 0x0080_0007;
const Q_SETQUOTA: u32 = 0x0080_0008;
const Q_XGETQSTAT: u32 = ('X' as u32) << 8 | 5;
const QIF_BLIMITS: u32 = 1;
/// In `qs_flags` of `struct fs_quota_stat`: limits of projects are enforced.
const PDQ_ENFORCED: u16 = 1 << 5;
/// Bytes of the unit in which limits are.
const BLOCK: u64 = 1024;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct FsXattr {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct DiskQuota {
    hard_blocks: u64,
    soft_blocks: u64,
    space: u64,
    hard_inodes: u64,
    soft_inodes: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// `struct fs_quota_stat` of linux/dqblk_xfs.h, as far as it is read, with more room than any version takes.
#[repr(C, align(8))]
struct State {
    version: i8,
    flags: u16,
    rest: [u8; 252],
}

/// What a project takes, and may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Use {
    /// Bytes on disk.
    pub bytes: u64,
    pub inodes: u64,
    /// Bytes; zero is no limit.
    pub limit: u64,
}

/// The project of a file; zero is none.
///
/// # Errors
/// The file system has no projects.
pub fn project(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(attributes(file)?.project)
}

/// Gives a directory that is still empty to a project, with everything that will be made in it.
///
/// # Errors
/// The file system has no projects, or the caller is in a user namespace.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let attributes = attributes(directory)?;
    let changed = FsXattr { project, flags: attributes.flags | FS_XFLAG_PROJINHERIT, ..attributes };
    // SAFETY: the call reads an fsxattr, which `changed` is; the descriptor is open for the call, since it is borrowed.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR as _, &raw const changed) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<FsXattr> {
    let mut attributes = FsXattr::default();
    // SAFETY: the call fills an fsxattr, which `attributes` is; the descriptor is open for the call, since it is borrowed.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR as _, &raw mut attributes) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

/// What a project takes in the file system that `on` is in.
///
/// # Errors
/// It has no project quotas.
pub fn usage(on: BorrowedFd<'_>, project: u32) -> io::Result<Use> {
    let mut quota = DiskQuota::default();
    match call(on, Q_GETQUOTA, project, &raw mut quota as *mut libc::c_void) {
        Ok(()) => {}
        // XFS of a project that nothing was ever written for.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        Err(error) => return Err(error),
    }
    Ok(Use { bytes: quota.space, inodes: quota.inodes, limit: quota.hard_blocks * BLOCK })
}

/// Limits what a project may take in the file system that `on` is in, in whole KiB; zero is no limit.
///
/// # Errors
/// It has no project quotas.
pub fn set_limit(on: BorrowedFd<'_>, project: u32, bytes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let mut quota =
        DiskQuota { hard_blocks: blocks, soft_blocks: blocks, valid: QIF_BLIMITS, ..DiskQuota::default() };
    call(on, Q_SETQUOTA, project, &raw mut quota as *mut libc::c_void)
}

/// Whether limits of projects are kept in the file system that `on` is in, and not only counted.
///
/// # Errors
/// It has no quotas at all.
pub fn is_enforced(on: BorrowedFd<'_>) -> io::Result<bool> {
    let mut state = State { version: 1, flags: 0, rest: [0; 252] };
    call(on, Q_XGETQSTAT, 0, &raw mut state as *mut libc::c_void)?;
    Ok(state.flags & PDQ_ENFORCED != 0)
}

/// quotactl_fd(2), which Linux has since 5.14. `argument` is what the command takes.
fn call(on: BorrowedFd<'_>, command: u32, project: u32, argument: *mut libc::c_void) -> io::Result<()> {
    let command = command << 8 | PRJQUOTA;
    // SAFETY: each caller passes a pointer to a structure of its own stack that is at least as large as the command reads or writes; the
    // descriptor is open for the call, since it is borrowed.
    let done = unsafe { libc::syscall(libc::SYS_quotactl_fd, on.as_raw_fd(), command, project, argument) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn structures_are_the_kernels() {
        assert_eq!((size_of::<FsXattr>(), size_of::<DiskQuota>()), (28, 72));
        assert_eq!(std::mem::offset_of!(State, flags), 2);
    }

    #[test]
    fn a_project_is_counted_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &std::path::Path| std::fs::File::open(path).unwrap();
        let top = open(folder.path());
        match is_enforced(top.as_fd()) {
            Ok(true) => {}
            other => {
                println!("SKIPPED: no project quotas in {}: {other:?}", folder.path().display());
                return;
            }
        }
        let id = 0x5100_0000 + std::process::id();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        set_project(open(&inner).as_fd(), id).unwrap();
        set_limit(top.as_fd(), id, 1 << 20).unwrap();
        std::fs::write(inner.join("file"), vec![1; 100_000]).unwrap();
        assert_eq!(project(open(&inner.join("file")).as_fd()).unwrap(), id);
        let before = usage(top.as_fd(), id).unwrap();
        assert!(before.bytes >= 100_000 && before.inodes == 2 && before.limit == 1 << 20, "{before:?}");
        set_limit(top.as_fd(), id, 0).unwrap();
        assert_eq!(usage(top.as_fd(), id).unwrap().limit, 0);
    }
}
