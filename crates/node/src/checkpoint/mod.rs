//! Checkpoints of running containers: all are frozen, then each is saved with what it wrote over its image, then all run again, whatever
//! happened. A single one becomes an archive, those of a pod a folder that a pod can be restored from.

mod archive;
mod criu;
mod folder;
mod manifest;
mod restore;

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use image::Deletions;
use model::digest::Digest;
use model::id::ContainerId;
use serde::{Deserialize, Serialize};

use crate::actor::Answer;
use crate::context::{Context, blocking};
use crate::error::{CheckpointError, Fault};
use crate::handlers::{Handler, HandlerError};
use crate::pod_shim::PodShim;
use crate::record::{ContainerRecord, PodRecord};

pub(crate) use criu::Criu;
pub(crate) use restore::{RestoreFrom, restore_pod};

/// CRIU's images, below a container's folder.
const IMAGES: &str = "checkpoint";
/// What the container changed in its root file system.
const CHANGES: &str = "rootfs-diff.tar";

/// How long a checkpoint may take whose client gave no time.
pub(crate) const USUAL_TIME: Duration = Duration::from_secs(120);

/// Where a checkpoint goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// One archive at this path.
    Archive(PathBuf),
    /// An existing empty folder.
    Folder(PathBuf),
}

/// What to checkpoint.
pub(crate) struct Order {
    pub(crate) pod: Arc<PodRecord>,
    pub(crate) containers: Vec<Arc<ContainerRecord>>,
    pub(crate) shim: PodShim,
    pub(crate) target: Target,
    pub(crate) deadline: Instant,
}

/// A file that was written, by what it has to be when it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

/// What was saved of one container.
struct Saved {
    container: Arc<ContainerRecord>,
    folder: PathBuf,
    changes: Written,
    /// Paths of what it deleted, where they are listed.
    deleted: Vec<String>,
}

/// All that was saved in one pause.
struct Capture {
    containers: Vec<Saved>,
    /// The pod's shared memory, where it has its own and something is in it.
    shared_memory: Option<Written>,
}

pub(crate) async fn run(context: Arc<Context>, order: Order) -> Answer<(), CheckpointError> {
    let handler = &order.pod.state.handler;
    if context.handlers.find(handler).is_some_and(Handler::is_foreign) {
        let (pod, handler, source) = (order.pod.id.clone(), handler.clone(), HandlerError::Checkpoint);
        return Err(Arc::new(CheckpointError::Handler { pod, handler, source }));
    }
    let criu = context.criu.ready(&context.config.checkpoint.criu).await.map_err(Arc::new)?;
    let done = match &order.target {
        Target::Archive(location) => archive::make(&context, &order, &criu, location).await,
        Target::Folder(path) => folder::make(&context, &order, &criu, path).await,
    };
    done.map_err(Arc::new)
}

/// Empties the folder where checkpoints are put together, of which a daemon that was killed may have left some.
pub(crate) fn sweep(work: &Path) -> io::Result<()> {
    crate::context::remove_tree(work)?;
    private_folder(work)
}

/// Freezes, saves into `folder_of` each container, and lets go. Returns only when everything runs again.
async fn capture(
    context: &Arc<Context>,
    order: &Order,
    criu: &Path,
    deletions: Deletions,
    shared_memory: Option<PathBuf>,
    folder_of: impl Fn(&ContainerRecord) -> PathBuf,
) -> Result<Capture, CheckpointError> {
    let ids = order.containers.iter().map(|container| container.id.to_string()).collect();
    let left = order.deadline.saturating_duration_since(Instant::now());
    let pod = order.pod.id.clone();
    let paused = order.shim.client.pause(ids, left).await;
    paused.map_err(|source| CheckpointError::Pause { pod: pod.clone(), source })?;
    let saving = async {
        let mut containers = Vec::new();
        for container in &order.containers {
            containers.push(save(context, order, criu, deletions, container, folder_of(container)).await?);
        }
        let memory = match shared_memory {
            Some(to) => save_shared_memory(context, order, to).await?,
            None => None,
        };
        Ok(Capture { containers, shared_memory: memory })
    };
    let saved: Result<Capture, CheckpointError> = saving.await;
    // The shim lets go by itself too, when the time is over or this daemon is gone.
    let resumed = order.shim.client.resume().await;
    let saved = saved?;
    resumed.map_err(|source| CheckpointError::Resume { pod, source })?;
    Ok(saved)
}

