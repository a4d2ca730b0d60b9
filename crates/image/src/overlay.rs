//! Overlay mounts as descriptors: made of layers, attached nowhere on this host.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
};
use rustix::mount::{
    fsconfig_create, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, open_tree,
};

/// A layer as something that can be stacked.
#[derive(Debug, Clone)]
pub(crate) enum Lower {
    Directory(PathBuf),
    /// A mount that is attached nowhere and that others use too.
    Shared(Arc<OwnedFd>),
    /// One that was made for this stack.
    Own(Arc<OwnedFd>),
}

impl Lower {
    /// Its root directory, to be read.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(match self {
            Lower::Directory(path) => rustix::fs::open(path, flags, Mode::empty())?,
            Lower::Shared(mount) | Lower::Own(mount) => {
                rustix::fs::openat(mount, c".", flags, Mode::empty())?
            }
        })
    }

    fn is_mount(&self) -> bool {
        !matches!(self, Lower::Directory(_))
    }

    /// It as a mount in which each owner is the one that the user namespace maps it to.
    fn mapped(&self, map: BorrowedFd<'_>) -> io::Result<Arc<OwnedFd>> {
        let mount = match self {
            Lower::Directory(path) => Arc::new(sys::mount::clone_mount(open_path(path)?.as_fd(), false)?),
            Lower::Shared(mount) => Arc::new(sys::mount::clone_mount(mount.as_fd(), false)?),
            Lower::Own(mount) => Arc::clone(mount),
        };
        let change = sys::mount::Change { id_map: Some(map), ..Default::default() };
        sys::mount::set_attributes(mount.as_fd(), false, &change)?;
        Ok(mount)
    }
}

/// What to stack.
#[derive(Debug, Clone)]
pub(crate) struct Stack<'a> {
    /// The highest first, as overlayfs has it; at least one.
    pub lowers: Vec<Lower>,
    /// Where writing goes, and overlayfs's own folder beside it; none: read-only.
    pub upper: Option<(PathBuf, PathBuf)>,
    pub user_xattr: bool,
    /// The user namespace whose ids the owners in the layers are; none: the host's. What is in the upper folder is not mapped.
    pub id_map: Option<BorrowedFd<'a>>,
    /// The SELinux label of everything in it; none: what the layers have.
    pub label: Option<&'a str>,
}

/// Mounts a stack and returns the mount, which vanishes with its last descriptor or namespace.
///
/// # Errors
/// What the kernel says, with the reason from its log of the mount where it gives one.
pub(crate) fn mount_stack(stack: &Stack<'_>) -> io::Result<OwnedFd> {
    let any_mount = stack.id_map.is_some() || stack.lowers.iter().any(Lower::is_mount);
    let by_descriptor_can = if any_mount { takes_lowers_open() } else { appends_lowers() };
    if by_descriptor_can { by_descriptor(stack) } else { by_name(stack) }
}

/// Options beside the layers. `volatile` spares a sync of the whole file system at the unmount; what a container wrote is lost with the
/// power anyway, as its container is. An index and metacopy would only serve features that hidden attributes in layers could misuse.
fn flags_and_values(stack: &Stack<'_>) -> (Vec<&'static str>, Vec<(&'static str, &'static str)>) {
    let mut flags = Vec::new();
    let mut values = Vec::new();
    if stack.upper.is_some() {
        flags.push("volatile");
        values.push(("index", "off"));
    }
    if stack.lowers.iter().any(Lower::is_mount) {
        // Layers that are file systems of their own: with it all files are of one device, as they are otherwise.
        values.push(("xino", "on"));
    }
    if stack.user_xattr {
        flags.push("userxattr");
    } else {
        values.push(("metacopy", "off"));
    }
    (flags, values)
}

