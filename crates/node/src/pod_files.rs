//! A pod's files: its folder, what its containers see as hosts, resolv.conf and hostname, its shared memory, and where its logs go.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use model::id::PodId;
use model::request::{NamespaceMode, PodRequest, UserNamespace};

use crate::error::Fault;

/// What a pod's `/dev/shm` holds at most.
const SHM_OPTIONS: &str = "mode=1777,size=67108864";

#[derive(Debug)]
pub(crate) enum PodFileError {
    /// The request names a directory that cannot be made.
    LogDirectory {
        path: PathBuf,
        source: std::io::Error,
    },
    Own(Fault),
}

/// The name that the pod's containers see: the asked one, the host's in its network, else the pod's own.
pub(crate) fn hostname(id: &PodId, request: &PodRequest, host: &str) -> String {
    match (request.hostname.as_str(), request.namespaces.network) {
        (_, NamespaceMode::Host) => host.to_owned(),
        ("", _) => id.short().to_owned(),
        (asked, _) => asked.to_owned(),
    }
}

/// Makes the pod's folder, which only root enters.
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut private = std::fs::DirBuilder::new();
    private.mode(0o700).create(folder)?;
    private.create(folder.join("containers"))
}

/// Makes the pod's log directory where it is missing, and says whether it was.
pub(crate) fn make_log_directory(path: &Path) -> std::io::Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::create_dir(path).map(|()| true)
        }
        Err(_) if path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes the files of the folder and makes the log directory; whether that was missing is said in `new_logs`, also on failure. The
/// hosts file of a pod with addresses comes later.
pub(crate) fn write(
    folder: &Path,
    request: &PodRequest,
    hostname: &str,
    new_logs: &AtomicBool,
    label: Option<&str>,
) -> Result<(), PodFileError> {
    if let Some(logs) = &request.log_directory {
        let made = make_log_directory(logs)
            .map_err(|source| PodFileError::LogDirectory { path: logs.clone(), source })?;
        new_logs.store(made, Ordering::Relaxed);
    }
    let files = || -> Result<(), Fault> {
        put(&folder.join("hostname"), &format!("{hostname}\n"), label)?;
        // A configuration that cannot be written was refused before anything was made.
        let asked = request.dns.as_ref().and_then(|dns| spec::resolv_conf::text(dns).ok().flatten());
        let resolv_conf =
            asked.unwrap_or_else(|| std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
        put(&folder.join("resolv.conf"), &resolv_conf, label)?;
        if request.namespaces.network == NamespaceMode::Host {
            put(&folder.join("hosts"), &std::fs::read_to_string("/etc/hosts").unwrap_or_default(), label)?;
        }
        if request.namespaces.ipc != NamespaceMode::Host {
            mount_shm(&folder.join("shm"), request.namespaces.user.as_ref(), label)?;
        }
        Ok(())
    };
    files().map_err(PodFileError::Own)
}

/// Writes the hosts file of a pod that has these addresses.
pub(crate) fn write_hosts(
    folder: &Path,
    hostname: &str,
    addresses: &[IpAddr],
    label: Option<&str>,
) -> Result<(), Fault> {
    put(&folder.join("hosts"), &spec::hosts::text(hostname, addresses), label)
}

/// Gives the pod's files a label that containers of all levels may read.
pub(crate) fn share(folder: &Path, label: Option<&str>) -> Result<(), Fault> {
    let Some(label) = label else { return Ok(()) };
    ["hosts", "hostname", "resolv.conf"].iter().map(|file| folder.join(file)).try_for_each(|path| {
        lsm::selinux::relabel::one(&path, label).map_err(|source| Fault::File { path, source })
    })
}

/// Containers of any user read these files, so they are not private as their folder is.
fn put(path: &Path, text: &str, label: Option<&str>) -> Result<(), Fault> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?;
        file.write_all(text.as_bytes())?;
        label.map_or(Ok(()), |label| lsm::selinux::relabel::one(path, label))
    };
    write().map_err(|source| Fault::File { path: path.to_owned(), source })
}

/// The pod's superuser owns it, who is another one than the host's if the pod has users of its own.
fn mount_shm(path: &Path, users: Option<&UserNamespace>, label: Option<&str>) -> Result<(), Fault> {
    use rustix::mount::MountFlags;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let (uid, gid) = users.map_or((0, 0), |users| {
        (users.host_uid(0).unwrap_or_default(), users.host_gid(0).unwrap_or_default())
    });
    let mount = || -> std::io::Result<()> {
        std::fs::create_dir(path)?;
        let label = label.map(|label| format!(",context=\"{label}\"")).unwrap_or_default();
        let options = std::ffi::CString::new(format!("{SHM_OPTIONS},uid={uid},gid={gid}{label}"))?;
        rustix::mount::mount("shm", path, "tmpfs", flags, Some(options.as_c_str()))?;
        Ok(())
    };
    mount().map_err(|source| Fault::File { path: path.to_owned(), source })
}
