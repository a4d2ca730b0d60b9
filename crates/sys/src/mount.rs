//! The mount API by descriptors: what rustix lacks of it (mount_setattr with id maps) and the reason why a file system was refused.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

/// `MOUNT_ATTR_*` of mount_setattr(2).
pub mod attribute {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Set-user-ID bits and file capabilities do nothing.
    pub const NOSUID: u64 = 0x2;
    /// Devices cannot be opened.
    pub const NODEV: u64 = 0x4;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x8;
    /// The field of the access time modes.
    pub const ATIME: u64 = 0x70;
    /// Access times are not updated. Relative updates are zero in this field.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are not updated.
    pub const NODIRATIME: u64 = 0x80;
    /// Ids are mapped by a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// How mounts and unmounts spread (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// To and from the peers.
    Shared,
    /// From the peers only.
    Slave,
    /// Not at all.
    Private,
    /// Not at all, and the mount cannot be bound.
    Unbindable,
}

/// A change of mount_setattr(2).
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// [`attribute`]s to set.
    pub set: u64,
    /// [`attribute`]s to clear.
    pub clear: u64,
    /// The new propagation, if it changes.
    pub propagation: Option<Propagation>,
    /// The user namespace whose id map is given to the mount, which must be detached.
    pub id_map: Option<BorrowedFd<'a>>,
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// mount_setattr(2) on the mount that `mount` is the root of, and on all below it if `recursive`.
pub fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, change: &Change<'_>) -> io::Result<()> {
    let mut attr = MountAttr {
        set: change.set,
        clear: change.clear,
        propagation: match change.propagation {
            None => 0,
            Some(Propagation::Shared) => libc::MS_SHARED,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Unbindable) => libc::MS_UNBINDABLE,
        },
        userns: 0,
    };
    // A change of the access time mode must clear the whole field first.
    if attr.set & attribute::ATIME != 0 {
        attr.clear |= attribute::ATIME;
    }
    if let Some(namespace) = change.id_map {
        attr.set |= attribute::IDMAP;
        attr.userns = namespace.as_raw_fd() as u64;
    }
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: attr is a mount_attr of the size given; both descriptors are borrowed for the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A parameter of a file system: a flag, or a key with a value.
#[derive(Debug, Clone, Copy)]
pub enum Parameter<'a> {
    /// `fsconfig_set_flag`.
    Flag(&'a str),
    /// `fsconfig_set_string`.
    Value(&'a str, &'a str),
}

/// Makes a file system and returns a detached mount of it. `attributes` are [`attribute`]s.
///
/// # Errors
/// The kernel's, with the reason that the file system's own log gives, if any.
pub fn new_filesystem(kind: &str, parameters: &[Parameter<'_>], attributes: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    let configured = parameters.iter().try_for_each(|parameter| match parameter {
        Parameter::Flag(key) => rustix::mount::fsconfig_set_flag(context.as_fd(), *key),
        Parameter::Value(key, value) => rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value),
    });
    configured
        .and_then(|()| rustix::mount::fsconfig_create(context.as_fd()))
        .and_then(|()| {
            rustix::mount::fsmount(
                context.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::from_bits_retain(attributes as u32),
            )
        })
        .map_err(|error| with_log(error.into(), context.as_fd()))
}

/// Adds the first line of the context's log, which says which parameter was wrong, to `error`.
fn with_log(error: io::Error, context: BorrowedFd<'_>) -> io::Error {
    let mut line = [0_u8; 256];
    match rustix::io::read(context, &mut line) {
        Ok(length) if length > 2 => {
            let text = String::from_utf8_lossy(&line[2..length]);
            io::Error::new(error.kind(), format!("{error}: {}", text.trim_end()))
        }
        _ => error,
    }
}

/// A detached copy of the mount at the open file `of` (`OPEN_TREE_CLONE`), with all mounts below it if `recursive`.
pub fn clone_mount(of: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    clone_mount_at(of, c"", recursive)
}

/// A detached copy of the mount at `path` below `at`. The last component of `path` is followed if it is a link.
pub fn clone_mount_at(at: BorrowedFd<'_>, path: &CStr, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(at, path, flags)?)
}

/// Attaches the detached mount `mount` on the open file `target`; no path is resolved.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, c"", target, c"", flags)?)
}
