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

/// Whether `tree`, the copy of an image that a container writes to, is in the mount namespace of some process. What cannot be found out
/// counts as yes.
pub(super) fn is_bound(tree: &Path) -> bool {
    // A mount shows where in its file system it begins, which is the end of the path at least. The container's id tells it from others.
    let names: Vec<_> = tree.components().rev().take(3).collect();
    let end: Vec<_> = names.iter().rev().map(|name| name.as_os_str().to_string_lossy()).collect();
    let end = format!("/{}", end.join("/"));
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    let is_process = |name: &std::ffi::OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    processes.flatten().filter(|entry| is_process(&entry.file_name())).any(|entry| {
        let mounts = std::fs::read(entry.path().join("mountinfo")).unwrap_or_default();
        let mounts = String::from_utf8_lossy(&mounts);
        mounts.lines().any(|line| line.split(' ').nth(3).is_some_and(|root| root.ends_with(&end)))
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
    fn processes_know_who_stands_on_a_copy() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root to mount");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path().join("rootfs").join(format!("c{}", std::process::id())).join("upper");
        std::fs::create_dir_all(&tree).unwrap();
        assert!(!is_bound(&tree));
        let script = format!("mount --bind {0} {0} && echo bound && read end", tree.display());
        let mut child = std::process::Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut said).unwrap();
        let found = is_bound(&tree);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!((said.trim(), found), ("bound", true));
        assert!(!is_bound(&tree));
    }

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
