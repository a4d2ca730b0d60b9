//! Making and attaching one mount.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use sys::mount::{Change, Parameter, Propagation};
use sys::root::Root;

use super::target::{Kind, open_or_make, plain_directory};
use super::{Plan, cgroup_mount, copy_up};
use crate::error::{At, Failure, Stage};
use crate::mounts::{Live, Prepared, Source, set_tree_attributes};

pub(super) const PROC_SUPER_MAGIC: u64 = 0x9fa0;

/// What may be bound over below /proc: files that lxcfs and its like present. Anything else could fake what the runtime itself, or a
/// reader of the container's /proc, relies on (CVE-2019-16884).
const BINDABLE_IN_PROC: &[&str] = &[
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/kernel/ns_last_pid",
    "uptime",
];

pub(super) fn make(
    plan: &Plan<'_>,
    root: &Root,
    mount: &Prepared,
    cgroup: &mut cgroup_mount::Pending,
) -> Result<(), Failure> {
    let name = || mount.destination.display().to_string();
    match &mount.source {
        Source::Present => {
            let place =
                root.open_at(&mount.destination, OFlags::PATH, Mode::empty()).at(Stage::Mounts, name)?;
            let change = Change { set: mount.options.set, clear: mount.options.clear, ..Change::default() };
            sys::mount::set_attributes(place.as_fd(), false, &change)
                .and_then(|()| mount.options.set_recursive(&place))
                .at(Stage::Mounts, || format!("remounting {}", name()))
        }
        Source::Cgroup => {
            cgroup.join()?;
            cgroup_mount::make(plan, root, mount)
        }
        Source::Bind { tree, directory, .. } => {
            check_proc(mount, tree)?;
            let kind = if *directory { Kind::Directory } else { Kind::File };
            let target = target(root, mount, kind)?;
            match live(plan, mount) {
                None => sys::mount::attach(tree.as_fd(), target.as_fd()).at(Stage::Mounts, name),
                Some(live) => bind_live(root, mount, live, tree, &target),
            }
        }
        Source::New { kind, source } => {
            let fixed = kind == "proc" || kind == "sysfs";
            if !fixed {
                check_proc(mount, root)?;
            }
            let there = kind == "tmpfs" && root.directory(&mount.destination).is_ok();
            let place = if fixed {
                // A link at /proc or /sys of an image could only move the mount to where nobody expects it (CVE-2019-19921).
                plain_directory(root, &mount.destination).at(Stage::Mounts, name)?
            } else {
                target(root, mount, Kind::Directory)?
            };
            // What is seen at a place that was there has the mode of the place, where nothing else is said.
            let mode = (there && !mount.options.data.iter().any(|option| option.starts_with("mode=")))
                .then(|| rustix::fs::fstat(&place))
                .transpose()
                .at(Stage::Mounts, name)?
                .map(|stat| format!("{:o}", stat.st_mode & 0o7777));
            let made = new(plan, kind, source, mount, mode.as_deref())?;
            if mount.options.copy_up && kind == "tmpfs" {
                copy_up::copy(place.as_fd(), made.as_fd())
                    .at(Stage::Mounts, || format!("tmpcopyup of {}", name()))?;
            }
            set_late(mount, &made).at(Stage::Mounts, name)?;
            sys::mount::attach(made.as_fd(), place.as_fd()).at(Stage::Mounts, name)
        }
    }
}

/// How the mount is bound live, if it is. With users of the container's own init may not reach the source, and its copy of the host's
/// tree receives in any case; such a mount is attached as it was prepared.
pub(super) fn live<'a>(plan: &Plan<'_>, mount: &'a Prepared) -> Option<&'a Live> {
    match &mount.source {
        Source::Bind { live, .. } if !plan.namespaces.has_user() => live.as_ref(),
        _ => None,
    }
}

