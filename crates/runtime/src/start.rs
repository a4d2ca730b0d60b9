//! Start: tells the waiting init to become the container's command, and learns whether it did.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::error::{At, Failure, Stage, StartError};
use crate::record::{Folder, RESTORED, Record, START, Status, start_name, status};

/// A start under way. Its descriptor is readable when the outcome is known; then [`StartAttempt::try_finish`] says it.
#[derive(Debug)]
pub struct StartAttempt {
    socket: OwnedFd,
    message: Vec<u8>,
    folder: Folder,
    record: Record,
}

impl AsFd for StartAttempt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Starts a created container and waits until its command runs (execve succeeded) or has failed to. Then runs the poststart hooks.
///
/// # Errors
/// The command could not be executed, a hook failed, or the container is not in the state created.
pub fn start(state_root: &Path, id: &str) -> Result<(), StartError> {
    if let Some(result) = start_restored(state_root, id) {
        return result;
    }
    let mut attempt = begin(state_root, id)?;
    loop {
        match attempt.advance() {
            Ok(true) => return Ok(()),
            Ok(false) => continue,
            Err(error) => return Err(error),
        }
    }
}

/// A restored container has its command already, and only has to be thawed. `None`: it is no such container.
fn start_restored(state_root: &Path, id: &str) -> Option<Result<(), StartError>> {
    let folder = Folder::open(state_root, id).ok().filter(|folder| folder.has(RESTORED))?;
    let thaw = || -> Result<(), StartError> {
        folder.lock().at(Stage::State, || "lock").map_err(|failure| failed(id, failure))?;
        let record = folder.read()?;
        let now =
            status(&folder, &record).at(Stage::State, || "init").map_err(|failure| failed(id, failure))?;
        if now != Status::Created {
            return Err(StartError::NotCreated { id: id.into(), status: now });
        }
        crate::cgroups::thaw(&record)
            .at(Stage::Cgroup, || "thawing")
            .map_err(|failure| failed(id, failure))?;
        folder.remove(RESTORED).at(Stage::State, || RESTORED).map_err(|failure| failed(id, failure))?;
        crate::hooks::run(&record.poststart, "poststart", &record.oci_state(Status::Running))
            .map_err(|failure| failed(id, failure))
    };
    Some(thaw())
}

/// Starts a created container without waiting: for a caller with a poll loop.
///
/// # Errors
/// The container is not in the state created, or another operation on it is under way.
pub fn begin_start(state_root: &Path, id: &str) -> Result<StartAttempt, StartError> {
    let attempt = begin(state_root, id)?;
    rustix::io::ioctl_fionbio(&attempt.socket, true)
        .at(Stage::State, || START)
        .map_err(|failure| failed(id, failure))?;
    Ok(attempt)
}

fn begin(state_root: &Path, id: &str) -> Result<StartAttempt, StartError> {
    let folder = Folder::open(state_root, id)?;
    match folder.try_lock() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let busy = Failure::new(Stage::State, id, "another operation on this container is under way");
            return Err(failed(id, busy.remedy("try again")));
        }
        other => other.at(Stage::State, || "lock").map_err(|failure| failed(id, failure))?,
    }
    let record = folder.read()?;
    let now = status(&folder, &record).at(Stage::State, || "init").map_err(|failure| failed(id, failure))?;
    if now != Status::Created {
        return Err(StartError::NotCreated { id: id.into(), status: now });
    }
    let socket = sys::socket::connect_in(folder.fd.as_fd(), start_name())
        .at(Stage::State, || START)
        .map_err(|failure| failed(id, failure))?;
    Ok(StartAttempt { socket, message: Vec::new(), folder, record })
}

impl StartAttempt {
    /// `None` while the outcome is not known; else whether the command runs. To be called when the descriptor is readable.
    pub fn try_finish(&mut self) -> Option<Result<(), StartError>> {
        loop {
            match self.advance() {
                Ok(true) => return Some(Ok(())),
                Ok(false) => continue,
                Err(StartError::Failed { failure, .. })
                    if failure.errno == Some(rustix::io::Errno::AGAIN.raw_os_error()) =>
                {
                    return None;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Reads once. True when the command runs: the socket closed on exec without a word.
    fn advance(&mut self) -> Result<bool, StartError> {
        let mut buffer = [0; 4096];
        let read = match rustix::io::read(&self.socket, &mut buffer) {
            Err(rustix::io::Errno::INTR) => return Ok(false),
            // Init was killed before it took the connection.
            Err(rustix::io::Errno::CONNRESET) => 0,
            other => other.at(Stage::State, || START).map_err(|failure| failed(&self.folder.id, failure))?,
        };
        self.message.extend_from_slice(&buffer[..read]);
        if read > 0 && self.message.len() <= 1 << 16 {
            return Ok(false);
        }
        let _ = self.folder.remove(START);
        self.outcome().map(|()| true)
    }

    fn outcome(&self) -> Result<(), StartError> {
        if !self.message.is_empty() {
            let failure = serde_json::from_slice(&self.message).unwrap_or_else(|_| {
                Failure::new(Stage::Command, "init", String::from_utf8_lossy(&self.message))
            });
            return Err(failed(&self.folder.id, failure));
        }
        crate::hooks::run(&self.record.poststart, "poststart", &self.record.oci_state(Status::Running))
            .map_err(|failure| failed(&self.folder.id, failure))
    }
}

fn failed(id: &str, failure: Failure) -> StartError {
    StartError::Failed { id: id.into(), failure: Box::new(failure) }
}
