//! The record of a container on disk (`<state root>/<id>/state.json`), its lock, and what the container is at this moment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Hook;
use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::Lookup;

/// The file name of a record.
pub(crate) const RECORD: &str = "state.json";
/// The compiled seccomp program, which exec loads again.
pub(crate) const SECCOMP: &str = "seccomp.bpf";
/// The socket on which init waits for start.
pub(crate) const START: &str = "start.sock";
/// Marks a restored container that is frozen until start.
pub(crate) const RESTORED: &str = "restored";
/// The newest version of the runtime-spec that is understood.
pub(crate) const OCI_VERSION: &str = "1.3.0";
const RECORD_VERSION: u32 = 1;
const LARGEST_RECORD: u64 = 4 << 20;

/// What is known of a container between calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of this format.
    pub record_version: u32,
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Init's pid in the pid namespace of the creator.
    pub pid: i32,
    /// When init started, in clock ticks since boot: with the pid it names one process.
    pub start_time: u64,
    /// When the container was created, in seconds since 1970.
    pub created_secs: u64,
    /// The bundle's absolute path.
    pub bundle: PathBuf,
    /// The host path of the root file system, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    /// The cgroup, relative to the roots of the hierarchies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Whether init has a pid namespace of its own, so that its end is the end of all.
    pub own_pid_namespace: bool,
    /// Flags for seccomp(2) with which exec loads the saved filter, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp_flags: Option<u64>,
    /// Whether it has a session keyring of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyring: bool,
    /// The execution domain of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<oci_spec::runtime::LinuxPersonality>,
    /// The memory policy of its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<oci_spec::runtime::LinuxMemoryPolicy>,
    /// Its resctrl group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<crate::rdt::Group>,
    /// Hooks to run after start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// Hooks to run after deletion.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
    /// As in the configuration.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    pub annotations: HashMap<String, String>,
}

/// What a container is (runtime-spec, State).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Init waits for start.
    Created,
    /// The command runs.
    Running,
    /// The cgroup is frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// An open state directory of one container.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
    pub(crate) id: String,
}

impl Folder {
    /// Opens the directory of `id` below `state_root`.
    pub(crate) fn open(state_root: &Path, id: &str) -> Result<Folder, Lookup> {
        check_id(id)?;
        let path = state_root.join(id);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => Ok(Folder { fd, path, id: id.into() }),
            Err(rustix::io::Errno::NOENT) => {
                Err(Lookup::NotFound { id: id.into(), state_root: state_root.into() })
            }
            Err(error) => Err(Lookup::Unreadable { id: id.into(), path, why: error.to_string() }),
        }
    }

    /// Waits until no other operation changes this container; held until the folder is dropped.
    pub(crate) fn lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.fd, FlockOperation::LockExclusive)?)
    }

    /// As [`Folder::lock`], but `WouldBlock` instead of waiting.
    pub(crate) fn try_lock(&self) -> io::Result<()> {
        Ok(rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive)?)
    }

    /// Reads the record.
    pub(crate) fn read(&self) -> Result<Record, Lookup> {
        let unreadable =
            |why: String| Lookup::Unreadable { id: self.id.clone(), path: self.path.join(RECORD), why };
        let file = match rustix::fs::openat(&self.fd, RECORD, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(file) => std::fs::File::from(file),
            Err(rustix::io::Errno::NOENT) => {
                let state_root = self.path.parent().unwrap_or(&self.path).into();
                return Err(Lookup::NotFound { id: self.id.clone(), state_root });
            }
            Err(error) => return Err(unreadable(error.to_string())),
        };
        let mut bytes = Vec::with_capacity(2048);
        io::Read::read_to_end(&mut io::Read::take(file, LARGEST_RECORD), &mut bytes)
            .map_err(|error| unreadable(error.to_string()))?;
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if record.record_version > RECORD_VERSION {
            return Err(unreadable(format!(
                "version {} is newer than this program, which knows {RECORD_VERSION}",
                record.record_version
            )));
        }
        Ok(record)
    }

    /// Writes the record, whole or not at all.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
        sys::file::write_atomic(&self.path.join(RECORD), &bytes, 0o600, sys::file::Durability::Process)
    }

    /// Makes an empty file, whose being there says something.
    pub(crate) fn mark(&self, name: &str) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR)?;
        Ok(())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, rustix::fs::AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Record {
    pub(crate) const VERSION: u32 = RECORD_VERSION;

    /// A pidfd of init, or `None` if it has ended (a zombie has).
    pub(crate) fn init(&self) -> io::Result<Option<OwnedFd>> {
        match sys::process::open_pidfd(self.pid, self.start_time) {
            Ok(pidfd) if sys::process::has_ended(pidfd.as_fd()) => Ok(None),
            Ok(pidfd) => Ok(Some(pidfd)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The state as hooks and `state` see it.
    pub(crate) fn oci_state(&self, status: Status) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if status != Status::Stopped {
            state["pid"] = self.pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] = serde_json::json!(self.annotations);
        }
        state
    }
}

/// What the container of `folder` is at this moment.
pub(crate) fn status(folder: &Folder, record: &Record) -> io::Result<Status> {
    if record.init()?.is_none() {
        return Ok(Status::Stopped);
    }
    if folder.has(START) || folder.has(RESTORED) {
        return Ok(Status::Created);
    }
    Ok(if crate::cgroups::is_frozen(record) { Status::Paused } else { Status::Running })
}

/// The record of a container and what the container is at this moment.
///
/// # Errors
/// If there is no such container or its record cannot be read.
pub fn state(state_root: &Path, id: &str) -> Result<(Record, Status), Lookup> {
    let folder = Folder::open(state_root, id)?;
    let record = folder.read()?;
    let now = status(&folder, &record).map_err(|error| Lookup::Unreadable {
        id: id.into(),
        path: folder.path.clone(),
        why: error.to_string(),
    })?;
    Ok((record, now))
}

/// All containers below `state_root`; an entry that cannot be read is an error in its place. A missing directory is empty.
pub fn list(state_root: &Path) -> io::Result<Vec<Result<(Record, Status), Lookup>>> {
    let entries = match std::fs::read_dir(state_root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let Some(id) = name.to_str().filter(|id| check_id(id).is_ok()) else { continue };
        match state(state_root, id) {
            Err(Lookup::NotFound { .. }) => {}
            other => found.push(other),
        }
    }
    Ok(found)
}

/// Refuses an id that could name something outside the state directory: letters, digits and `_+-.` only, at most 255 bytes,
/// not starting with a dot.
pub(crate) fn check_id(id: &str) -> Result<(), Lookup> {
    let bad = |why| Err(Lookup::BadId { id: id.chars().take(80).collect(), why });
    if id.is_empty() {
        return bad("it is empty");
    }
    if id.len() > 255 {
        return bad("it is longer than 255 bytes");
    }
    if id.starts_with('.') {
        return bad("it starts with a dot");
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b)) {
        return bad("only letters, digits, '_', '+', '-' and '.' are allowed");
    }
    Ok(())
}

/// The name of the start socket as the socket functions take it.
pub(crate) fn start_name() -> &'static OsStr {
    OsStr::new(START)
}
