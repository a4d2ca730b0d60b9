//! The root file system: attached under the old root, and made the root when everything is in it.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use sys::mount::{Change, Propagation, attribute};

use super::Plan;
use crate::error::{At, Failure, Stage};

/// Cuts this mount namespace off from the host's, and attaches the detached root file system on top of the old root, where it has a
/// place whatever the host looks like. The old root stays reachable until [`finish`].
pub(super) fn attach(plan: &Plan<'_>) -> Result<(), Failure> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::Rootfs, || "old root")?;
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    sys::mount::set_attributes(old.as_fd(), true, &private).at(Stage::Rootfs, || "private mounts")?;
    sys::mount::attach(plan.rootfs.as_fd(), old.as_fd()).at(Stage::Rootfs, || "attaching")
}

/// Makes the root file system the root, lets the old one go, and sets its propagation and read-only state.
pub(super) fn finish(plan: &Plan<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(&plan.rootfs).at(Stage::Rootfs, || "entering")?;
    rustix::process::pivot_root(c".", c".").map_err(|error| {
        Failure::io(Stage::Rootfs, "pivot_root", &error.into())
            .remedy("it fails when the host's root is an initramfs: switch_root to another file system first")
    })?;
    // The old root lies on top of the new one now; "." leads to it.
    rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH).at(Stage::Rootfs, || "old root")?;
    rustix::process::chdir(c"/").at(Stage::Rootfs, || "/")?;
    let propagation = propagation(plan)?;
    let read_only = plan.spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false));
    let top = Change { set: if read_only { attribute::RDONLY } else { 0 }, ..Change::default() };
    let spread = |propagation| Change { propagation: Some(propagation), ..Change::default() };
    let set = |deep, change: &Change<'_>| {
        sys::mount::set_attributes(plan.rootfs.as_fd(), deep, change).at(Stage::Rootfs, || "attributes of /")
    };
    if let Some((propagation, deep)) = propagation {
        set(deep, &spread(propagation))?;
    }
    if read_only { set(false, &top) } else { Ok(()) }
}

/// `rootfsPropagation`; private is what it is already. The recursive forms leave mounts with a propagation of their own alone.
fn propagation(plan: &Plan<'_>) -> Result<Option<(Propagation, bool)>, Failure> {
    let Some(word) = plan.linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    let deep = word.starts_with('r') && plan.mounts.iter().all(|mount| mount.options.propagation.is_none());
    Ok(match word {
        "private" | "rprivate" => None,
        "shared" | "rshared" => Some((Propagation::Shared, deep)),
        "slave" | "rslave" => Some((Propagation::Slave, deep)),
        "unbindable" | "runbindable" => Some((Propagation::Unbindable, deep)),
        other => {
            return Err(Failure::new(
                Stage::Rootfs,
                "linux.rootfsPropagation",
                format!("{other:?} is not known"),
            )
            .remedy("use private, slave, shared or unbindable"));
        }
    })
}
