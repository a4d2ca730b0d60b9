//! Whether layers are stacked by overlayfs, or, where that cannot be, copied into a tree for each container.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::config::{ImageConfig, Snapshotter};
use crate::error::PullCause;
use crate::mounts::{Mounts, Way};
use crate::overlay::{Lower, Stack, mount_stack};

/// How layers become one root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stacking {
    /// overlayfs shows them as one; only what is written takes room.
    Overlay,
    /// Each root file system is a copy of them all.
    Copies,
}

impl Stacking {
    /// The one that was chosen, or that is possible. Both `layers` and `written`, where containers write, are there.
    ///
    /// # Errors
    /// [`PullCause::Snapshotter`] if overlayfs was asked for and cannot be had.
    pub(crate) fn choose(config: &ImageConfig, layers: &Path, written: &Path) -> Result<Stacking, PullCause> {
        if config.snapshotter == Snapshotter::Native {
            return Ok(Stacking::Copies);
        }
        let Err(error) = attempt(layers, written, config.user_xattr) else { return Ok(Stacking::Overlay) };
        let name = match config.snapshotter {
            Snapshotter::Auto | Snapshotter::Native => {
                tracing::warn!(
                    folder = %written.display(), %error,
                    "overlayfs is not possible here: every container gets a whole copy of its image, which takes time and room; \
                     another file system for daemon.root or image.containers_root may help"
                );
                return Ok(Stacking::Copies);
            }
            Snapshotter::Overlayfs => "overlayfs",
            Snapshotter::Erofs => "erofs",
        };
        Err(PullCause::Snapshotter { name, why: format!("overlayfs in {}: {error}", written.display()) })
    }

    /// Whether new layers are packed into files.
    ///
    /// # Errors
    /// [`PullCause::Snapshotter`] if that was asked for and the kernel does not mount them.
    pub(crate) fn packs(self, config: &ImageConfig, mounts: &Mounts) -> Result<bool, PullCause> {
        match config.snapshotter {
            Snapshotter::Overlayfs | Snapshotter::Native => Ok(false),
            // Measured: docs/design/0008. A loop device for each layer is nothing to have without being asked.
            // With SELinux on, programs are mapped by the label that their file has, and files in such an image have none.
            Snapshotter::Auto if Path::new("/sys/fs/selinux/enforce").exists() => Ok(false),
            Snapshotter::Auto if self == Stacking::Copies => Ok(false),
            Snapshotter::Auto => Ok(!config.user_xattr && mounts.way() == Ok(Way::File)),
            // The attribute that makes a directory opaque is the privileged one.
            Snapshotter::Erofs if config.user_xattr => Err(PullCause::Snapshotter {
                name: "erofs",
                why: "it needs a daemon that is in no user namespace".into(),
            }),
            Snapshotter::Erofs => match mounts.way() {
                Ok(_) => Ok(true),
                Err(why) => Err(PullCause::Snapshotter { name: "erofs", why: why.to_owned() }),
            },
        }
    }
}

/// Stacks something as it is done for containers, and writes to it.
fn attempt(layers: &Path, written: &Path, user_xattr: bool) -> io::Result<()> {
    let probe = written.join(format!(".probe-stack-{}", std::process::id()));
    let (upper, work) = (probe.join("upper"), probe.join("work"));
    let try_it = || {
        std::fs::create_dir_all(&upper)?;
        std::fs::create_dir_all(&work)?;
        let mount = mount_stack(&Stack {
            lowers: vec![Lower::Directory(layers.to_owned())],
            upper: Some((upper.clone(), work.clone())),
            user_xattr,
            id_map: None,
            label: None,
        })?;
        std::fs::write(format!("/proc/self/fd/{}/written", mount.as_raw_fd()), "x")
    };
    let tried = try_it();
    let removed = match std::fs::remove_dir_all(&probe) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    // A full disk says nothing of overlayfs.
    match tried {
        Err(error) if crate::error::is_no_space(&error) => Ok(()),
        tried => tried.and(removed),
    }
}
