//! Giving the files of a volume a label: everything below it, by descriptors, never through a link and never onto another file system.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, XattrFlags, statat};
use rustix::io::Errno;

const NAME: &str = "security.selinux";

/// Folders that belong to the host as a whole, and those in which everything does: with another label the host would not start again.
const WHOLE: &[&str] = &[
    "/",
    "/etc",
    "/home",
    "/lost+found",
    "/media",
    "/mnt",
    "/opt",
    "/root",
    "/run",
    "/srv",
    "/tmp",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lib/kubelet",
    "/var/log",
    "/var/run",
    "/var/spool",
    "/var/tmp",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/pki",
    "/etc/ssl",
    "/etc/ssh",
    "/etc/selinux",
    "/etc/kubernetes",
    "/etc/systemd",
];
const BELOW: &[&str] =
    &["/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/sbin", "/sys", "/usr"];

/// Folders in folders, at most; a path can have 4096 bytes.
const MAX_DEPTH: usize = 2048;

/// Why something was not relabelled.
#[derive(Debug, thiserror::Error)]
pub enum RelabelError {
    #[error("{path} belongs to this node itself; mount a folder of its own, or leave selinux_relabel out", path = .0.display())]
    Host(PathBuf),
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} has more than {MAX_DEPTH} folders in one another", path = .0.display())]
    TooDeep(PathBuf),
}

/// Gives `path` and everything below it the label. Where it has it already, nothing is written. A file system that keeps no labels is left
/// alone.
///
/// # Errors
/// What belongs to the host is refused, by whatever name or mount it is reached.
pub fn tree(path: &Path, label: &str) -> Result<(), RelabelError> {
    let failed = |error: Errno| RelabelError::Io { path: path.to_owned(), source: error.into() };
    let top = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let real = std::fs::read_link(link_to(top.as_fd()))
        .map_err(|source| RelabelError::Io { path: path.to_owned(), source })?;
    if is_the_hosts(&real, top.as_fd()) {
        return Err(RelabelError::Host(path.to_owned()));
    }
    let mut walk = Walk { label, path: path.to_owned() };
    if is_folder(top.as_fd()).map_err(failed)? {
        let below = top.try_clone().map_err(|source| RelabelError::Io { path: path.to_owned(), source })?;
        walk.below(below, 0)?;
    }
    // Last: what has the label has it whole.
    match set(top.as_fd(), label) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        done => done.map_err(failed),
    }
}

/// [`tree`], if `path` itself does not have the label yet.
///
/// # Errors
/// As there.
pub fn once(path: &Path, label: &str) -> Result<(), RelabelError> {
    let mut present = [0; 4096];
    let has = rustix::fs::getxattr(path, NAME, &mut present)
        .is_ok_and(|length| without_nul(&present[..length]) == label.as_bytes());
    if has { Ok(()) } else { tree(path, label) }
}

/// Gives one file the label.
///
/// # Errors
/// The kernel's. A file system that keeps no labels is no error.
pub fn one(path: &Path, label: &str) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    match set(file.as_fd(), label) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}

struct Walk<'a> {
    label: &'a str,
    /// Where it is, for errors.
    path: PathBuf,
}

