//! Layers as they look together, to be read while something is made that depends on them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use crate::error::PullCause;
use crate::fetch::Directory;
use crate::layers::Layers;
use crate::native;
use crate::overlay::{Lower, Stack, mount_stack};
use crate::stacking::Stacking;

/// A view.
pub(crate) struct View {
    /// A mount that is attached nowhere.
    pub root: OwnedFd,
    /// What goes with it, where they cannot be stacked.
    _copies: Option<Directory>,
}

impl View {
    /// Of these layers, the highest first. `empty` is a directory with nothing in it, for overlayfs, which wants two.
    ///
    /// # Errors
    /// What the disk or the kernel says.
    pub(crate) fn of(layers: &Arc<Layers>, lowers: Vec<Lower>, empty: &Path) -> Result<View, PullCause> {
        let failed = |error| PullCause::io(layers.folder(), error);
        let user_xattr = layers.user_xattr();
        match layers.stacking() {
            Stacking::Overlay => {
                let mut lowers = lowers;
                if lowers.len() == 1 {
                    lowers.push(Lower::Directory(empty.to_owned()));
                }
                let stack = Stack { lowers, upper: None, user_xattr, id_map: None, label: None };
                Ok(View { root: mount_stack(&stack).map_err(failed)?, _copies: None })
            }
            Stacking::Copies => {
                let (path, directory) = layers.new_partial("view")?;
                let copies = Directory { layers: Arc::clone(layers), path: Some(path) };
                native::put_together(&lowers, &directory, user_xattr).map_err(failed)?;
                let root = sys::mount::clone_mount(directory.as_fd(), false).map_err(failed)?;
                Ok(View { root, _copies: Some(copies) })
            }
        }
    }
}
