//! What is said to a pod's actor: what clients want, and what operations found out.

use model::container::Container;
use model::exit::Exit;
use model::id::ContainerId;
use model::request::{ContainerRequest, Resources};
use tokio::sync::{oneshot, watch};
use tracing::Span;

use super::Reply;
use crate::checkpoint;
use crate::error::*;
use crate::record::{ContainerRecord, PodLimits, PodState};

/// What a client wants of a pod.
#[derive(Debug)]
pub(crate) enum Command {
    CreateContainer {
        request: Box<ContainerRequest>,
        /// Its processes are those of a checkpoint.
        restore: Option<Box<checkpoint::RestoreFrom>>,
        reply: Reply<ContainerId, CreateContainerError>,
    },
    StartContainer {
        id: ContainerId,
        reply: Reply<(), StartContainerError>,
    },
    StopContainer {
        id: ContainerId,
        timeout: std::time::Duration,
        reply: Reply<(), StopContainerError>,
    },
    RemoveContainer {
        id: ContainerId,
        reply: Reply<(), RemoveContainerError>,
    },
    /// Where its exit will be told; nothing for a container that is not there.
    Ended {
        id: ContainerId,
        reply: oneshot::Sender<Option<watch::Receiver<Option<Exit>>>>,
    },
    /// Saves these containers, all of which run.
    Checkpoint {
        containers: Vec<ContainerId>,
        target: checkpoint::Target,
        deadline: std::time::Instant,
        reply: Reply<(), CheckpointError>,
    },
    StopPod {
        reply: Reply<(), StopPodError>,
    },
    RemovePod {
        reply: Reply<(), RemovePodError>,
    },
}

/// What an actor is told, with the span of whoever told it: what follows from it belongs there.
#[derive(Debug)]
pub(super) struct Told<T> {
    pub(super) what: T,
    pub(super) span: Span,
}

impl<T> Told<T> {
    /// With the present span.
    pub(super) fn here(what: T) -> Told<T> {
        Told { what, span: Span::current() }
    }
}

/// What an operation found out. The sender waits until it is recorded and published.
#[derive(Debug)]
pub(crate) enum Fact {
    /// A container has been made.
    Made(Box<ContainerRecord>),
    /// A container's life went on.
    Container(ContainerId, Container),
    /// Its limits were changed.
    Limits(ContainerId, Box<Resources>),
    /// It is removed.
    ContainerGone(ContainerId),
    /// The pod's own state went on.
    Pod(Box<PodState>),
    /// What the pod as a whole may use was changed.
    PodLimits(Box<PodLimits>),
    /// The shim ended without being asked to. Exits it recorded before are in the list.
    ShimLost { why: String, exits: Vec<(ContainerId, Container)> },
    /// The pod is removed; the actor ends.
    PodGone,
}
