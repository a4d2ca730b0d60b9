//! Delete: removes what create made, after the container has ended.

use std::path::Path;

use crate::error::{At, DeleteError, Failure, Stage, Warning};
use crate::record::{Folder, RECORD, RESTORED, Record, SECCOMP, START, Status, status};

/// How long a forced delete waits for the end of init.
const FORCE_WAIT_MILLIS: u64 = 10_000;

/// What a delete has to tell.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Failed poststop hooks; the container is deleted all the same.
    pub warnings: Vec<Warning>,
}

/// Deletes a stopped container: its cgroup, its record, and the state directory if nothing else is in it. `force` kills a container
/// that is not stopped; a created one, whose command never ran, is killed also without it. Runs the poststop hooks last.
///
/// # Errors
/// It runs, or something could not be removed. The record is removed last, so that a later call can go on.
pub fn delete(state_root: &Path, id: &str, force: bool) -> Result<Deleted, DeleteError> {
    let folder = Folder::open(state_root, id)?;
    let failed = |failure: Failure| DeleteError::Failed { id: id.into(), failure: Box::new(failure) };
    folder.lock().at(Stage::State, || "lock").map_err(failed)?;
    let record = folder.read()?;
    let now = status(&folder, &record).at(Stage::State, || "init").map_err(failed)?;
    if now != Status::Stopped {
        if !force && now != Status::Created {
            return Err(DeleteError::Running { id: id.into(), status: now });
        }
        let ended = crate::kill::kill_and_wait(&record, FORCE_WAIT_MILLIS)
            .at(Stage::Cgroup, || "killing the container")
            .map_err(failed)?;
        if !ended {
            return Err(failed(stuck(&record)));
        }
    } else if !record.own_pid_namespace {
        // Without a pid namespace of its own the container's other processes outlive init.
        crate::cgroups::signal_all(&record, 9)
            .at(Stage::Cgroup, || "killing what is left")
            .map_err(failed)?;
    }
    crate::cgroups::remove(&record).map_err(failed)?;
    if let Some(group) = &record.rdt {
        group.remove();
    }
    remove_files(&folder).at(Stage::State, || folder.path.display().to_string()).map_err(failed)?;
    let mut deleted = Deleted::default();
    let state = record.oci_state(Status::Stopped);
    for hook in &record.poststop {
        if let Err(failure) = crate::hooks::run(std::slice::from_ref(hook), "poststop", &state) {
            deleted.warnings.push(Warning { stage: Stage::Hooks, message: failure.to_string() });
        }
    }
    Ok(deleted)
}

/// Says where a process that does not die is waiting in the kernel.
fn stuck(record: &Record) -> Failure {
    let place = std::fs::read_to_string(format!("/proc/{}/wchan", record.pid)).unwrap_or_default();
    let place = if place.is_empty() { "an unknown place".into() } else { place };
    Failure::new(
        Stage::Process,
        format!("process {}", record.pid),
        format!("it was killed and has not ended after {} s, it waits in {place}", FORCE_WAIT_MILLIS / 1000),
    )
    .remedy("it ends when the device or server it waits for answers; then delete again")
}

/// Removes the runtime's own files; the directory goes too unless the caller keeps other things in it.
pub(crate) fn remove_files(folder: &Folder) -> std::io::Result<()> {
    folder.remove(START)?;
    folder.remove(RESTORED)?;
    folder.remove(SECCOMP)?;
    folder.remove(RECORD)?;
    match rustix::fs::rmdir(&folder.path) {
        Ok(()) | Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::NOENT) => {
            Ok(())
        }
        // The directory is a mount point or the like: it belongs to somebody else.
        Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
