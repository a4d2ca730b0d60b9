//! What is kept of a pod and of a container: enough for a daemon started later to go on as if it had never been away.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use model::container::Container;
use model::id::{ContainerId, PodId};
use model::pod::Pod;
use model::request::{ContainerRequest, PodRequest, Resources};
use model::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A pod as it is known to all: immutable, replaced whole on each change.
#[derive(Debug, Clone)]
pub struct PodRecord {
    pub id: PodId,
    pub request: Arc<PodRequest>,
    pub created_at: Timestamp,
    pub state: PodState,
}

/// What changes of a pod in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    pub pod: Pod,
    /// The pod's addresses, the first being the one that CRI calls `ip`. Empty in the host's network.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    pub shim_pid: i32,
    /// Where the containers' cgroups are, and whether the folder is ours to remove.
    pub cgroup: PodCgroup,
    /// A network attachment is owed its DEL.
    #[serde(default)]
    pub network_owed: bool,
    #[serde(default)]
    pub limits: PodLimits,
    /// The SELinux level that no other pod has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux_level: Option<String>,
    /// The handler that runs it, whatever its request calls it; empty: the runtime of this program, with nothing changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub handler: String,
}

/// What the pod as a whole may use: as its request says, with every later update.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PodLimits {
    /// The sum of its containers' limits.
    pub resources: Option<Resources>,
    /// What running it takes beside its containers.
    pub overhead: Option<Resources>,
}

/// The cgroup that a pod's containers are below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCgroup {
    pub path: String,
    /// True where the request named none, so that we made it and must remove it.
    pub ours: bool,
}

/// A container as it is known to all: immutable, replaced whole on each change.
#[derive(Debug, Clone)]
pub struct ContainerRecord {
    pub id: ContainerId,
    pub pod: PodId,
    pub request: Arc<ContainerRequest>,
    pub created_at: Timestamp,
    pub facts: Arc<ContainerFacts>,
    pub state: ContainerState,
}

/// What was settled when a container was created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// A reference by digest where the image has one, else its id.
    pub image_ref: String,
    /// The log file, absolute; none: nothing is logged.
    pub log_path: Option<PathBuf>,
    pub cgroup: String,
    /// A signal's number.
    pub stop_signal: u8,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// The ids of the images that its mounts are made of, in their order.
    #[serde(default)]
    pub volume_images: Vec<String>,
}

/// What changes of a container in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub container: Container,
    /// The limits in force: those asked for, with every later update.
    pub resources: Resources,
}

impl ContainerRecord {
    /// When it began to run; [`Timestamp::NEVER`] where it has not.
    pub fn started_at(&self) -> Timestamp {
        match self.state.container {
            Container::Running { started_at, .. } | Container::Exited { started_at, .. } => started_at,
            Container::Created { .. } | Container::Unreadable { .. } => Timestamp::NEVER,
        }
    }
}