impl Walk<'_> {
    fn below(&mut self, folder: OwnedFd, depth: usize) -> Result<(), RelabelError> {
        if depth > MAX_DEPTH {
            return Err(RelabelError::TooDeep(self.path.clone()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&folder, ".", flags, Mode::empty()).map_err(|e| self.failed(e))?;
        drop(folder);
        let mut inner = Vec::new();
        for entry in Dir::read_from(&open).map_err(|error| self.failed(error))? {
            let entry = entry.map_err(|error| self.failed(error))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.path.push(std::ffi::OsStr::new(&*name.to_string_lossy()));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
            match rustix::fs::openat2(&open, name, flags, Mode::empty(), resolve) {
                // A mount point, or removed since it was read.
                Err(Errno::XDEV | Errno::NOENT) => {}
                Err(error) => return Err(self.failed(error)),
                Ok(file) => {
                    match set(file.as_fd(), self.label) {
                        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOENT) => {}
                        Err(error) => return Err(self.failed(error)),
                    }
                    if is_folder(file.as_fd()).map_err(|error| self.failed(error))? {
                        inner.push(name.to_owned());
                    }
                }
            }
            self.path.pop();
        }
        for name in inner {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
            self.path.push(std::ffi::OsStr::new(&*name.to_string_lossy()));
            match rustix::fs::openat2(&open, &name, flags, Mode::empty(), resolve) {
                // Somebody else is at work there too.
                Err(Errno::XDEV | Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(self.failed(error)),
                Ok(folder) => self.below(folder, depth + 1)?,
            }
            self.path.pop();
        }
        Ok(())
    }

    fn failed(&self, error: Errno) -> RelabelError {
        RelabelError::Io { path: self.path.clone(), source: error.into() }
    }
}

/// Through procfs, which leads to exactly what is open, also to a link itself and to what cannot be opened.
fn set(file: BorrowedFd<'_>, label: &str) -> Result<(), Errno> {
    let link = link_to(file);
    let mut present = [0; 4096];
    if let Ok(length) = rustix::fs::getxattr(&link, NAME, &mut present)
        && without_nul(&present[..length]) == label.as_bytes()
    {
        return Ok(());
    }
    // With the closing NUL, as everybody who reads labels expects it.
    let value = [label.as_bytes(), b"\0"].concat();
    rustix::fs::setxattr(&link, NAME, &value, XattrFlags::empty())
}

fn without_nul(label: &[u8]) -> &[u8] {
    label.strip_suffix(b"\0").unwrap_or(label)
}

fn link_to(file: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn is_folder(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let status = rustix::fs::fstat(file)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// By its real path, and by what it is: a mount can lead there by any other name.
fn is_the_hosts(real: &Path, open: BorrowedFd<'_>) -> bool {
    if BELOW.iter().any(|folder| real.starts_with(folder)) || WHOLE.iter().any(|path| real == Path::new(path))
    {
        return true;
    }
    let Ok(status) = rustix::fs::fstat(open) else { return true };
    WHOLE.iter().chain(BELOW).any(|path| {
        statat(CWD, *path, AtFlags::empty())
            .is_ok_and(|host| (host.st_dev, host.st_ino) == (status.st_dev, status.st_ino))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_hosts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (number, host) in
            ["/", "/etc", "/usr", "/usr/bin", "/proc/self", "/dev/null", "/var/lib", "/tmp/../etc"]
                .into_iter()
                .enumerate()
        {
            assert!(matches!(tree(Path::new(host), "x"), Err(RelabelError::Host(_))), "{host}");
            let link = folder.path().join(number.to_string());
            std::os::unix::fs::symlink(host, &link).unwrap();
            assert!(matches!(tree(&link, "x"), Err(RelabelError::Host(_))), "a link to {host}");
        }
        let error = tree(&folder.path().join("absent"), "x").unwrap_err();
        assert!(matches!(error, RelabelError::Io { .. }));
    }

    /// Any kernel stores labels as they are where it does not enforce them.
    #[test]
    fn everything_below_is_labelled_and_nothing_else() {
        if !rustix::process::geteuid().is_root() || super::super::policy::enabled() {
            println!("SKIPPED: needs root, and a kernel without SELinux, which takes any label");
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let (volume, outside) = (place.path().join("volume"), place.path().join("outside"));
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("f"), "").unwrap();
        std::fs::write(volume.join("a/b/f"), "").unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("a/folder")).unwrap();
        std::os::unix::fs::symlink(outside.join("f"), volume.join("a/file")).unwrap();
        rustix::fs::mkfifoat(CWD, volume.join("a/pipe"), Mode::RUSR).unwrap();
        let label = |path: &Path| {
            let mut value = [0; 64];
            let length = rustix::fs::lgetxattr(path, NAME, &mut value).ok()?;
            Some(String::from_utf8_lossy(&value[..length]).into_owned())
        };
        let wanted = "system_u:object_r:container_file_t:s0:c1,c2";
        if let Err(RelabelError::Io { source, .. }) = tree(&volume, wanted) {
            println!("SKIPPED: the file system of {} takes no labels: {source}", place.path().display());
            return;
        }
        for inside in ["", "a", "a/b", "a/b/f", "a/folder", "a/file", "a/pipe"] {
            assert_eq!(label(&volume.join(inside)), Some(format!("{wanted}\0")), "{inside:?}");
        }
        assert_eq!((label(&outside), label(&outside.join("f"))), (None, None), "through a link");
        one(&outside.join("f"), "x:y:z").unwrap();
        assert_eq!(label(&outside.join("f")).as_deref(), Some("x:y:z\0"));
    }
}
