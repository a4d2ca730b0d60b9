//! Root file systems of tasks with users of their own: the layers become mounts in which each owner is the one that a map says.

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use sys::mount::Change;
use sys::users::IdRange;

/// The maps of users and groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Maps {
    pub(super) users: Vec<IdRange>,
    pub(super) groups: Vec<IdRange>,
}

impl Maps {
    /// A user namespace with these maps, which is what mounts are mapped by.
    pub(super) fn namespace(&self) -> io::Result<OwnedFd> {
        if self.users.is_empty() || self.groups.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "uidmap and gidmap go together"));
        }
        sys::users::new(&self.users, &self.groups)
    }
}

/// Reads a map as it stands in a mount's option: `inside:outside:count`, and more after commas.
pub(super) fn parse(text: &str) -> io::Result<Vec<IdRange>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is no map of ids"));
    let range = |part: &str| {
        let mut numbers = part.split(':').map(str::parse);
        match [numbers.next(), numbers.next(), numbers.next(), numbers.next()] {
            [Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count)), None] => {
                Ok(IdRange { inside, outside, count })
            }
            _ => Err(bad()),
        }
    };
    text.split(',').map(range).collect()
}

/// A copy of the mount at `path`, attached nowhere, with its owners mapped.
pub(super) fn mapped(path: &Path, recursive: bool, namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mount = sys::mount::clone_mount_at(rustix::fs::CWD, &name, recursive)?;
    let change = Change { id_map: Some(namespace.as_fd()), ..Change::default() };
    sys::mount::set_attributes(mount.as_fd(), recursive, &change)?;
    Ok(mount)
}

/// Layers with their owners mapped, named by number in a folder of their own. An overlay of them keeps them; here they go with this.
pub(super) struct Lowers {
    pub(super) folder: PathBuf,
    number: usize,
}

impl Lowers {
    /// Attaches a mapped copy of each of `layers` below `folder`, which is made.
    pub(super) fn attach(layers: &[&Path], namespace: &OwnedFd, folder: &Path) -> io::Result<Lowers> {
        let mut lowers = Lowers { folder: folder.into(), number: 0 };
        std::fs::create_dir(folder)?;
        for layer in layers {
            let mount = mapped(layer, false, namespace)?;
            let place = folder.join(lowers.number.to_string());
            std::fs::create_dir(&place)?;
            lowers.number += 1;
            let target = rustix::fs::open(&place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            sys::mount::attach(mount.as_fd(), target.as_fd())?;
        }
        Ok(lowers)
    }

    /// Their names in the folder, as overlayfs takes them.
    pub(super) fn names(&self) -> String {
        (0..self.number).map(|number| number.to_string()).collect::<Vec<_>>().join(":")
    }
}

impl Drop for Lowers {
    fn drop(&mut self) {
        for number in 0..self.number {
            let place = self.folder.join(number.to_string());
            let _ = rustix::mount::unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            let _ = rustix::fs::rmdir(&place);
        }
        let _ = rustix::fs::rmdir(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_and_nonsense_is_none() {
        let range = |inside, outside, count| IdRange { inside, outside, count };
        assert_eq!(parse("0:1000:1").unwrap(), [range(0, 1000, 1)]);
        assert_eq!(parse("0:1000:1,1:5:65535").unwrap(), [range(0, 1000, 1), range(1, 5, 65535)]);
        for bad in ["", "0:1", "0:1:2:3", "0:-1:2", "a:b:c", "0:1:99999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
