//! Whether a container stands on a directory: asked of the kernel, for those that no record knows.

use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsopen};

/// Whether `upper` is the upper directory of some overlay mount of this machine, in whatever mount namespace. `beside` is a folder in the
/// same file system. What cannot be found out counts as yes.
///
/// The kernel marks upper directories, and with an index it refuses to use one for a second mount (overlayfs documentation, "Sharing and
/// copying layers"). A directory that is free may get marks of an index by this, so that only one that is to be removed may be asked for.
pub(super) fn is_upper(upper: &Path, beside: &Path, user_xattr: bool) -> bool {
    let attempt = || -> Result<bool, Errno> {
        let probe = beside.join(format!(".probe-{}", std::process::id()));
        let (lower, work) = (probe.join("lower"), probe.join("work"));
        let made = std::fs::create_dir_all(&lower).and_then(|()| std::fs::create_dir_all(&work));
        let mounted = made.map_err(|_| Errno::IO).and_then(|()| mount(&lower, upper, &work, user_xattr));
        let _ = std::fs::remove_dir_all(&probe);
        match mounted {
            Ok(()) => Ok(false),
            Err(Errno::BUSY) => Ok(true),
            Err(error) => Err(error),
        }
    };
    attempt().unwrap_or_else(|error| {
        tracing::debug!(path = %upper.display(), %error, "whether a container stands on it cannot be found out");
        true
    })
}

fn mount(lower: &Path, upper: &Path, work: &Path, user_xattr: bool) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "overlay")?;
    if user_xattr {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_set_string(&context, "index", "on")?;
    fsconfig_set_string(&context, "lowerdir", lower)?;
    fsconfig_set_string(&context, "upperdir", upper)?;
    fsconfig_set_string(&context, "workdir", work)?;
    fsconfig_create(&context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::{Lower, Stack, mount_stack};

    #[test]
    fn the_kernel_knows_who_stands_on_what() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root to mount");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let lowers = vec![Lower::Directory(path("lower"))];
        let mount = || {
            let upper = Some((path("upper"), path("work")));
            mount_stack(&Stack {
                lowers: lowers.clone(),
                upper,
                user_xattr: false,
                id_map: None,
                label: None,
            })
            .unwrap()
        };
        let mounted = mount();
        assert!(is_upper(&path("upper"), folder.path(), false));
        drop(mounted);
        assert!(!is_upper(&path("upper"), folder.path(), false));
        assert!(is_upper(&path("absent"), folder.path(), false), "what cannot be found out");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