/// With fsopen(2): each layer is one parameter, so that neither a page of options nor a colon in a path is in the way.
fn by_descriptor(stack: &Stack<'_>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The mounts must be there until the stack is made: overlayfs takes copies of them then.
    let lowers = match stack.id_map {
        None => stack.lowers.clone(),
        Some(map) => {
            let mapped = stack.lowers.iter().map(|lower| lower.mapped(map).map(Lower::Own));
            mapped.collect::<io::Result<Vec<_>>>()?
        }
    };
    let configure = || -> Result<OwnedFd, Errno> {
        let fd = context.as_fd();
        let (flags, values) = flags_and_values(stack);
        fsconfig_set_string(fd, "source", "overlay")?;
        for flag in flags {
            fsconfig_set_flag(fd, flag)?;
        }
        for (key, value) in values {
            fsconfig_set_string(fd, key, value)?;
        }
        if let Some(label) = stack.label {
            fsconfig_set_string(fd, "context", label)?;
        }
        for lower in &lowers {
            match lower {
                Lower::Directory(path) => fsconfig_set_string(fd, "lowerdir+", path)?,
                Lower::Shared(mount) | Lower::Own(mount) => fsconfig_set_fd(fd, "lowerdir+", mount)?,
            }
        }
        if let Some((upper, work)) = &stack.upper {
            fsconfig_set_string(fd, "upperdir", upper)?;
            fsconfig_set_string(fd, "workdir", work)?;
        }
        fsconfig_create(fd)?;
        fsmount(fd, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    configure().map_err(|error| explained(error, &context))
}

/// The error with what the kernel wrote to the context's log, which read(2) gives line by line.
fn explained(error: Errno, context: &OwnedFd) -> io::Error {
    let mut text = String::new();
    let mut line = [0; 512];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut line) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(String::from_utf8_lossy(&line[..length]).trim());
        if text.len() > 2048 {
            break;
        }
    }
    let error = io::Error::from(error);
    if text.is_empty() { error } else { io::Error::new(error.kind(), format!("{error} ({text})")) }
}

/// Whether overlayfs takes layers one by one, as it does since Linux 6.7. An older one takes any parameter and fails at the end.
fn appends_lowers() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        fsconfig_set_string(&context, "lowerdir+", "/").is_ok()
            && fsconfig_set_string(&context, "pintle-probe", "1").is_err()
    })
}

/// Whether overlayfs takes layers as open mounts, as it does since Linux 6.13: only so can they be mounts that are attached nowhere.
fn takes_lowers_open() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let Ok(context) = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) else { return false };
        open_path(Path::new("/")).is_ok_and(|root| fsconfig_set_fd(&context, "lowerdir+", root).is_ok())
    })
}

