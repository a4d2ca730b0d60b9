//! AppArmor: which profiles the kernel has, and loading the one that containers get by default.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// The profile that the daemon brings along.
pub const DEFAULT_PROFILE: &str = "pintle-default";

/// `policy/pintle-default.apparmor`, compiled for what every kernel since 4.13 understands: format version 5, and file, capability, mount,
/// signal and ptrace rules. A newer kernel takes what the policy does not mention for allowed, so that nothing changes with it.
const POLICY: &[u8] = include_bytes!("../policy/pintle-default.bin");

/// Bytes of the list of profiles that are read; a hundred for each would be many.
const MAX_LIST: u64 = 8 << 20;

/// AppArmor, in a kernel that enforces it.
#[derive(Debug)]
pub struct Apparmor {
    /// securityfs' folder of it, or why it cannot be opened.
    folder: Result<OwnedFd, rustix::io::Errno>,
}

/// Why a profile could not be loaded into the kernel, or the kernel could not be asked for it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("AppArmor's files in securityfs cannot be opened: {0}; mount securityfs at /sys/kernel/security")]
    NoFiles(rustix::io::Errno),
    #[error(
        "this process may not change AppArmor's policy ({0}): it needs CAP_MAC_ADMIN in the host's user namespace, and no profile of its own that keeps it from it"
    )]
    NotAllowed(io::Error),
    #[error("the kernel does not take the profile: {0}")]
    Refused(io::Error),
    #[error("the list of loaded profiles cannot be read: {0}")]
    List(io::Error),
}

impl Apparmor {
    /// AppArmor of this kernel; none where it is not enabled.
    pub fn detect() -> Option<Apparmor> {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled").ok()?;
        enabled.starts_with(b"Y").then(|| Apparmor { folder: folder() })
    }

    /// Loads the default profile, in place of an older one of its name. Where the kernel has exactly this one it does nothing.
    ///
    /// # Errors
    /// In a container and in a user namespace nobody may load profiles.
    pub fn load_default(&self) -> Result<(), LoadError> {
        let folder = self.folder.as_ref().map_err(|error| LoadError::NoFiles(*error))?;
        let replace = rustix::fs::openat(folder, ".replace", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(refused)?;
        // The kernel takes a policy in one write or not at all.
        match rustix::io::write(&replace, POLICY).map_err(refused)? {
            written if written == POLICY.len() => Ok(()),
            _ => Err(LoadError::Refused(io::ErrorKind::WriteZero.into())),
        }
    }

    /// Whether the kernel has a profile of this name. The whole list is read, which takes it a few microseconds for each.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn has(&self, profile: &str) -> Result<bool, LoadError> {
        let folder = self.folder.as_ref().map_err(|error| LoadError::NoFiles(*error))?;
        let file = rustix::fs::openat(folder, "profiles", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| LoadError::List(error.into()))?;
        let mut list = String::new();
        File::from(file).take(MAX_LIST).read_to_string(&mut list).map_err(LoadError::List)?;
        Ok(names(&list).any(|name| name == profile))
    }
}

fn refused(error: rustix::io::Errno) -> LoadError {
    use rustix::io::Errno;
    match error {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => LoadError::NotAllowed(error.into()),
        _ => LoadError::Refused(error.into()),
    }
}

/// securityfs' folder `apparmor`, where it is mounted; else of a mount that is attached nowhere.
fn folder() -> Result<OwnedFd, rustix::io::Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open("/sys/kernel/security/apparmor", flags, Mode::empty()) {
        Err(error @ rustix::io::Errno::NOENT) => {
            let Ok(mount) = sys::mount::new_filesystem("securityfs", &[], 0) else { return Err(error) };
            rustix::fs::openat(mount.as_fd(), "apparmor", flags, Mode::empty())
        }
        opened => opened,
    }
}

/// The names in the kernel's list, whose lines are `NAME (MODE)`.
fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(|line| line.rsplit_once(" (").map_or(line, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_names_with_spaces() {
        let list = "docker-default (enforce)\nmy profile (x) (complain)\n/usr/sbin/ntpd (kill)\nodd\n";
        let found: Vec<&str> = names(list).collect();
        assert_eq!(found, ["docker-default", "my profile (x)", "/usr/sbin/ntpd", "odd"]);
    }
}
