//! What is mounted in a container: the file systems of the kernel, the pod's files, and what the request names.

mod request;

use std::path::{Path, PathBuf};

use model::request::NamespaceMode;
use oci_spec::runtime::Mount;

use crate::error::SpecError;
use crate::input::{CgroupVersion, SpecInput};
use request::Requested;

/// All mounts in the order in which they are made, and the propagation that the container's root needs for them.
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) rootfs_propagation: Option<&'static str>,
}

/// The kernel's file systems, then the pod's files and the mounts of the request, parents before children. What the request mounts
/// itself replaces the default.
pub(crate) fn of_container(input: &SpecInput<'_>, devices: Vec<Mount>) -> Result<Mounts, SpecError> {
    let requested = request::all(&input.container.mounts, input.pod.namespaces.user.as_ref())?;
    let rootfs_propagation = request::rootfs_propagation(&requested);
    let mut mounts = kernels(input);
    mounts.retain(|mount| !brought_along(mount.destination(), &requested));
    let mut others = pods(input);
    others.retain(|mount| !is_replaced(mount.destination(), &requested));
    others.extend(devices);
    others.extend(requested.into_iter().map(|requested| requested.mount));
    others.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(others);
    Ok(Mounts { mounts, rootfs_propagation })
}

/// A request that mounts its own `/dev` or `/sys` brings what lies below it.
fn brought_along(destination: &Path, requested: &[Requested]) -> bool {
    requested.iter().any(|requested| destination.starts_with(requested.mount.destination()))
}

/// A request may bring its own `/dev/shm` or `/etc/hosts`. Below a mount that it shares with the host nothing is mounted either,
/// since that would appear on the host.
fn is_replaced(destination: &Path, requested: &[Requested]) -> bool {
    requested.iter().any(|requested| {
        let target = requested.mount.destination();
        target == destination || (requested.is_shared() && destination.starts_with(target))
    })
}

fn kernels(input: &SpecInput<'_>) -> Vec<Mount> {
    let access = if input.container.security.privileged { "rw" } else { "ro" };
    vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        devpts(input),
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sysfs(input, access),
        cgroup(input.host.cgroup, access),
    ]
}

/// Terminals belong to the group `tty`, where the pod has that group.
fn devpts(input: &SpecInput<'_>) -> Mount {
    let mut options = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if input.pod.namespaces.user.as_ref().is_none_or(|users| users.host_gid(5).is_some()) {
        options.push("gid=5");
    }
    kernel("/dev/pts", "devpts", &options)
}

/// A sysfs shows a network namespace, and only who owns that may mount one: users of the pod's own in the host's network see the host's.
fn sysfs(input: &SpecInput<'_>, access: &str) -> Mount {
    let namespaces = &input.pod.namespaces;
    let options = ["nosuid", "noexec", "nodev", access];
    if namespaces.user.is_some() && namespaces.network == NamespaceMode::Host {
        return bind("/sys", Path::new("/sys"), &["bind", "rprivate", "nosuid", "noexec", "nodev", access]);
    }
    kernel("/sys", "sysfs", &options)
}

fn pods(input: &SpecInput<'_>) -> Vec<Mount> {
    let mut mounts = vec![shm(input.files.shm.as_deref())];
    let files = [
        ("/etc/hostname", &input.files.hostname),
        ("/etc/hosts", &input.files.hosts),
        ("/etc/resolv.conf", &input.files.resolv_conf),
    ];
    let access = if input.container.security.readonly_rootfs { "ro" } else { "rw" };
    let mut options = vec!["rbind", "rprivate", access];
    if input.pod.namespaces.user.is_some() {
        // They are the host's root's, and are to be the pod's.
        options.push("ridmap");
    }
    for (target, source) in files {
        if let Some(source) = source {
            mounts.push(bind(target, source, &options));
        }
    }
    mounts
}

/// Version 2 is one file system; of version 1 the runtime mounts the container's directory of each hierarchy.
fn cgroup(version: CgroupVersion, access: &str) -> Mount {
    let options = ["nosuid", "noexec", "nodev", "relatime", access];
    match version {
        CgroupVersion::V1 | CgroupVersion::V2 => kernel("/sys/fs/cgroup", "cgroup", &options),
    }
}

fn shm(pod: Option<&Path>) -> Mount {
    match pod {
        Some(source) => bind("/dev/shm", source, &["rbind", "rprivate", "nosuid", "noexec", "nodev"]),
        None => kernel("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    }
}

fn kernel(target: &str, kind: &str, options: &[&str]) -> Mount {
    mount(PathBuf::from(target), kind, PathBuf::from(kind), options)
}

fn bind(target: &str, source: &Path, options: &[&str]) -> Mount {
    mount(PathBuf::from(target), "bind", source.to_owned(), options)
}

fn mount(target: PathBuf, kind: &str, source: PathBuf, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(target).set_typ(Some(kind.into())).set_source(Some(source));
    mount.set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}
