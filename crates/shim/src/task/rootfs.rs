//! The mounts of a root file system that `Create` names: made below the bundle, where containerd's own tools look for them.

use super::idmap::{self, Maps};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use task::Mount;

/// The option of overlayfs with the layers below.
const LOWERS: &str = "lowerdir=";

/// mount(2) reads a page of options and no more.
const LONGEST: usize = 4095;

/// Mounts one after the other at `target`, or at their own places below it. If one fails, those before it are taken away.
///
/// # Errors
/// Which mount, and what the kernel says.
pub(super) fn mount(mounts: &[Mount], target: &Path) -> io::Result<()> {
    if mounts.is_empty() {
        return Ok(());
    }
    match std::fs::create_dir(target) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
        _ => {}
    }
    for one in mounts {
        if let Err(cause) = mount_one(one, target) {
            let _ = unmount(target);
            let what =
                format!("mounting {} of type {:?} at {}: {cause}", one.source, one.r#type, target.display());
            return Err(io::Error::new(cause.kind(), what));
        }
    }
    Ok(())
}

/// Takes away whatever is mounted at `target` and below; nothing is fine.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INTR) => {}
            // It is no mount, or not there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(cause) => {
                return Err(io::Error::new(
                    io::Error::from(cause).kind(),
                    format!("unmounting {}: {cause}", target.display()),
                ));
            }
        }
    }
}

fn mount_one(one: &Mount, target: &Path) -> io::Result<()> {
    let beside = target.with_extension("lower");
    let target = below(target, &one.target)?;
    let mut plan = Plan::of(one)?;
    let lowers = match &plan.maps {
        None => None,
        Some(maps) if plan.is_bind() => {
            let mount = idmap::mapped(
                Path::new(&one.source),
                plan.flags.contains(MountFlags::REC),
                &maps.namespace()?,
            )?;
            let place = rustix::fs::open(&target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            sys::mount::attach(mount.as_fd(), place.as_fd())?;
            return plan.finish_bind(&target);
        }
        Some(maps) => {
            let layers = plan.layers();
            let layers: Vec<&Path> = layers.iter().map(Path::new).collect();
            Some(idmap::Lowers::attach(&layers, &maps.namespace()?, &beside)?)
        }
    };
    if let Some(lowers) = &lowers {
        plan.name_layers(&lowers.names(), &lowers.folder);
    } else if one.r#type == "overlay"
        && plan.data.iter().map(|option| option.len() + 1).sum::<usize>() > LONGEST
    {
        plan.shorten();
    }
    let data = CString::new(plan.data.join(","))?;
    if data.as_bytes().len() > LONGEST {
        let why = format!("its options have {} bytes, mount(2) takes {LONGEST}", data.as_bytes().len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    if let Some(folder) = &plan.folder {
        rustix::process::chdir(folder)?;
    }
    // A bind mount takes over the flags of what it shows; its own are set in a second step.
    let bind = MountFlags::BIND | MountFlags::REC;
    let first = if plan.is_bind() { plan.flags & bind } else { plan.flags };
    let mounted = rustix::mount::mount(&*one.source, &target, &*one.r#type, first, &*data);
    if plan.folder.is_some() {
        rustix::process::chdir("/")?;
    }
    mounted?;
    plan.finish_bind(&target)
}

/// The place of a mount that has one of its own. It names folders that are there already.
fn below(target: &Path, own: &str) -> io::Result<PathBuf> {
    let plain =
        |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir | Component::CurDir);
    if !Path::new(own).components().all(plain) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("its target {own:?} leads elsewhere"),
        ));
    }
    let own = own.trim_start_matches('/');
    Ok(if own.is_empty() { target.into() } else { target.join(own) })
}

/// The options of a mount, sorted.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    flags: MountFlags,
    data: Vec<String>,
    /// To mount from: with many layers their names are shorter there.
    folder: Option<PathBuf>,
    /// Whose the files are to be.
    maps: Option<Maps>,
}

