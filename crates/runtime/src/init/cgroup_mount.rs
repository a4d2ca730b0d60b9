//! The container's view of control groups: its own groups, bound from the host's hierarchies, or a cgroup2 of its namespace.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sys::mount::{Change, Parameter, attribute, new_filesystem};
use sys::namespace::kind;
use sys::root::Root;

use super::Plan;
use super::target::plain_directory;
use crate::cgroups::Version;
use crate::error::{At, Failure, Stage};
use crate::mounts::Prepared;

/// Where the host has its hierarchies.
pub(crate) const HOST: &str = "/sys/fs/cgroup";
const LARGEST_LIST: u64 = 1 << 20;
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// Whether this process is yet to make its cgroup namespace, whose root is the cgroup that it is in.
pub(super) struct Pending(bool);

impl Pending {
    pub(super) fn new(plan: &Plan<'_>) -> Pending {
        Pending(plan.namespaces.new & kind::CGROUP != 0)
    }

    /// Makes the cgroup of this process the root of a new cgroup namespace.
    pub(super) fn join(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.0) {
            return Ok(());
        }
        sys::namespace::leave(kind::CGROUP).at(Stage::Namespaces, || "new cgroup namespace")
    }
}

pub(super) fn make(plan: &Plan<'_>, root: &Root, mount: &Prepared) -> Result<(), Failure> {
    let name = || mount.destination.display().to_string();
    let place = plain_directory(root, &mount.destination).at(Stage::Mounts, name)?;
    match plan.cgroup.version {
        Version::V2 => {
            let made = version2(plan, mount).at(Stage::Mounts, name)?;
            sys::mount::attach(made.as_fd(), place.as_fd()).at(Stage::Mounts, name)
        }
        Version::V1 => version1(plan, mount, &place).at(Stage::Mounts, name),
    }
}

/// In a user namespace without a cgroup namespace the whole hierarchy would be seen, and written where it is delegated
/// (CVE-2023-25809): there the own group alone is shown, read-only.
fn version2(plan: &Plan<'_>, mount: &Prepared) -> io::Result<OwnedFd> {
    if plan.namespaces.has(kind::CGROUP) || !plan.namespaces.has_user() {
        let made = new_filesystem("cgroup2", &[], mount.options.set)?;
        mount.options.set_recursive(&made)?;
        return Ok(made);
    }
    bind(Path::new(HOST), &plan.cgroup.path, mount.options.set | attribute::RDONLY)
}

/// A tmpfs with one directory for each hierarchy, on which the own group is bound. In a cgroup namespace that is its root too.
fn version1(plan: &Plan<'_>, mount: &Prepared, place: &OwnedFd) -> io::Result<()> {
    let shelf_attributes = attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
    let shelf = new_filesystem("tmpfs", &[Parameter::Value("mode", "755")], shelf_attributes)?;
    sys::mount::attach(shelf.as_fd(), place.as_fd())?;
    let text = sys::file::read("/proc/self/cgroup", LARGEST_LIST)?;
    for line in String::from_utf8_lossy(&text).lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(_)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let folder = match (number, controllers) {
            ("0", "") => "unified",
            (_, named) => named.strip_prefix("name=").unwrap_or(named),
        };
        let host = Path::new(HOST).join(folder);
        let Ok(group) = bind(&host, &plan.cgroup.path, mount.options.set) else { continue };
        // The shelf is new and nobody else's: what is made in it can be opened by its name.
        rustix::fs::mkdirat(&shelf, folder, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(&shelf, folder, flags, Mode::empty())?;
        sys::mount::attach(group.as_fd(), target.as_fd())?;
        for alias in folder.split(',').filter(|_| folder.contains(',')) {
            let _ = rustix::fs::symlinkat(folder, &shelf, alias);
        }
    }
    if mount.options.set & attribute::RDONLY != 0 {
        sys::mount::set_attributes(
            shelf.as_fd(),
            false,
            &Change { set: attribute::RDONLY, ..Change::default() },
        )?;
    }
    Ok(())
}

/// A detached copy of the group `path` of the hierarchy mounted at `hierarchy`.
pub(crate) fn bind(hierarchy: &Path, path: &str, attributes: u64) -> io::Result<OwnedFd> {
    let relative = path.trim_start_matches('/');
    if relative.split('/').any(|part| part == "..") {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A hierarchy has no links, and this one is the host's: the name leads to the group or nowhere.
    let name = CString::new(hierarchy.join(relative).into_os_string().into_encoded_bytes())?;
    let copy = sys::mount::clone_mount_at(rustix::fs::CWD, &name, false)?;
    let magic = rustix::fs::fstatfs(&copy)?.f_type as u64;
    if magic != CGROUP_SUPER_MAGIC && magic != CGROUP2_SUPER_MAGIC {
        return Err(io::ErrorKind::NotFound.into());
    }
    let private = sys::mount::Propagation::Private;
    let change = Change { set: attributes, propagation: Some(private), ..Change::default() };
    sys::mount::set_attributes(copy.as_fd(), false, &change)?;
    Ok(copy)
}
