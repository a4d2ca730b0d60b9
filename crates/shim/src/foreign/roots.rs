//! Root file systems for runtimes that need a path to them: attached in a folder of the pod whose mounts nobody else sees coming.

use super::Making;
use crate::config::{root_path, roots_path, volume_path};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Makes the folder a mount of its own that passes none of its mounts on. The daemon unmounts it with all that is below.
pub(crate) fn prepare(pod_dir: &Path) -> io::Result<()> {
    let folder = roots_path(pod_dir);
    rustix::fs::mkdir(&folder, Mode::RWXU)?;
    rustix::mount::mount_bind(&folder, &folder)?;
    rustix::mount::mount_change(&folder, MountPropagationFlags::PRIVATE)?;
    Ok(())
}

/// Attaches a container's mounts where its configuration says that they are.
pub(super) fn attach(pod_dir: &Path, id: &str, making: &Making) -> io::Result<()> {
    if let Some(rootfs) = &making.rootfs {
        attach_one(rootfs.as_fd(), &root_path(pod_dir, id))?;
    }
    for (number, volume) in making.volumes.iter().enumerate() {
        attach_one(volume.as_fd(), &volume_path(pod_dir, id, number))?;
    }
    Ok(())
}

fn attach_one(mount: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let is_folder = FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode) == FileType::Directory;
    let target = if is_folder {
        rustix::fs::mkdir(path, Mode::RWXU)?;
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::RUSR)?
    };
    sys::mount::attach(mount, target.as_fd())
}

/// Detaches what [`attach`] attached. That there is nothing is fine.
pub(super) fn detach(pod_dir: &Path, id: &str) -> io::Result<()> {
    detach_one(&root_path(pod_dir, id))?;
    for number in 0.. {
        let path = volume_path(pod_dir, id, number);
        if !path.exists() {
            break;
        }
        detach_one(&path)?;
    }
    Ok(())
}

/// Unmounts what a runtime has mounted in a folder of its own, as far as that is possible.
pub fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The latest first (proc_pid_mountinfo(5)): the fifth field is where it is.
    for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(Path::new) {
        if point.starts_with(folder) && point != folder {
            let _ = rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
}

fn detach_one(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(cause) => return Err(cause.into()),
    }
    match rustix::fs::rmdir(path) {
        Err(Errno::NOTDIR) => Ok(rustix::fs::unlink(path)?),
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(cause) => Err(cause.into()),
    }
}
