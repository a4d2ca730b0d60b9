//! Device nodes and the usual links in /dev.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use sys::root::Root;

use super::Plan;
use super::target::plain_directory;
use crate::error::{At, Failure, Stage};
use crate::mounts::{Prepared, Source, clean};

/// The devices of every container (runtime-spec, config-linux.md, "Default Devices").
const DEFAULT: &[(&str, u32, u32)] = &[
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The devices to make, with the host's node where the kernel forbids making one.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    nodes: Vec<Node>,
    /// Whether /dev is the container's own and gets the default links.
    own_dev: bool,
}

#[derive(Debug)]
struct Node {
    path: PathBuf,
    kind: FileType,
    device: u64,
    mode: u32,
    owner: (u32, u32),
    /// The host's node, detached: in a user namespace mknod(2) is forbidden and nodes are bound.
    host: Option<OwnedFd>,
}

/// Collects the devices; with `bind` opens the host's nodes.
pub(crate) fn prepare(linux: &Linux, mounts: &[Prepared], bind: bool) -> Result<Devices, Failure> {
    let host_dev = mounts
        .iter()
        .any(|mount| mount.destination == Path::new("/dev") && matches!(mount.source, Source::Bind { .. }));
    if host_dev {
        // /dev is a directory of the host: nothing is made in there.
        return Ok(Devices::default());
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(DEFAULT.len());
    for device in linux.devices().iter().flatten() {
        nodes.push(node_of(device)?);
    }
    for (path, major, minor) in DEFAULT {
        if nodes.iter().any(|node| node.path == Path::new(path)) {
            continue;
        }
        nodes.push(Node {
            path: path.into(),
            kind: FileType::CharacterDevice,
            device: rustix::fs::makedev(*major, *minor),
            mode: 0o666,
            owner: (0, 0),
            host: None,
        });
    }
    if bind {
        for node in &mut nodes {
            node.host = Some(host_node(node)?);
        }
    }
    Ok(Devices { nodes, own_dev: true })
}

fn node_of(device: &oci_spec::runtime::LinuxDevice) -> Result<Node, Failure> {
    let path = clean(device.path());
    let fail = |cause: &str| Failure::new(Stage::Devices, path.display().to_string(), cause);
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(fail("type a is for device rules, a node is b, c, u or p")),
    };
    let number = |n: i64| u32::try_from(n).map_err(|_| fail("device numbers must be positive"));
    let device_number = match kind {
        FileType::Fifo => 0,
        _ => rustix::fs::makedev(number(device.major())?, number(device.minor())?),
    };
    if device.uid() == Some(u32::MAX) || device.gid() == Some(u32::MAX) {
        return Err(fail("4294967295 is not an id"));
    }
    Ok(Node {
        kind,
        device: device_number,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
        host: None,
        path,
    })
}

fn host_node(node: &Node) -> Result<OwnedFd, Failure> {
    let object = || format!("{} of the host", node.path.display());
    let path = CString::new(node.path.as_os_str().as_bytes())
        .map_err(|_| Failure::new(Stage::Devices, object(), "holds a NUL byte"))?;
    let tree = sys::mount::clone_mount_at(rustix::fs::CWD, &path, false).at(Stage::Devices, object)?;
    verify(&tree, node).at(Stage::Devices, object)?;
    Ok(tree)
}

/// Whether the open file is the very device, by type and number and not by name.
fn verify(fd: &OwnedFd, node: &Node) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    let same = FileType::from_raw_mode(stat.st_mode) == node.kind
        && (node.kind == FileType::Fifo || stat.st_rdev == node.device);
    if same {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "is there and is something else"))
    }
}

/// Makes nodes and links. No link of the image is followed, so that a `/dev` pointing elsewhere makes nothing there (CVE-2026-41579).
pub(super) fn make(plan: &Plan<'_>, root: &Root) -> Result<(), Failure> {
    if !plan.devices.own_dev {
        return Ok(());
    }
    let dev = plain_directory(root, Path::new("/dev")).at(Stage::Devices, || "/dev")?;
    for node in &plan.devices.nodes {
        let (Some(name), Some(parent)) = (node.path.file_name(), node.path.parent()) else {
            return Err(Failure::new(Stage::Devices, node.path.display().to_string(), "has no file name"));
        };
        let object = || node.path.display().to_string();
        let other = if parent == Path::new("/dev") {
            None
        } else {
            Some(plain_directory(root, parent).at(Stage::Devices, object)?)
        };
        make_node(other.as_ref().unwrap_or(&dev), name, node).at(Stage::Devices, object)?;
    }
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(*target, &dev, *name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at(Stage::Devices, || format!("/dev/{name}")),
        }
    }
    Ok(())
}

fn make_node(directory: &OwnedFd, name: &OsStr, node: &Node) -> io::Result<()> {
    if let Some(host) = &node.host {
        let place = plain_file(directory, name)?;
        return sys::mount::attach(host.as_fd(), place.as_fd());
    }
    match rustix::fs::mknodat(directory, name, node.kind, Mode::from_raw_mode(node.mode), node.device) {
        Ok(()) => {}
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return verify(&rustix::fs::openat(directory, name, flags, Mode::empty())?, node);
        }
        Err(error) => return Err(error.into()),
    }
    if node.owner != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
        rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Opens (`O_PATH`) the regular file `name` in `directory` as a mount target, made where missing, never through a link.
pub(super) fn plain_file(directory: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666)) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) {
        FileType::Symlink => Err(io::Error::new(io::ErrorKind::AlreadyExists, "is a symbolic link")),
        FileType::Directory => Err(io::ErrorKind::IsADirectory.into()),
        _ => Ok(place),
    }
}
