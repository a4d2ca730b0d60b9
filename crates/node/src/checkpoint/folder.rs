//! The checkpoint of a pod: a folder that was given empty. Nothing is written outside it, and nothing is left in it by a failure.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use image::Deletions;
use model::request::PidNamespace;

use super::manifest::{Container, Manifest};
use super::{Order, capture};
use crate::context::{Context, blocking};
use crate::error::CheckpointError;

/// The pod's shared memory, in the folder.
pub(super) const SHARED_MEMORY: &str = "shm.tar";

/// The folder of the container that is the manifest's `number`th.
pub(super) fn of_container(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("container-{number}"))
}

pub(super) async fn make(
    context: &Arc<Context>,
    order: &Order,
    criu: &Path,
    folder: &Path,
) -> Result<(), CheckpointError> {
    check(folder)?;
    can_be_restored(order)?;
    let made = fill(context, order, criu, folder).await;
    if made.is_err() {
        let folder = folder.to_owned();
        blocking(move || clear(&folder)).await;
    }
    made
}

/// Refuses what is no empty folder, before anything is frozen.
fn check(folder: &Path) -> Result<(), CheckpointError> {
    let invalid = |why: &str| Err(CheckpointError::Invalid { why: format!("output_path {folder:?} {why}") });
    if !folder.is_absolute() {
        return invalid("is not absolute");
    }
    match std::fs::symlink_metadata(folder) {
        Ok(there) if !there.is_dir() => return invalid("is no directory"),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return invalid("does not exist"),
        Err(source) => return Err(CheckpointError::Location { path: folder.into(), source }),
    }
    match std::fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => invalid("is not empty"),
        Err(source) => Err(CheckpointError::Location { path: folder.into(), source }),
    }
}

/// A checkpoint that could never be restored is better not made.
fn can_be_restored(order: &Order) -> Result<(), CheckpointError> {
    let refuse = |why: String| Err(CheckpointError::Invalid { why });
    if order.pod.request.namespaces.user.is_some() {
        return refuse(format!("pod {} has a user namespace, and could not be restored", order.pod.id));
    }
    for container in &order.containers {
        let id = &container.id;
        match container.request.security.namespaces.pid {
            PidNamespace::Container | PidNamespace::Pod => {}
            PidNamespace::Host | PidNamespace::Target(_) => {
                return refuse(format!(
                    "container {id} shares its process numbers with the host or another container, and could not be restored"
                ));
            }
        }
        let name = &container.request.name;
        let twice = order.containers.iter().filter(|other| other.request.name == *name).count() > 1;
        if twice {
            return refuse(format!(
                "two containers are called {name:?}; a restore could not tell them apart"
            ));
        }
    }
    Ok(())
}

async fn fill(
    context: &Arc<Context>,
    order: &Order,
    criu: &Path,
    folder: &Path,
) -> Result<(), CheckpointError> {
    let number = |id: &model::id::ContainerId| {
        order.containers.iter().position(|container| container.id == *id).unwrap_or(0)
    };
    let memory = Some(folder.join(SHARED_MEMORY));
    let captured = capture(context, order, criu, Deletions::Whiteouts, memory, |container| {
        of_container(folder, number(&container.id))
    })
    .await?;
    let containers = captured.containers.iter().map(|saved| Container {
        request: saved.container.request.as_ref().clone(),
        image_id: saved.container.facts.image_id.clone(),
        volume_images: saved.container.facts.volume_images.clone(),
        changes: saved.changes.clone(),
    });
    let manifest =
        Manifest::new(order.pod.request.as_ref().clone(), containers.collect(), captured.shared_memory);
    let (path, deadline) = (folder.to_owned(), order.deadline);
    let written = blocking(move || {
        sync(&path)?;
        if Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the time for the checkpoint is over"));
        }
        manifest.write(&path)
    });
    written.await.map_err(|source| CheckpointError::Location { path: folder.into(), source })
}

/// Has the file system of the folder write down what is in it.
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(folder)?)?)
}

/// Removes everything in the folder, which was empty, and not the folder.
fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => crate::context::remove_tree(&path),
            _ => std::fs::remove_file(&path),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "a part of a failed checkpoint could not be removed");
        }
    }
}