impl Plan {
    fn of(one: &Mount) -> io::Result<Plan> {
        let mut plan = Plan { flags: MountFlags::empty(), data: Vec::new(), folder: None, maps: None };
        if one.r#type == "bind" || one.r#type == "rbind" {
            plan.flags |= MountFlags::BIND;
        }
        if one.r#type == "rbind" {
            plan.flags |= MountFlags::REC;
        }
        for option in &one.options {
            if let Some(map) = option.strip_prefix("uidmap=") {
                plan.maps.get_or_insert_default().users = idmap::parse(map)?;
                continue;
            }
            if let Some(map) = option.strip_prefix("gidmap=") {
                plan.maps.get_or_insert_default().groups = idmap::parse(map)?;
                continue;
            }
            match &**option {
                "" | "defaults" | "rw" | "suid" | "dev" | "exec" | "async" | "atime" => {}
                "bind" => plan.flags |= MountFlags::BIND,
                "rbind" => plan.flags |= MountFlags::BIND | MountFlags::REC,
                "ro" => plan.flags |= MountFlags::RDONLY,
                "nosuid" => plan.flags |= MountFlags::NOSUID,
                "nodev" => plan.flags |= MountFlags::NODEV,
                "noexec" => plan.flags |= MountFlags::NOEXEC,
                "sync" => plan.flags |= MountFlags::SYNCHRONOUS,
                "dirsync" => plan.flags |= MountFlags::DIRSYNC,
                "noatime" => plan.flags |= MountFlags::NOATIME,
                "nodiratime" => plan.flags |= MountFlags::NODIRATIME,
                "relatime" => plan.flags |= MountFlags::RELATIME,
                "strictatime" => plan.flags |= MountFlags::STRICTATIME,
                "loop" => return Err(unsupported(option, "attach the loop device before")),
                option => plan.data.push(option.into()),
            }
        }
        Ok(plan)
    }

    fn is_bind(&self) -> bool {
        self.flags.contains(MountFlags::BIND)
    }

    /// The lower layers of an overlay.
    fn layers(&self) -> Vec<String> {
        let lowers = self.data.iter().find_map(|option| option.strip_prefix(LOWERS));
        lowers.map(|lowers| lowers.split(':').map(String::from).collect()).unwrap_or_default()
    }

    /// Names the lower layers anew, relative to a folder.
    fn name_layers(&mut self, names: &str, folder: &Path) {
        if let Some(lowers) = self.data.iter_mut().find(|option| option.starts_with(LOWERS)) {
            *lowers = format!("{LOWERS}{names}");
            self.folder = Some(folder.into());
        }
    }

    /// Gives a bind mount its own flags. What is mounted in it later stays here, and what is unmounted elsewhere stays mounted here.
    fn finish_bind(&self, target: &Path) -> io::Result<()> {
        if self.is_bind() && !(self.flags - (MountFlags::BIND | MountFlags::REC)).is_empty() {
            rustix::mount::mount_remount(target, self.flags | MountFlags::BIND, c"")?;
        }
        let _ = rustix::mount::mount_change(target, MountPropagationFlags::PRIVATE);
        Ok(())
    }

    /// Names the lower layers relative to the folder that all of them are below.
    fn shorten(&mut self) {
        let layers = self.layers();
        let paths: Vec<&Path> = layers.iter().map(Path::new).collect();
        let mut folder = paths.first().and_then(|path| path.parent());
        while let Some(one) = folder.filter(|one| !paths.iter().all(|path| path.starts_with(one))) {
            folder = one.parent();
        }
        let Some(folder) = folder.filter(|folder| folder.is_absolute()) else {
            return;
        };
        let relative: Vec<_> = paths
            .iter()
            .map(|path| path.strip_prefix(folder).unwrap_or(path).display().to_string())
            .collect();
        self.name_layers(&relative.join(":"), folder);
    }
}

fn unsupported(option: &str, instead: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("option {option:?} is not supported; {instead}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: &str, options: &[&str]) -> io::Result<Plan> {
        Plan::of(&Mount {
            r#type: kind.into(),
            options: options.iter().map(|option| option.to_string()).collect(),
            ..Mount::default()
        })
    }

    #[test]
    fn options_are_flags_or_the_file_systems_own() {
        let found = plan("overlay", &["index=off", "ro", "noatime", "lowerdir=/a:/b", "rw"]).unwrap();
        assert_eq!(found.flags, MountFlags::RDONLY | MountFlags::NOATIME);
        assert_eq!(found.data, ["index=off", "lowerdir=/a:/b"]);
        assert_eq!(found.folder, None);
        assert_eq!(
            plan("bind", &["rbind", "ro"]).unwrap().flags,
            MountFlags::BIND | MountFlags::REC | MountFlags::RDONLY
        );
        assert!(plan("overlay", &["loop"]).unwrap_err().to_string().contains("loop"));
        let maps = plan("overlay", &["uidmap=0:1000:5", "gidmap=0:2000:5"]).unwrap().maps.unwrap();
        assert_eq!((maps.users[0].outside, maps.groups[0].outside), (1000, 2000));
        assert!(plan("overlay", &["uidmap=0:x:5"]).is_err());
    }

    #[test]
    fn many_layers_are_named_from_their_folder() {
        let layers: Vec<String> = (0..120).map(|n| format!("/var/lib/containerd/snapshots/{n}/fs")).collect();
        let mut found = plan("overlay", &[&format!("lowerdir={}", layers.join(":")), "upperdir=/u"]).unwrap();
        found.shorten();
        assert_eq!(found.folder.as_deref(), Some(Path::new("/var/lib/containerd/snapshots")));
        assert!(found.data[0].starts_with("lowerdir=0/fs:1/fs:"));
        assert_eq!(found.data[1], "upperdir=/u");
        assert!(found.data.join(",").len() < LONGEST);
    }

    #[test]
    fn a_place_below_never_leads_elsewhere() {
        let target = Path::new("/t");
        assert_eq!(below(target, "").unwrap(), target);
        assert_eq!(below(target, "/a/b").unwrap(), Path::new("/t/a/b"));
        assert!(below(target, "a/../..").is_err());
    }

    #[test]
    fn what_is_not_mounted_is_unmounted_already() {
        let folder = tempfile::tempdir().unwrap();
        unmount(folder.path()).unwrap();
        unmount(&folder.path().join("none")).unwrap();
    }
}