/// With mount(2) for older kernels: its options must fit one page, so the layers get names of a few bytes in a small file system that
/// only one short-lived thread in a mount namespace of its own ever sees.
fn by_name(stack: &Stack<'_>) -> io::Result<OwnedFd> {
    let stack = stack.clone();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("overlay".into());
        let mounted = thread.spawn_scoped(scope, || by_name_here(&stack))?.join();
        mounted.unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

fn by_name_here(stack: &Stack<'_>) -> io::Result<OwnedFd> {
    sys::namespace::leave(sys::namespace::kind::MOUNT)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    // The place does not matter: nobody else sees it covered. The root cannot be.
    let directory = stack.lowers.iter().find_map(|lower| match lower {
        Lower::Directory(path) => Some(path.as_path()),
        _ => None,
    });
    let scratch = stack.upper.as_ref().map(|(_, work)| work.as_path()).or(directory);
    let scratch = scratch.and_then(Path::parent).unwrap_or(Path::new("/dev"));
    // The descriptors must live until the mount is made: the brief names lead to them.
    let (layers, _handles) = name_briefly(stack, scratch)?;
    let mut options = format!("lowerdir={}", layers.join(":"));
    let (flags, values) = flags_and_values(stack);
    for flag in flags {
        options.push_str(&format!(",{flag}"));
    }
    for (key, value) in values {
        options.push_str(&format!(",{key}={value}"));
    }
    if stack.upper.is_some() {
        options.push_str(",upperdir=u,workdir=w");
    }
    if let Some(label) = stack.label {
        // In quotes: a level has commas.
        options.push_str(&format!(",context=\"{label}\""));
    }
    let options = std::ffi::CString::new(options)?;
    mount("overlay", ".", "overlay", MountFlags::empty(), options.as_c_str())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    // The working directory is below the mount; its own name leads to what is on top of it.
    Ok(open_tree(CWD, scratch, flags)?)
}

/// Covers `scratch` by a small file system with links of few bytes to the layers, and goes there.
fn name_briefly(stack: &Stack<'_>, scratch: &Path) -> io::Result<(Vec<String>, Vec<Arc<OwnedFd>>)> {
    let open = |lower: &Lower| match (stack.id_map, lower) {
        (Some(map), lower) => lower.mapped(map),
        (None, Lower::Directory(path)) => open_path(path).map(Arc::new),
        (None, Lower::Shared(mount)) => sys::mount::clone_mount(mount.as_fd(), false).map(Arc::new),
        (None, Lower::Own(mount)) => Ok(Arc::clone(mount)),
    };
    let mut handles = stack.lowers.iter().map(open).collect::<io::Result<Vec<Arc<OwnedFd>>>>()?;
    let upper = match &stack.upper {
        Some((upper, work)) => Some((open_path(upper)?, open_path(work)?)),
        None => None,
    };
    mount("tmpfs", scratch, "tmpfs", MountFlags::empty(), None)?;
    std::env::set_current_dir(scratch)?;
    let link = |fd: &OwnedFd, name: &str| {
        use std::os::fd::AsRawFd;
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), name)
    };
    let mut names = Vec::new();
    for (number, (fd, lower)) in handles.iter().zip(&stack.lowers).enumerate() {
        let name = number.to_string();
        match stack.id_map.is_some() || lower.is_mount() {
            false => link(fd, &name)?,
            true => {
                std::fs::create_dir(&name)?;
                sys::mount::attach(fd.as_fd(), open_path(Path::new(&name))?.as_fd())?;
            }
        }
        names.push(name);
    }
    if let Some((upper, work)) = upper {
        link(&upper, "u")?;
        link(&work, "w")?;
        handles.extend([Arc::new(upper), Arc::new(work)]);
    }
    Ok((names, handles))
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `count` layers that each have a file of their own and one in common.
    fn stack_of(folder: &Path, count: usize) -> Stack<'static> {
        let lowers: Vec<Lower> = (0..count)
            .map(|number| {
                let layer = folder.join(format!("layer,with:odd\\name-{}-{number}", "x".repeat(64)));
                std::fs::create_dir(&layer).unwrap();
                std::fs::write(layer.join(format!("own-{number}")), "").unwrap();
                std::fs::write(layer.join("common"), number.to_string()).unwrap();
                Lower::Directory(layer)
            })
            .collect();
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&work).unwrap();
        Stack { lowers, upper: Some((upper, work)), user_xattr: false, id_map: None, label: None }
    }

    fn check(folder: &Path, count: usize, mounted: io::Result<OwnedFd>) {
        use std::os::fd::AsRawFd;
        let mount = mounted.unwrap();
        let inside = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        assert_eq!(std::fs::read_to_string(inside.join("common")).unwrap(), "0", "the first is the highest");
        assert_eq!(std::fs::read_dir(&inside).unwrap().count(), count + 1);
        std::fs::write(inside.join("written"), "x").unwrap();
        assert!(folder.join("upper/written").exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&folder.display().to_string()), "it is attached somewhere");
    }

    #[test]
    fn five_hundred_layers_are_stacked() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root to mount");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let stack = stack_of(folder.path(), 500);
        check(folder.path(), 500, mount_stack(&stack));
    }

    #[test]
    fn five_hundred_layers_are_stacked_on_an_old_kernel_too() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root to mount");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let stack = stack_of(folder.path(), 500);
        let before = std::env::current_dir().unwrap();
        check(folder.path(), 500, by_name(&stack));
        assert_eq!(std::env::current_dir().unwrap(), before, "only the mounting thread went elsewhere");
    }

    /// A file of each owner in a layer, seen by the host through a stack whose layers are mapped.
    fn check_owners(mount: impl Fn(&Stack<'_>) -> io::Result<OwnedFd>) {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::{MetadataExt, chown};
        let folder = tempfile::tempdir().unwrap();
        let mut stack = stack_of(folder.path(), 3);
        for (layer, owner) in stack.lowers.iter().zip([0, 7, 5000]) {
            let Lower::Directory(layer) = layer else { unreachable!() };
            let name = std::fs::read_dir(layer).unwrap().find_map(|entry| {
                let path = entry.unwrap().path();
                (!path.ends_with("common")).then_some(path)
            });
            chown(name.unwrap(), Some(owner), Some(owner)).unwrap();
        }
        let range = |outside| [sys::users::IdRange { inside: 0, outside, count: 1000 }];
        let users = sys::users::new(&range(300_000), &range(400_000)).unwrap();
        stack.id_map = Some(users.as_fd());
        let mount = mount(&stack).unwrap();
        let inside = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let owner = |name: &str| std::fs::metadata(inside.join(name)).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!(owner("own-0"), (300_000, 400_000));
        assert_eq!(owner("own-1"), (300_007, 400_007));
        assert_eq!(owner("own-2"), (65_534, 65_534), "an owner that is mapped to nobody");
        std::fs::write(inside.join("own-0"), "copied up").unwrap();
        let copied = std::fs::metadata(folder.path().join("upper/own-0")).unwrap();
        assert_eq!((copied.uid(), copied.gid()), (300_000, 400_000));
    }

    #[test]
    fn owners_in_layers_are_those_of_a_user_namespace() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root to mount");
            return;
        }
        check_owners(mount_stack);
        check_owners(by_name);
    }
}
