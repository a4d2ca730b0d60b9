//! The root file system: attached under the old root, and made the root when everything is in it.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use sys::mount::{Change, Propagation, attribute};

use super::Plan;
use crate::error::{At, Failure, Stage};

/// Cuts this mount namespace off from the host's, or lets it only receive where mounts are to be bound live, and attaches the detached root file system on top of the old root, where it has a
/// place whatever the host looks like. The old root stays reachable until [`finish`].
pub(super) fn attach(plan: &Plan<'_>) -> Result<(), Failure> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::Rootfs, || "old root")?;
    let live = plan.mounts.iter().any(|mount| super::mount::live(plan, mount).is_some());
    let propagation = if live { Propagation::Slave } else { Propagation::Private };
    let cut = Change { propagation: Some(propagation), ..Change::default() };
    sys::mount::set_attributes(old.as_fd(), true, &cut).at(Stage::Rootfs, || "cutting the mounts off")?;
    sys::mount::attach(plan.rootfs.as_fd(), old.as_fd()).at(Stage::Rootfs, || "attaching")
}

/// Makes the root file system the root, lets the old one go, and sets its propagation and read-only state.
pub(super) fn finish(plan: &Plan<'_>) -> Result<(), Failure> {
    if plan.no_pivot {
        cover_old_root(plan)?
    } else {
        pivot(plan)?
    }
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

fn pivot(plan: &Plan<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(&plan.rootfs).at(Stage::Rootfs, || "entering")?;
    rustix::process::pivot_root(c".", c".").map_err(|error| {
        Failure::io(Stage::Rootfs, "pivot_root", &error.into())
            .remedy("it fails when the host's root is an initramfs: switch_root to another file system first, or --no-pivot")
    })?;
    // The old root lies on top of the new one now; "." leads to it.
    rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH).at(Stage::Rootfs, || "old root")
}

/// Makes the root file system, which lies on top of the old root, the root, without letting the old one go. The old one's mounts are
/// taken away, so that nobody who gets there finds more than the host's root itself; what the kernel keeps in place for a user
/// namespace is covered where it is a procfs or sysfs, as those would let the container mount further ones.
fn cover_old_root(plan: &Plan<'_>) -> Result<(), Failure> {
    use rustix::mount::{UnmountFlags, unmount};
    // This process's root is the old one still: names lead there, below what covers it.
    let table = std::fs::read("/proc/self/mountinfo").at(Stage::Rootfs, || "/proc/self/mountinfo")?;
    let mut places = old_mounts(&table, mount_id(&plan.rootfs)?);
    places.sort_by_key(|place| std::cmp::Reverse(place.len()));
    for place in &places {
        let Err(error) = unmount(place.as_slice(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) else {
            continue;
        };
        let magic = rustix::fs::statfs(place.as_slice()).map_or(0, |fs| fs.f_type as u64);
        if matches!(magic, super::mount::PROC_SUPER_MAGIC | SYSFS_MAGIC) {
            let object = || format!("{} of the old root ({error})", String::from_utf8_lossy(place));
            let cover =
                sys::mount::new_filesystem("tmpfs", &[], attribute::RDONLY).at(Stage::Rootfs, object)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target =
                rustix::fs::open(place.as_slice(), flags, Mode::empty()).at(Stage::Rootfs, object)?;
            sys::mount::attach(cover.as_fd(), target.as_fd()).at(Stage::Rootfs, object)?;
        }
    }
    rustix::process::fchdir(&plan.rootfs).at(Stage::Rootfs, || "entering")?;
    rustix::process::chroot(c".").at(Stage::Rootfs, || "chroot")
}

/// The number by which mountinfo calls the mount of `fd`.
fn mount_id(fd: &std::os::fd::OwnedFd) -> Result<u64, Failure> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let found = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    found.map(|found| found.stx_mnt_id).at(Stage::Rootfs, || "number of its mount")
}

/// Where the mounts of a mountinfo table are that neither are the mount `new` nor lie on it, but for those at `/`.
fn old_mounts(table: &[u8], new: u64) -> Vec<Vec<u8>> {
    let field = |line: &[u8], number| line.split(|b| *b == b' ').nth(number).map(<[u8]>::to_vec);
    let number = |line: &[u8], at| std::str::from_utf8(&field(line, at)?).ok()?.parse::<u64>().ok();
    let lines: Vec<&[u8]> = table.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    let mut inside = std::collections::BTreeSet::from([new]);
    loop {
        let before = inside.len();
        let below =
            lines.iter().filter(|line| number(line, 1).is_some_and(|parent| inside.contains(&parent)));
        let more: Vec<u64> = below.filter_map(|line| number(line, 0)).collect();
        inside.extend(more);
        if inside.len() == before {
            break;
        }
    }
    let old = lines.iter().filter(|line| number(line, 0).is_some_and(|id| !inside.contains(&id)));
    old.filter_map(|line| field(line, 4)).map(|path| unescaped(&path)).filter(|path| path != b"/").collect()
}

const SYSFS_MAGIC: u64 = 0x6265_6572;

/// A path of mountinfo without its escapes: a backslash and three octal digits stand for a byte.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut left = path;
    while let Some((byte, rest)) = left.split_first() {
        match rest.first_chunk::<3>() {
            Some(digits) if *byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)) => {
                plain.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8) + (digit - b'0')));
                left = &rest[3..];
            }
            _ => {
                plain.push(*byte);
                left = rest;
            }
        }
    }
    plain
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mounts_of_the_old_root_are_told_from_those_of_the_new() {
        let table = b"1 0 8:1 / / rw - ext4 a rw\n5 1 0:5 / /proc rw - proc p rw\n6 1 0:6 / /a\\040b rw - tmpfs t rw\n\
            9 1 8:1 /r / rw - ext4 a rw\n11 10 0:5 / /dev/shm rw - tmpfs t rw\n10 9 0:7 / /dev rw - tmpfs t rw\n";
        assert_eq!(old_mounts(table, 9), [b"/proc".to_vec(), b"/a b".to_vec()]);
    }
}
