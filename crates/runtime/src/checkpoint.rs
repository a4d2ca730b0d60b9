//! Checkpoint: has CRIU write the state of a container's processes into files.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use sys::namespace::{join, kind};

use crate::criu::{CriuOptions, Options, PIDS, Saved, Session};
use crate::error::{At, CheckpointError, Failure, Stage};
use crate::namespaces::Namespaces;
use crate::record::{Folder, Record, Status, status};

/// What CRIU writes its log to, in the folder for that.
pub const DUMP_LOG: &str = "dump.log";

/// What of an unlinked file that is still open is saved with the process: what nobody else has a name for.
const LARGEST_UNLINKED: u32 = 256 << 20;

/// What to checkpoint, and how.
#[derive(Debug)]
pub struct CheckpointRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Where the states of containers are.
    pub state_root: &'a Path,
    /// The program, as an absolute path.
    pub criu: &'a Path,
    /// The folder for the images, which exists.
    pub images: &'a Path,
    /// The folder for the log.
    pub work: &'a Path,
    /// The inodes of the pipes whose other ends the caller has as the container's streams; without any, the standard streams of init are
    /// looked at.
    pub pipes: Option<[Option<u64>; 3]>,
    /// Whether the container goes on. Otherwise it has ended afterwards.
    pub leave_running: bool,
    /// Save connections of TCP with their state; otherwise they are found closed after a restore.
    pub tcp_established: bool,
    /// Save connections to unix sockets outside.
    pub external_unix: bool,
    /// Save file locks.
    pub file_locks: bool,
    /// The container has a terminal of the caller's.
    pub shell_job: bool,
    /// What else.
    pub more: CriuOptions<'a>,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// Saves the processes of a running or paused container. One that was paused stays paused. The caller must have one thread; see the
/// crate's documentation.
///
/// # Errors
/// The container does not run, or CRIU refused; its log lies in the folder for that.
pub fn checkpoint(request: &CheckpointRequest<'_>) -> Result<(), CheckpointError> {
    let folder = Folder::open(request.state_root, request.id)?;
    let failed = |failure| CheckpointError::Failed { id: request.id.into(), failure: Box::new(failure) };
    folder.lock().at(Stage::State, || "lock").map_err(failed)?;
    let record = folder.read()?;
    let now = status(&folder, &record).at(Stage::State, || "init").map_err(failed)?;
    if !matches!(now, Status::Running | Status::Paused) {
        return Err(CheckpointError::NotRunning { id: request.id.into(), status: now });
    }
    save(request, &record)
        .map_err(|failure| failed(crate::criu::with_log(failure, &request.work.join(DUMP_LOG))))
}

fn save(request: &CheckpointRequest<'_>, record: &Record) -> Result<(), Failure> {
    let spec = crate::create::load(&record.bundle.join("config.json"))?;
    let images = open_folder(request.images)?;
    let work = open_folder(request.work)?;
    let external = crate::criu::find(record.pid, &spec)?;
    let saved = Saved::new(external, streams(request, record.pid));
    let group = crate::cgroups::open(record)?;
    let freezer = group.as_ref().and_then(|group| group.freezer_path().ok());
    let mounts = saved.external.iter().map(|mount| format!("mnt[{0}]:{0}", mount.key()));
    let pids = shared_pids(record.pid, &spec)?.map(|inode| format!("pid[{inode}]:{PIDS}"));
    let mut options = Options {
        images_dir_fd: images.as_raw_fd(),
        work_dir_fd: Some(work.as_raw_fd()),
        pid: Some(record.pid),
        leave_running: Some(request.leave_running),
        ext_unix_sk: Some(request.external_unix),
        tcp_established: Some(request.tcp_established),
        tcp_close: Some(!request.tcp_established),
        shell_job: Some(request.shell_job),
        file_locks: Some(request.file_locks),
        log_level: Some(4),
        log_file: Some(DUMP_LOG.into()),
        link_remap: Some(true),
        manage_cgroups_mode: Some(0),
        ghost_limit: Some(LARGEST_UNLINKED),
        external: mounts.chain(pids).collect(),
        freeze_cgroup: freezer.map(|path| path.display().to_string()),
        orphan_pts_master: Some(true),
        ..Options::default()
    };
    request.more.ask(&mut options);
    let shared = shared_namespaces(record.pid, &spec)?;
    let session = Session::start(request.criu, || {
        shared.iter().try_for_each(|(fd, kind, name)| {
            join(std::os::fd::AsFd::as_fd(fd), *kind).at(Stage::Namespaces, || format!("joining its {name}"))
        })
    })?;
    session.dump(request.more.memory_only, options, request.deadline)?;
    if request.more.memory_only {
        return Ok(());
    }
    crate::criu::write_saved(request.images, &saved)
}

pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at(Stage::Criu, || path.display().to_string())
}

/// The namespaces that CRIU is to share with the processes: those that the container shares with others. Not that of control groups: where
/// the tree of version 2 is mounted with `nsdelegate`, nobody inside may freeze the group that is its root (cgroups(7)). Groups are none of
/// CRIU's business, and a restore makes the namespace before CRIU starts.
fn shared_namespaces(pid: i32, spec: &Spec) -> Result<Vec<(OwnedFd, u64, &'static str)>, Failure> {
    let linux = spec.linux().clone().unwrap_or_default();
    let namespaces = Namespaces::of(&linux)?;
    let names = [
        (kind::NETWORK, "net", namespaces.joins(kind::NETWORK)),
        (kind::IPC, "ipc", namespaces.joins(kind::IPC)),
        (kind::UTS, "uts", namespaces.joins(kind::UTS)),
    ];
    let shared = names.into_iter().filter(|(.., shared)| *shared);
    shared
        .map(|(kind, name, _)| {
            let path = format!("/proc/{pid}/ns/{name}");
            let file = File::open(&path).at(Stage::Namespaces, || path)?;
            Ok((file.into(), kind, name))
        })
        .collect()
}

/// The pid namespace, where the container shares it with others than the host.
fn shared_pids(pid: i32, spec: &Spec) -> Result<Option<u64>, Failure> {
    let joins = Namespaces::of(&spec.linux().clone().unwrap_or_default())?.joins(kind::PID);
    let inode = |path: String| rustix::fs::stat(&path).map(|stat| stat.st_ino).at(Stage::Namespaces, || path);
    if !joins {
        return Ok(None);
    }
    let theirs = inode(format!("/proc/{pid}/ns/pid"))?;
    Ok(Some(theirs).filter(|theirs| inode("/proc/self/ns/pid".into()).is_ok_and(|own| own != *theirs)))
}

/// By which names CRIU will know the pipes that are the container's streams.
fn streams(request: &CheckpointRequest<'_>, pid: i32) -> [Option<String>; 3] {
    match request.pipes {
        Some(pipes) => pipes.map(|inode| inode.map(|inode| format!("pipe:[{inode}]"))),
        None => [0, 1, 2].map(|number| {
            let target = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
            target.to_str().filter(|name| name.starts_with("pipe:[")).map(str::to_owned)
        }),
    }
}
