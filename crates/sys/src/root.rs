//! A directory tree that somebody hostile may own: every path in it is resolved by descriptor and can never leave it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, Mode, OFlags, ResolveFlags};

/// How symbolic links are taken: as if the root were `/`, and never through `/proc`'s magic links.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// An open directory that is treated as `/` for whatever is opened through it (openat2(2), `RESOLVE_IN_ROOT`).
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens the directory at `path`, a trusted path of the host.
    pub fn open(path: &Path) -> io::Result<Root> {
        let fd = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root(fd))
    }

    /// Takes a directory that is open already, for example a detached mount.
    pub fn from_fd(directory: OwnedFd) -> Root {
        Root(directory)
    }

    /// The directory itself.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens `path` below this root; links and `..` stay inside. `flags` get `O_CLOEXEC` added.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        openat2(self.0.as_fd(), path, flags, mode, IN_ROOT)
    }

    /// Opens the directory `path` below this root with `O_PATH`.
    pub fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
    }

    /// Opens `path` for reading if it is a regular file; a FIFO, device or socket there is an error and is not waited for.
    pub fn regular_file(&self, path: &Path) -> io::Result<std::fs::File> {
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?;
        let kind = fs::FileType::from_raw_mode(fs::fstat(&fd)?.st_mode);
        if kind != fs::FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("is a {kind:?}, not a regular file"),
            ));
        }
        Ok(fd.into())
    }

    /// Makes `path` and its missing parents as directories of `mode`, and opens it. Links on the way are followed inside the root;
    /// a link whose target is missing is an error, so that nothing is created where the link points.
    pub fn create_directories(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        let mut here = self.directory(Path::new("."))?;
        let mut walked = PathBuf::new();
        for name in plain_components(path)? {
            walked.push(name);
            here = match self.directory(&walked) {
                Ok(next) => next,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match fs::mkdirat(&here, name, Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    openat2(
                        here.as_fd(),
                        Path::new(name),
                        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
                        Mode::empty(),
                        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
                    )?
                }
                Err(error) => return Err(error),
            };
        }
        Ok(here)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// openat2(2), retried where the kernel asks for it because a rename ran beside the resolution.
fn openat2(
    at: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    for _ in 0..128 {
        match fs::openat2(at, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            done => return Ok(done?),
        }
    }
    Err(rustix::io::Errno::AGAIN.into())
}

/// The names of `path` from the root down. `..` is refused: whoever has a meaning for it resolves it before.
fn plain_components(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name)),
            Component::RootDir | Component::CurDir => None,
            Component::ParentDir | Component::Prefix(_) => {
                Some(Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'..' in {}", path.display()))))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_cannot_leave_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let inside = outside.path().join("root");
        std::fs::create_dir_all(inside.join("etc")).unwrap();
        std::fs::write(outside.path().join("passwd"), "host").unwrap();
        std::fs::write(inside.join("passwd"), "container").unwrap();
        symlink("../../passwd", inside.join("etc/passwd")).unwrap();
        symlink("/absent", inside.join("dangling")).unwrap();
        symlink("/etc", inside.join("alias")).unwrap();
        let root = Root::open(&inside).unwrap();
        let text = std::io::read_to_string(root.regular_file(Path::new("/etc/passwd")).unwrap()).unwrap();
        assert_eq!(text, "container");
        assert!(root.create_directories(Path::new("dangling/x"), 0o755).is_err());
        assert!(!Path::new("/absent").exists() && !inside.join("absent").exists());
        root.create_directories(Path::new("alias/made/here"), 0o755).unwrap();
        assert!(inside.join("etc/made/here").is_dir());
        assert!(root.create_directories(Path::new("../escape"), 0o755).is_err());
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("passwd"), Mode::from_raw_mode(0o600))
            .unwrap();
        let error = Root::open(folder.path()).unwrap().regular_file(Path::new("passwd")).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}
