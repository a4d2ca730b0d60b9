//! The place in the root file system where something is mounted: resolved, and made where it is missing, by descriptors only.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sys::root::Root;

const MOST_LINKS: usize = 40;

/// What a mount target has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// Opens (`O_PATH`) the file or directory at `path` in `root`; what is missing is made, parents with mode 0755. Links are followed
/// inside the root, also one whose target is missing: images have `/etc/resolv.conf` pointing into an empty `/run`.
pub(crate) fn open_or_make(root: &Root, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let flags = if kind == Kind::Directory { OFlags::PATH | OFlags::DIRECTORY } else { OFlags::PATH };
    match root.open_at(path, flags, Mode::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(fd) if kind == Kind::File && is_directory(&fd)? => return Err(io::ErrorKind::IsADirectory.into()),
        done => return done,
    }
    Walk::new(root, path)?.run(kind)
}

fn is_directory(fd: &OwnedFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}

/// One resolution, component by component. `..` goes back to a directory that was passed, never to what is above it now, so that a
/// rename beside us cannot lead outside.
struct Walk {
    passed: Vec<OwnedFd>,
    left: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn new(root: &Root, path: &Path) -> io::Result<Walk> {
        let mut walk = Walk { passed: vec![root.directory(Path::new("."))?], left: Vec::new(), links: 0 };
        walk.push(path);
        Ok(walk)
    }

    /// Puts the components of `path` before those left.
    fn push(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push(name.into()),
                Component::ParentDir => self.left.push("..".into()),
                _ => {}
            }
        }
    }

    fn run(mut self, kind: Kind) -> io::Result<OwnedFd> {
        while let Some(name) = self.left.pop() {
            if name == ".." {
                if self.passed.len() > 1 {
                    self.passed.pop();
                }
                continue;
            }
            let as_file = self.left.is_empty() && kind == Kind::File;
            let found = self.step(&name, as_file)?;
            match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                FileType::Symlink => self.follow(&found)?,
                FileType::Directory if as_file => return Err(io::ErrorKind::IsADirectory.into()),
                FileType::Directory => self.passed.push(found),
                _ if as_file => return Ok(found),
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        if kind == Kind::File {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.passed.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens `name` in the directory reached, without following a link; makes it if it is missing.
    fn step(&self, name: &OsStr, as_file: bool) -> io::Result<OwnedFd> {
        let Some(here) = self.passed.last() else { return Err(io::ErrorKind::NotFound.into()) };
        let open = || {
            rustix::fs::openat(here, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        match open() {
            Err(Errno::NOENT) => {}
            done => return Ok(done?),
        }
        if as_file {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(here, name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            match rustix::fs::mkdirat(here, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(open()?)
    }

    fn follow(&mut self, link: &OwnedFd) -> io::Result<()> {
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        // The links of a procfs lead to descriptors and directories of processes, whatever their text says. Plain ones, such as
        // /proc/self, were followed by the kernel if their target exists.
        if rustix::fs::fstatfs(link)?.f_type as u64 == super::mount::PROC_SUPER_MAGIC {
            return Err(Errno::LOOP.into());
        }
        let text = rustix::fs::readlinkat(link, c"", Vec::new())?;
        let target = OsString::from_vec(text.into_bytes());
        if Path::new(&target).is_absolute() {
            self.passed.truncate(1);
        }
        self.push(Path::new(&target));
        Ok(())
    }
}

/// Opens the directory `path` in `root`, made where missing, refusing every link on the way: for places whose meaning is fixed, such
/// as /proc and /dev, where a link could only mislead.
pub(crate) fn plain_directory(root: &Root, path: &Path) -> io::Result<OwnedFd> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    if let Ok(found) = rustix::fs::openat2(root, relative, flags, Mode::empty(), resolve) {
        return Ok(found);
    }
    make_plain_directory(root, path)
}

fn make_plain_directory(root: &Root, path: &Path) -> io::Result<OwnedFd> {
    let mut here = root.directory(Path::new("."))?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        here = match rustix::fs::openat(&here, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                rustix::fs::openat(&here, name, flags, Mode::empty())?
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let link = rustix::fs::statat(here.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink);
                let what = if link { "is a symbolic link" } else { "is not a directory" };
                return Err(io::Error::new(
                    io::ErrorKind::NotADirectory,
                    format!("{} {what} in the image", name.display()),
                ));
            }
            other => other?,
        };
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn missing_targets_are_made_inside_also_behind_links() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        symlink("../run/systemd/resolve/stub.conf", inside.join("etc/resolv.conf")).unwrap();
        symlink("/../../../../../../escape", inside.join("out")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        let root = Root::open(&inside).unwrap();
        open_or_make(&root, Path::new("/etc/resolv.conf"), Kind::File).unwrap();
        assert!(inside.join("run/systemd/resolve/stub.conf").is_file());
        open_or_make(&root, Path::new("/out/dir"), Kind::Directory).unwrap();
        assert!(inside.join("escape/dir").is_dir());
        assert!(!Path::new("/escape").exists() && !outside.path().join("escape").exists());
        assert!(open_or_make(&root, Path::new("/loop/x"), Kind::File).is_err());
        assert!(open_or_make(&root, Path::new("/etc"), Kind::File).is_err());
        assert!(open_or_make(&root, Path::new("/etc/resolv.conf/x"), Kind::Directory).is_err());
    }

    #[test]
    fn a_link_in_a_fixed_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/tmp", folder.path().join("dev")).unwrap();
        let root = Root::open(folder.path()).unwrap();
        let error = plain_directory(&root, Path::new("/dev")).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        plain_directory(&root, Path::new("/proc/x")).unwrap();
    }
}
