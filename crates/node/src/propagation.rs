//! Whether what a request wants to spread from or to the host can: mounts spread only where the host's own mount does.

use std::io;
use std::path::Path;

use model::request::{Mount, Propagation};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

/// Checks the mounts of a request. The error says which cannot be had and what to do; a source that is not there is another's to tell.
pub(crate) fn check(mounts: &[Mount]) -> Result<(), String> {
    for (index, mount) in mounts.iter().enumerate() {
        let needs = match mount.propagation {
            Propagation::Private => continue,
            Propagation::HostToContainer => Spread { sends: false },
            Propagation::Bidirectional => Spread { sends: true },
        };
        let path = mount.host_path.display();
        match spread_of(&mount.host_path) {
            Ok(Some(has)) if has.sends || !needs.sends => {}
            Ok(_) => {
                let kind = if needs.sends { "shared" } else { "shared or slave" };
                return Err(format!(
                    "mounts[{index}].propagation: the mount that {path} is on is not {kind}; make it so with `mount --make-shared`"
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("mounts[{index}].host_path {path}: {error}")),
        }
    }
    Ok(())
}

/// How a mount takes part in propagation (mount_namespaces(7)): it receives, and may send.
struct Spread {
    sends: bool,
}

/// That of the mount which `path` is on; none if it is private.
fn spread_of(path: &Path) -> io::Result<Option<Spread>> {
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID)?.stx_mnt_id;
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(in_table(&mounts, id))
}

/// Reads proc_pid_mountinfo(5): the optional fields stand between the sixth and a hyphen.
fn in_table(mounts: &str, id: u64) -> Option<Spread> {
    let id = id.to_string();
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&id))?;
    let mut spread = None;
    for field in line.split(' ').skip(6).take_while(|field| *field != "-") {
        match field.split_once(':') {
            Some(("shared", _)) => return Some(Spread { sends: true }),
            Some(("master", _)) => spread = Some(Spread { sends: false }),
            _ => {}
        }
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_told_apart_by_their_optional_fields() {
        let table = "21 1 0:1 / / rw - ext4 /dev/vda rw\n\
            22 21 0:2 / /a rw,shared shared:3 master:1 - tmpfs shared:1 rw\n\
            23 21 0:3 / /b rw master:1 propagate_from:2 - tmpfs x rw\n";
        let sends = |id| in_table(table, id).map(|spread| spread.sends);
        assert_eq!([21, 22, 23, 2].map(sends), [None, Some(true), Some(false), None]);
    }

    #[test]
    fn a_source_that_is_absent_is_not_judged() {
        let mount =
            |path: &str, propagation| Mount { host_path: path.into(), propagation, ..Default::default() };
        assert_eq!(
            check(&[mount("/proc", Propagation::Private), mount("/absent", Propagation::Bidirectional)]),
            Ok(())
        );
    }
}
