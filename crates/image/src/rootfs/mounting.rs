//! Root file systems as mounts that are attached nowhere: layers stacked, or a copy of them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{RootFilesystems, Rootfs, RootfsError};
use crate::native;
use crate::overlay::{Lower, Stack, mount_stack};
use crate::stacking::Stacking;

impl RootFilesystems {
    /// Mounts it and returns the mount, which is attached nowhere. It vanishes with the last descriptor and namespace that has it. With
    /// `id_map`, a user namespace, the owners in the layers are those of that namespace; it is the one of the users it was prepared for.
    ///
    /// # Errors
    /// [`RootfsError::Absent`] if it was not prepared; else what the kernel says.
    pub fn mount(&self, owner: &str, id_map: Option<BorrowedFd<'_>>) -> Result<OwnedFd, RootfsError> {
        self.mount_labelled(owner, id_map, None)
    }

    /// The same, with everything in it having one SELinux label.
    ///
    /// # Errors
    /// As for [`RootFilesystems::mount`].
    pub fn mount_labelled(
        &self,
        owner: &str,
        id_map: Option<BorrowedFd<'_>>,
        label: Option<&str>,
    ) -> Result<OwnedFd, RootfsError> {
        let rootfs = self.get(owner)?;
        if self.layers.stacking() == Stacking::Copies {
            return self.mount_copies(owner, &rootfs.upper, id_map, label);
        }
        // Left by a mount that was not unmounted in order, for example when the power went. What it guards against is that data is
        // missing that was never synced; no container outlives that, and nothing else reads this directory.
        let volatile = rootfs.work.join("work/incompat/volatile");
        if volatile.exists() {
            let _ = std::fs::remove_dir_all(&volatile);
        }
        let upper = Some((rootfs.upper.clone(), rootfs.work.clone()));
        self.mount_lowers(&rootfs, upper, id_map, label)
    }

    /// Whether this kernel, and the file system that images are in, can give the owners in layers other ids. It mounts to find out.
    pub fn can_map_ids(&self) -> bool {
        let range = [sys::users::IdRange { inside: 0, outside: 65_536, count: 65_536 }];
        let attempt = || {
            let users = sys::users::new(&range, &range)?;
            let id_map = Some(users.as_fd());
            if self.layers.stacking() == Stacking::Copies {
                return copies_mounted(&self.folder, id_map);
            }
            mount_stack(&Stack {
                lowers: self.empty.iter().cloned().map(Lower::Directory).collect(),
                upper: None,
                user_xattr: self.user_xattr,
                id_map,
                label: None,
            })
        };
        attempt()
            .inspect_err(|error| tracing::info!(%error, "pods cannot have users of their own here"))
            .is_ok()
    }

    /// All layers of `rootfs` read-only, mounted, for a volume; copies of them are made at `place` if they are not there.
    pub(crate) fn mount_volume_lowers(
        &self,
        rootfs: &Rootfs,
        place: &Path,
        id_map: Option<BorrowedFd<'_>>,
        label: Option<&str>,
    ) -> Result<OwnedFd, RootfsError> {
        if self.layers.stacking() == Stacking::Overlay {
            return self.mount_lowers(rootfs, None, id_map, label);
        }
        let copy = || {
            if place.exists() {
                return Ok(());
            }
            let partial = place.with_extension("partial");
            std::fs::create_dir(&partial)?;
            native::put_together(&self.lowers(rootfs)?, &File::open(&partial)?, self.user_xattr)?;
            std::fs::rename(&partial, place)
        };
        copy().map_err(|source| RootfsError::Io {
            owner: rootfs.owner.clone(),
            path: place.to_owned(),
            source,
        })?;
        self.mount_copies(&rootfs.owner, place, id_map, label)
    }

    fn mount_copies(
        &self,
        owner: &str,
        tree: &Path,
        id_map: Option<BorrowedFd<'_>>,
        label: Option<&str>,
    ) -> Result<OwnedFd, RootfsError> {
        if let Some(label) = label {
            return Err(RootfsError::NoLabel { owner: owner.to_owned(), label: label.to_owned() });
        }
        copies_mounted(tree, id_map).map_err(|source| RootfsError::Io {
            owner: owner.to_owned(),
            path: tree.to_owned(),
            source,
        })
    }

    pub(super) fn lowers(&self, rootfs: &Rootfs) -> io::Result<Vec<Lower>> {
        rootfs.layers.iter().map(|layer| self.layers.lower(&layer.path)).collect()
    }

    pub(crate) fn mount_lowers(
        &self,
        rootfs: &Rootfs,
        upper: Option<(PathBuf, PathBuf)>,
        id_map: Option<BorrowedFd<'_>>,
        label: Option<&str>,
    ) -> Result<OwnedFd, RootfsError> {
        let failed =
            |source| RootfsError::Mount { owner: rootfs.owner.clone(), layers: rootfs.layers.len(), source };
        let mut lowers = self.lowers(rootfs).map_err(failed)?;
        // An image may have no layer at all, and without an upper overlayfs wants two.
        let least = if upper.is_some() { 1 } else { 2 };
        let missing = usize::saturating_sub(least, lowers.len());
        lowers.extend(self.empty.iter().take(missing).cloned().map(Lower::Directory));
        mount_stack(&Stack { lowers, upper, user_xattr: self.user_xattr, id_map, label }).map_err(failed)
    }
}

/// A tree of copies as a mount that is attached nowhere. With `id_map` its owners are those of that namespace.
fn copies_mounted(tree: &Path, id_map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let mount = sys::mount::clone_mount(File::open(tree)?.as_fd(), false)?;
    if id_map.is_some() {
        let change = sys::mount::Change { id_map, ..Default::default() };
        sys::mount::set_attributes(mount.as_fd(), false, &change)?;
    }
    Ok(mount)
}