/// Binds the source as this mount namespace has it, which is a slave of the host's mount, by the one call that leaves no gap.
fn bind_live(
    root: &Root,
    mount: &Prepared,
    live: &Live,
    prepared: &OwnedFd,
    target: &OwnedFd,
) -> Result<(), Failure> {
    let name = || format!("source {} of {}", live.path.to_string_lossy(), mount.destination.display());
    let source = rustix::fs::open(&live.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let source = source.at(Stage::Mounts, name)?;
    let [now, then] = [&source, prepared].map(rustix::fs::fstat);
    let (now, then) = (now.at(Stage::Mounts, name)?, then.at(Stage::Mounts, name)?);
    if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino) {
        return Err(Failure::new(Stage::Mounts, name(), "was exchanged for something else meanwhile"));
    }
    // This process's root is the old one still, which has a procfs.
    let [from, to] = [&source, target].map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let bound = match live.recursive {
        true => rustix::mount::mount_bind_recursive(from, to),
        false => rustix::mount::mount_bind(from, to),
    };
    bound.at(Stage::Mounts, name)?;
    let made = root.open_at(&mount.destination, OFlags::PATH, Mode::empty()).at(Stage::Mounts, name)?;
    // Below a volume that others write to, the name may lead elsewhere by now: another mount would be made read-only in place of this one.
    let found = rustix::fs::fstat(&made).at(Stage::Mounts, name)?;
    if (found.st_dev, found.st_ino) != (now.st_dev, now.st_ino) {
        return Err(Failure::new(Stage::Mounts, name(), "was moved away while it was mounted"));
    }
    set_tree_attributes(&made, live.recursive, &mount.options).at(Stage::Mounts, name)
}

fn target(root: &Root, mount: &Prepared, kind: Kind) -> Result<OwnedFd, Failure> {
    open_or_make(root, &mount.destination, kind).map_err(|error| {
        let object = format!("mount target {}", mount.destination.display());
        let failure = Failure::io(Stage::Mounts, object, &error);
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::ROFS) => {
                failure.remedy("it is missing in the image and the file system is read-only")
            }
            _ if error.kind() == std::io::ErrorKind::IsADirectory => {
                failure.remedy("the source is a file and the target a directory")
            }
            _ if error.kind() == std::io::ErrorKind::NotADirectory => {
                failure.remedy("the source is a directory and the target, or something on its path, is not")
            }
            _ => failure,
        }
    })
}

/// Makes a file system in the container's namespaces.
fn new(
    plan: &Plan<'_>,
    kind: &str,
    source: &str,
    mount: &Prepared,
    mode: Option<&str>,
) -> Result<OwnedFd, Failure> {
    let label = crate::labels::mount_context(plan.linux.mount_label().as_deref(), kind);
    let mut parameters = mount.options.parameters();
    if !source.is_empty() {
        parameters.push(Parameter::Value("source", source));
    }
    if let Some(mode) = mode {
        parameters.push(Parameter::Value("mode", mode));
    }
    if let Some(label) = &label {
        parameters.push(Parameter::Value("context", label));
    }
    let set = if mount.options.copy_up { 0 } else { mount.options.set };
    let made = sys::mount::new_filesystem(kind, &parameters, set).map_err(|error| {
        let failure =
            Failure::io(Stage::Mounts, format!("{kind} at {}", mount.destination.display()), &error);
        if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) {
            return failure.remedy("this kernel has no such file system");
        }
        match (kind, error.kind()) {
            ("sysfs", std::io::ErrorKind::PermissionDenied) => failure.remedy(
                "sysfs needs a network namespace that belongs to the user namespace; bind /sys instead",
            ),
            ("proc", std::io::ErrorKind::PermissionDenied) => failure
                .remedy("proc needs a pid namespace that belongs to the user namespace; bind /proc instead"),
            _ => failure,
        }
    })?;
    crate::labels::label_root(plan.linux.mount_label().as_deref(), kind, made.as_fd())
        .at(Stage::Labels, || format!("{kind} at {}", mount.destination.display()))?;
    Ok(made)
}

/// Attributes that a new file system gets after it was filled, and its propagation.
fn set_late(mount: &Prepared, made: &OwnedFd) -> std::io::Result<()> {
    let options = &mount.options;
    if options.copy_up && options.set != 0 {
        sys::mount::set_attributes(made.as_fd(), false, &Change { set: options.set, ..Change::default() })?;
    }
    if let Some((propagation, _)) = options.propagation.filter(|(kind, _)| *kind != Propagation::Private) {
        let change = Change { propagation: Some(propagation), ..Change::default() };
        sys::mount::set_attributes(made.as_fd(), false, &change)?;
    }
    options.set_recursive(made)
}

/// Refuses mounts that would put something else in the place of /proc or parts of it.
fn check_proc(mount: &Prepared, source: &impl AsFd) -> Result<(), Failure> {
    let Ok(inside) = mount.destination.strip_prefix("/proc") else { return Ok(()) };
    if inside == Path::new("") {
        let magic = rustix::fs::fstatfs(source).map_or(0, |fs| fs.f_type as u64);
        if magic == PROC_SUPER_MAGIC {
            return Ok(());
        }
    } else if inside.to_str().is_some_and(|inside| BINDABLE_IN_PROC.contains(&inside)) {
        return Ok(());
    }
    Err(Failure::new(
        Stage::Mounts,
        mount.destination.display().to_string(),
        "a mount cannot replace /proc or a part of it",
    ))
}