async fn save(
    context: &Arc<Context>,
    order: &Order,
    criu: &Path,
    deletions: Deletions,
    container: &Arc<ContainerRecord>,
    folder: PathBuf,
) -> Result<Saved, CheckpointError> {
    let id = container.id.clone();
    let images = folder.join(IMAGES);
    let (made, making) = (images.clone(), id.clone());
    blocking(move || private_folder(&made)).await.map_err(|source| CheckpointError::Write {
        id: making,
        path: images.clone(),
        source,
    })?;
    order
        .shim
        .client
        .checkpoint(id.as_str(), criu, &images, &folder)
        .await
        .map_err(|source| CheckpointError::Processes { id: id.clone(), source })?;
    let (root, path, deadline) = (context.clone(), folder.join(CHANGES), order.deadline);
    let (changes, deleted) = blocking(move || {
        let mut deleted = Vec::new();
        let written = write_file(&path, deadline, |sink| {
            deleted = root
                .images
                .rootfs()
                .export_changes(id.as_str(), deletions, sink)
                .map_err(|source| CheckpointError::Rootfs { id: id.clone(), source })?;
            Ok(())
        });
        written
            .map_err(|error| error.unwrap_or_else(|source| CheckpointError::Write { id, path, source }))
            .map(|written| (written, deleted))
    })
    .await?;
    let deleted = deleted.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
    Ok(Saved { container: container.clone(), folder, changes, deleted })
}

async fn save_shared_memory(
    context: &Arc<Context>,
    order: &Order,
    to: PathBuf,
) -> Result<Option<Written>, CheckpointError> {
    let folder = context.pod_dir(&order.pod.id).join("shm");
    let (pod, deadline) = (order.pod.id.clone(), order.deadline);
    blocking(move || {
        let nothing = std::fs::read_dir(&folder).map_or(true, |mut entries| entries.next().is_none());
        if nothing {
            return Ok(None);
        }
        let failed = |source| CheckpointError::SharedMemory { pod: pod.clone(), source };
        write_file(&to, deadline, |sink| image::export_folder(&folder, sink).map_err(failed))
            .map(Some)
            .map_err(|error| error.unwrap_or_else(failed))
    })
    .await
}

/// Why a file was not written: the reason of whoever fills it, or the disk's.
type Unwritten = Result<CheckpointError, io::Error>;

/// Writes a new file that only root reads.
fn write_file(
    path: &Path,
    deadline: Instant,
    fill: impl FnOnce(&mut Sink) -> Result<(), CheckpointError>,
) -> Result<Written, Unwritten> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(Err)?;
    let mut sink = Sink::new(file, deadline);
    fill(&mut sink).map_err(Ok)?;
    sink.finish().map_err(Err)
}

/// A file that is counted and hashed as it is written, and takes nothing after a deadline.
struct Sink {
    file: io::BufWriter<File>,
    hash: sha2::Sha256,
    size: u64,
    deadline: Instant,
}

impl Sink {
    fn new(file: File, deadline: Instant) -> Sink {
        Sink {
            file: io::BufWriter::with_capacity(256 << 10, file),
            hash: Default::default(),
            size: 0,
            deadline,
        }
    }

    fn finish(mut self) -> io::Result<Written> {
        self.file.flush()?;
        let digest = Digest::sha256(sha2::Digest::finalize(self.hash).into());
        Ok(Written { sha256: digest.as_str().to_owned(), size: self.size })
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time for the checkpoint is over"));
        }
        let written = self.file.write(bytes)?;
        sha2::Digest::update(&mut self.hash, &bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

/// A folder in which a checkpoint is put together, removed with all in it when this is dropped.
struct Workshop(PathBuf);

impl Workshop {
    fn open(context: &Context, id: &ContainerId) -> Result<Workshop, CheckpointError> {
        let path = context.config.checkpoint.work_dir.join(format!("{id}-{}", crate::context::new_exec_id()));
        match private_folder(&path) {
            Ok(()) => Ok(Workshop(path)),
            Err(source) => Err(CheckpointError::Write { id: id.clone(), path, source }),
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        if let Err(error) = crate::context::remove_tree(&path) {
            tracing::warn!(path = %path.display(), %error, "a checkpoint's work could not be removed");
        }
    }
}

/// The bundle's configuration.
fn config_json(context: &Context, container: &ContainerRecord) -> Result<Vec<u8>, CheckpointError> {
    let path = context.bundle(&container.pod, &container.id).join("config.json");
    std::fs::read(&path).map_err(|source| CheckpointError::Failed {
        pod: container.pod.clone(),
        stage: "its configuration",
        fault: Fault::File { path, source },
    })
}
