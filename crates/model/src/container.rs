//! What a container may do next. Pure: no clock, no disk, no kernel.
//!
//! ```text
//!           create              start                exit                remove
//! (nothing) ──────► Created ──────────► Running ───────────► Exited ───────────► (nothing)
//!                      └─────────── could not start, lost ──────▲
//! ```

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::pod::Verdict;
use crate::request::ContainerRequest;
use crate::time::Timestamp;

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Container {
    /// Made, and waiting to be started.
    Created {
        pid: i32,
    },
    Running {
        pid: i32,
        started_at: Timestamp,
    },
    Exited {
        exit: Exit,
        started_at: Timestamp,
        finished_at: Timestamp,
    },
    /// Its record or its shim could not be read. It may still be running.
    Unreadable {
        why: String,
    },
}

/// Why a container cannot be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartRefusal {
    AlreadyRunning,
    AlreadyExited,
    Unreadable(String),
}

/// CRI: only a created container starts, and it starts once.
pub fn start(container: &Container) -> Verdict<StartRefusal> {
    match container {
        Container::Created { .. } => Verdict::Go,
        Container::Running { .. } => Verdict::Refuse(StartRefusal::AlreadyRunning),
        Container::Exited { .. } => Verdict::Refuse(StartRefusal::AlreadyExited),
        Container::Unreadable { why } => Verdict::Refuse(StartRefusal::Unreadable(why.clone())),
    }
}

/// Stopping is idempotent: what is not running is already stopped. A container that waits for its start is ended too, so that
/// nothing can start it later.
pub fn stop(container: &Container) -> Verdict<std::convert::Infallible> {
    match container {
        Container::Created { .. } | Container::Running { .. } | Container::Unreadable { .. } => Verdict::Go,
        Container::Exited { .. } => Verdict::AlreadyDone,
    }
}

/// Only what runs can be executed in.
pub fn exec(container: &Container) -> Verdict<&'static str> {
    match container {
        Container::Running { .. } => Verdict::Go,
        Container::Created { .. } => Verdict::Refuse("created but not started"),
        Container::Exited { .. } => Verdict::Refuse("exited"),
        Container::Unreadable { .. } => Verdict::Refuse("in an unreadable state"),
    }
}

/// Limits can be changed while there is a cgroup; of an exited container only the record is changed.
pub fn update(container: &Container) -> Verdict<String> {
    match container {
        Container::Created { .. } | Container::Running { .. } => Verdict::Go,
        Container::Exited { .. } => Verdict::AlreadyDone,
        Container::Unreadable { why } => Verdict::Refuse(why.clone()),
    }
}

/// Why a container with the same name is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CreateRefusal {
    Different,
    Exited,
}

/// May `asked` be created, when its pod has a container with its name? The same request again is a retry.
pub fn create_again(
    existing: &Container,
    made_by: &ContainerRequest,
    asked: &ContainerRequest,
) -> Verdict<CreateRefusal> {
    match existing {
        _ if made_by != asked => Verdict::Refuse(CreateRefusal::Different),
        Container::Created { .. } | Container::Running { .. } | Container::Unreadable { .. } => {
            Verdict::AlreadyDone
        }
        Container::Exited { .. } => Verdict::Refuse(CreateRefusal::Exited),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_starts_once() {
        let running = Container::Running { pid: 1, started_at: Timestamp(1) };
        let exited =
            Container::Exited { exit: Exit::Code(0), started_at: Timestamp(1), finished_at: Timestamp(2) };
        assert_eq!(start(&Container::Created { pid: 1 }), Verdict::Go);
        assert_eq!(start(&running), Verdict::Refuse(StartRefusal::AlreadyRunning));
        assert_eq!(start(&exited), Verdict::Refuse(StartRefusal::AlreadyExited));
        assert_eq!(stop(&exited), Verdict::AlreadyDone);
        assert_eq!(stop(&Container::Created { pid: 1 }), Verdict::Go);
    }
}
