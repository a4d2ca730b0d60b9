//! AppArmor and SELinux labels, and the private procfs through which they are set.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{At, Failure, Stage, Warning};

/// A procfs of this pid namespace that is mounted nowhere, so that nothing can lie over any of its files.
pub(crate) fn private_proc() -> io::Result<OwnedFd> {
    sys::mount::new_filesystem("proc", &[], 0)
}

/// Writes a file of a procfs; nothing on the path may be a link or a mount.
pub(crate) fn write_proc(proc: BorrowedFd<'_>, path: &str, value: &[u8]) -> io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The labels a process takes when it executes its command.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    proc: Option<OwnedFd>,
    writes: Vec<(&'static [&'static str], String)>,
}

const APPARMOR: &[&str] = &["apparmor/exec", "exec"];
const SELINUX: &[&str] = &["exec"];

impl Labels {
    /// Opens the way to set the labels of `process`, while the host's view and its privileges are still there.
    pub(crate) fn open(process: &Process, warn: &mut dyn FnMut(Warning)) -> Result<Labels, Failure> {
        let mut writes = Vec::new();
        if let Some(profile) =
            process.apparmor_profile().as_deref().filter(|p| !p.is_empty() && *p != "unconfined")
        {
            if !apparmor_enabled() {
                return Err(Failure::new(
                    Stage::Labels,
                    format!("AppArmor profile {profile:?}"),
                    "AppArmor is not enabled",
                )
                .remedy("leave process.apparmorProfile out on this host"));
            }
            writes.push((APPARMOR, format!("exec {profile}")));
        }
        if let Some(label) = process.selinux_label().as_deref().filter(|label| !label.is_empty()) {
            if selinux_enabled() {
                writes.push((SELINUX, label.to_string()));
            } else {
                let message = format!("SELinux is not enabled, the label {label:?} was not set");
                warn(Warning { stage: Stage::Labels, message });
            }
        }
        if writes.is_empty() {
            return Ok(Labels::default());
        }
        Ok(Labels { proc: Some(private_proc().at(Stage::Labels, || "private procfs")?), writes })
    }

    /// Joins the session keyring of the container `id`, which has the label that the process is to have.
    pub(crate) fn join_keyring(&self, id: &str) -> Result<(), Failure> {
        let object = || format!("session keyring of {id}");
        let name = std::ffi::CString::new(format!("_ses.{id}"))
            .map_err(|e| Failure::new(Stage::Process, object(), e))?;
        let label = self.writes.iter().find(|(files, _)| *files == SELINUX).map_or("", |(_, label)| label);
        let own = rustix::process::getpid().as_raw_nonzero();
        let set = |label: &str| match &self.proc {
            Some(proc) => write_proc(proc.as_fd(), &format!("{own}/attr/keycreate"), label.as_bytes()),
            None => Ok(()),
        };
        if !label.is_empty() {
            set(label).at(Stage::Labels, object)?;
        }
        match sys::keyring::join(&name) {
            // A kernel without keyrings has nothing to keep apart.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOSYS.raw_os_error()) => {}
            other => other.at(Stage::Process, object).map_err(|failure| {
                failure.remedy(
                    "--no-new-keyring leaves it the caller's; too many keys: see /proc/sys/kernel/keys",
                )
            })?,
        }
        if label.is_empty() { Ok(()) } else { set("\0").at(Stage::Labels, object) }
    }

    /// Sets the labels for the next exec of this process.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        let Some(proc) = &self.proc else { return Ok(()) };
        let own = rustix::process::getpid().as_raw_nonzero();
        for (files, text) in &self.writes {
            let mut result = Ok(());
            for file in *files {
                result = write_proc(proc.as_fd(), &format!("{own}/attr/{file}"), text.as_bytes());
                match &result {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    _ => break,
                }
            }
            result.at(Stage::Labels, || text.clone()).map_err(|failure| {
                failure.remedy("the profile must be loaded into the kernel and permitted for this process")
            })?;
        }
        Ok(())
    }
}

fn apparmor_enabled() -> bool {
    std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"))
}

fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// The `context` option of a new file system, for kinds that take one.
pub(crate) fn mount_context(label: Option<&str>, kind: &str) -> Option<String> {
    let label = label.filter(|label| !label.is_empty())?;
    (["tmpfs", "devpts"].contains(&kind) && selinux_enabled()).then(|| label.to_string())
}

/// Labels what is made once for an IPC namespace, and so cannot be given a label at each mount: the root of a message queue file system.
pub(crate) fn label_root(label: Option<&str>, kind: &str, mount: BorrowedFd<'_>) -> io::Result<()> {
    let Some(label) = label.filter(|label| !label.is_empty() && kind == "mqueue" && selinux_enabled()) else {
        return Ok(());
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty())?;
    let value = [label.as_bytes(), b"\0"].concat();
    match rustix::fs::fsetxattr(root, "security.selinux", &value, rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        done => Ok(done?),
    }
}
