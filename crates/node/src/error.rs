//! Why an operation on the node failed: one enum per operation, each naming the object, the cause and what to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::id::{ContainerId, PodId};
use model::request::PodName;

use crate::handlers::HandlerError;
use crate::shim_client::{ShimError, SpawnError};
use crate::snapshot::LookupError;

/// An operation's failure, shared by all requests that joined it.
pub type Shared<E> = Arc<E>;

/// What went wrong beneath an operation that has no name of its own.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the pod database: {0}")]
    Store(#[from] store::StoreError),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the pod's shim: {0}")]
    Shim(#[from] ShimError),
    /// A shim that answered said why; of one that did not, its last words are added.
    #[error("{source}{}", last_words(.said))]
    Spawn { source: SpawnError, said: Option<String> },
    #[error("the pod database: {0}")]
    Record(Arc<store::StoreError>),
    #[error("{0}")]
    Network(#[from] network::DetachError),
    #[error("{0}")]
    Rootfs(image::RootfsError),
    #[error("{0}")]
    Cgroup(cgroup::CgroupError),
    #[error("{0}")]
    Limits(PodLimitsFault),
    /// Another operation's failure, in its own words.
    #[error("{0}")]
    Other(String),
    #[error("the operation ended without a result; the daemon's log has the reason")]
    Vanished,
}

fn last_words(said: &Option<String>) -> String {
    said.as_deref().map(|said| format!("; it said: {said}")).unwrap_or_default()
}

#[derive(Debug, thiserror::Error)]
pub enum RunPodError {
    #[error("no runtime handler is called {handler:?}; configured: {known}")]
    UnknownHandler { handler: String, known: String },
    #[error("pod {name} exists with another configuration, as {id}; remove it first, or raise the attempt")]
    NameTaken { name: PodName, id: PodId },
    #[error(
        "pod {name} is being run with another configuration at this moment; raise the attempt, or remove that one first"
    )]
    NameInUse { name: PodName },
    #[error("pod {name} has been run and stopped, as {id}; remove it first, or raise the attempt")]
    Stopped { name: PodName, id: PodId },
    #[error("pod {name}: {why}")]
    Invalid { name: PodName, why: String },
    #[error(
        "pod {name}: cgroup_parent {parent:?} is of a kubelet whose cgroup driver is {theirs}, and here it is {ours}: set `cgroupDriver: {ours}` in the kubelet's configuration, or `cgroup_driver = \"{theirs}\"` in [runtime] of Pintle's, and start it anew"
    )]
    OtherCgroupDriver { name: PodName, parent: String, ours: &'static str, theirs: &'static str },
    #[error("pod {name}: the log directory {path} cannot be made: {source}", path = path.display())]
    LogDirectory { name: PodName, path: PathBuf, source: std::io::Error },
    #[error("pod {name}: the network: {source}")]
    Network { name: PodName, source: network::AttachError },
    #[error(
        "pod {name}: this node cannot give a pod users of its own: its kernel, or the file system of images or state, cannot map ids"
    )]
    NoUserNamespaces { name: PodName },
    #[error("pod {name}: runtime handler {handler}: {source}")]
    Handler { name: PodName, handler: String, source: HandlerError },
    #[error("pod {name}: {source}")]
    Refused { name: PodName, source: nri::Refusal },
    #[error("pod {name}: {stage}: {fault}")]
    Failed { name: PodName, stage: &'static str, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum StopPodError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(
        "pod {pod}: container {container} still runs {waited:?} after SIGKILL{stuck}; the stop goes on when it is asked for again"
    )]
    Stuck { pod: PodId, container: ContainerId, waited: Duration, stuck: String },
    #[error("pod {pod}: its network could not be taken down and is still owed: {source}")]
    Network { pod: PodId, source: network::DetachError },
    #[error("pod {pod}: {stage}: {fault}")]
    Failed { pod: PodId, stage: &'static str, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum RemovePodError {
    #[error(transparent)]
    Stop(Shared<StopPodError>),
    #[error("pod {pod}: {why}")]
    Container { pod: PodId, why: Shared<RemoveContainerError> },
    #[error("pod {pod}: {stage}: {fault}")]
    Failed { pod: PodId, stage: &'static str, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum CreateContainerError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("pod {pod} is not running{}; a container needs a running pod", because(.why))]
    PodNotReady { pod: PodId, why: Option<String> },
    #[error(
        "pod {pod} has a container {name:?} (attempt {attempt}) with another configuration, {id}; remove it first"
    )]
    NameTaken { pod: PodId, name: String, attempt: u32, id: ContainerId },
    #[error(
        "container {name:?} (attempt {attempt}) of pod {pod} has run and ended, as {id}; remove it first, or raise the attempt"
    )]
    Ended { pod: PodId, name: String, attempt: u32, id: ContainerId },
    #[error("container {name:?}: image {image:?} is not on this node; pull it first")]
    NoImage { name: String, image: String },
    #[error(
        "container {name:?}: image {image:?} is for {platform}, and this node is {node}; pull it again to get the one for this node"
    )]
    Foreign { name: String, image: String, platform: String, node: String },
    /// The first word is what a pull that is refused has too.
    #[error(
        "SignatureValidationFailed: container {name:?}: its image is here, and may not be used: {source}"
    )]
    Untrusted { name: String, source: image::PullError },
    #[error("container {name:?}: {source}")]
    Spec { name: String, source: spec::SpecError },
    #[error("container {name:?}: {source}")]
    User { name: String, source: spec::user::UserError },
    #[error("container {name:?}: {why}")]
    Invalid { name: String, why: String },
    #[error("container {name:?}: its root file system: {source}")]
    Rootfs { name: String, source: image::RootfsError },
    /// The first word is what the kubelet knows it by.
    #[error(
        "ImageVolumeMountFailed: container {name:?}: mounts[{index}]: image {image:?} is not on this node; pull it first"
    )]
    NoVolumeImage { name: String, index: usize, image: String },
    #[error("ImageVolumeMountFailed: container {name:?}: mounts[{index}]: {source}")]
    Volume { name: String, index: usize, source: image::RootfsError },
    #[error("container {name:?}: runtime handler {handler}: {source}")]
    Handler { name: String, handler: String, source: HandlerError },
    /// The first word is what the kubelet knows it by.
    #[error("RROUnsupported: container {name:?}: runtime handler {handler}: {source}")]
    NoRecursiveReadOnly { name: String, handler: String, source: HandlerError },
    #[error(
        "container {name:?}: runtime handler {handler:?} of its pod is not configured any more; configure it, or run the pod anew"
    )]
    HandlerGone { name: String, handler: String },
    #[error("container {name:?}: {source}")]
    Refused { name: String, source: nri::Refusal },
    #[error("container {name:?}: {source}")]
    Adjusted { name: String, source: nri::SpecError },
    #[error("container {name:?}: {source}")]
    Device { name: String, source: cdi::DeviceError },
    /// The OCI runtime refused; its message names stage, object and cause.
    #[error("container {name:?}: {source}")]
    Runtime { name: String, source: ShimError },
    #[error("container {name:?}: {stage}: {fault}")]
    Failed { name: String, stage: &'static str, fault: Fault },
}

fn because(why: &Option<String>) -> String {
    why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default()
}

#[derive(Debug, thiserror::Error)]
pub enum StartContainerError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("container {id} is {state}; only a created container can be started")]
    NotCreated { id: ContainerId, state: &'static str },
    #[error(
        "container {id} cannot be started: container {target}, whose processes it is to see, has ended; remove it"
    )]
    TargetEnded { id: ContainerId, target: String },
    /// The command could not be executed; the container is exited now, with status 128.
    #[error("{}", named(id, why))]
    NotExecuted { id: ContainerId, why: String },
    #[error("container {id}: {source}")]
    Refused { id: ContainerId, source: nri::Refusal },
    #[error("container {id}: {fault}")]
    Failed { id: ContainerId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum StopContainerError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(
        "container {id} still runs {waited:?} after SIGKILL{stuck}; stopping it goes on when it is asked for again"
    )]
    Stuck { id: ContainerId, waited: Duration, stuck: String },
    #[error("container {id}: {fault}")]
    Failed { id: ContainerId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum RemoveContainerError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Stop(Shared<StopContainerError>),
    #[error("container {id}: its root file system: {source}")]
    Rootfs { id: ContainerId, source: image::RootfsError },
    #[error("container {id}: {stage}: {fault}")]
    Failed { id: ContainerId, stage: &'static str, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("container {id} is {state}; a command can be executed only in a running container")]
    NotRunning { id: ContainerId, state: &'static str },
    #[error("container {id}: no command was given")]
    NoCommand { id: ContainerId },
    #[error("{}", named(id, why))]
    NotExecuted { id: ContainerId, why: String },
    #[error("container {id}: the command did not end within {timeout:?} and was killed")]
    TimedOut { id: ContainerId, timeout: Duration },
    #[error("container {id}: {fault}")]
    Failed { id: ContainerId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("container {id} is {state}; one can attach only to a container that has not ended")]
    NotRunning { id: ContainerId, state: &'static str },
    #[error("container {id}: {why}")]
    Refused { id: ContainerId, why: String },
    #[error("container {id}: {fault}")]
    Failed { id: ContainerId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("pod {pod} is not running; its ports cannot be reached")]
    NotReady { pod: PodId },
    #[error("pod {pod}: port {port} cannot be reached: {why}")]
    Refused { pod: PodId, port: u16, why: String },
    #[error("pod {pod}: {fault}")]
    Failed { pod: PodId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("container {id}: {why}")]
    Refused { id: ContainerId, why: String },
    #[error("container {id}: {source}; nothing was changed")]
    Spec { id: ContainerId, source: spec::SpecError },
    /// A runtime that is another program refused; its words are in it.
    #[error("{source}")]
    Runtime { source: ShimError },
    #[error("container {id}: {source}; nothing was changed")]
    Cgroup { id: ContainerId, source: cgroup::ApplyError },
    #[error("container {id}: {source}; nothing was changed")]
    Plugins { id: ContainerId, source: nri::Refusal },
    #[error("container {id}: {source}; nothing was changed")]
    Adjusted { id: ContainerId, source: nri::SpecError },
    #[error("container {id}: {fault}")]
    Failed { id: ContainerId, fault: Fault },
}

/// Why a pod's own cgroup does not have its limits.
#[derive(Debug, thiserror::Error)]
pub enum PodLimitsFault {
    #[error(transparent)]
    Group(cgroup::CgroupError),
    #[error(transparent)]
    Value(cgroup::ApplyError),
}

#[derive(Debug, thiserror::Error)]
pub enum UpdatePodError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("pod {id}: {source}; nothing was changed")]
    Spec { id: PodId, source: spec::SpecError },
    #[error("pod {id}: {source}; nothing was changed")]
    Refused { id: PodId, source: nri::Refusal },
    #[error("pod {id}: {fault}")]
    Failed { id: PodId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("pod {pod} is not running; only what runs can be checkpointed")]
    PodNotReady { pod: PodId },
    #[error("container {id} is {state}; only a running container can be checkpointed")]
    NotRunning { id: ContainerId, state: &'static str },
    #[error("pod {pod}: runtime handler {handler}: {source}")]
    Handler { pod: PodId, handler: String, source: HandlerError },
    #[error("pod {pod} is being checkpointed already; try again when that is done")]
    Busy { pod: PodId },
    /// Says what to install.
    #[error("checkpoints need CRIU: {why}")]
    NoCriu { why: String },
    #[error("{why}")]
    Invalid { why: String },
    #[error("{path} cannot be written: {source}", path = path.display())]
    Location { path: PathBuf, source: std::io::Error },
    #[error("pod {pod}: its containers were not paused: {source}")]
    Pause { pod: PodId, source: ShimError },
    #[error("pod {pod}: its containers do not run again yet: {source}")]
    Resume { pod: PodId, source: ShimError },
    /// CRIU refused; its message names the cause.
    #[error("container {id}: {source}")]
    Processes { id: ContainerId, source: ShimError },
    #[error("container {id}: {source}")]
    Rootfs { id: ContainerId, source: image::RootfsError },
    #[error("container {id}: {path}: {source}", path = path.display())]
    Write { id: ContainerId, path: PathBuf, source: std::io::Error },
    #[error("pod {pod}: its shared memory: {source}")]
    SharedMemory { pod: PodId, source: std::io::Error },
    #[error("pod {pod}: {stage}: {fault}")]
    Failed { pod: PodId, stage: &'static str, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum RestorePodError {
    /// Says what to install.
    #[error("restoring needs CRIU: {why}")]
    NoCriu { why: String },
    #[error("pod {name}: runtime handler {handler}: {source}")]
    Handler { name: PodName, handler: String, source: HandlerError },
    #[error("{why}")]
    Invalid { why: String },
    /// What is in the folder is no checkpoint that this version can restore.
    #[error("the checkpoint in {path}: {why}", path = path.display())]
    Unusable { path: PathBuf, why: String },
    /// What was asked for is not what was checkpointed.
    #[error("{object}: {why}")]
    Incompatible { object: String, why: String },
    #[error("the time for the restore was over at {stage}; nothing of it is left")]
    TimedOut { stage: &'static str },
    #[error(transparent)]
    Pod(Shared<RunPodError>),
    #[error(transparent)]
    Container(Shared<CreateContainerError>),
    #[error("pod {name}: {stage}: {fault}")]
    Failed { name: PodName, stage: &'static str, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum ReopenLogError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("container {id} is not running; its log is closed")]
    NotRunning { id: ContainerId },
    #[error("container {id}: {fault}")]
    Failed { id: ContainerId, fault: Fault },
}

#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// What the runtime says of a container, which mostly names it; else it is named here.
fn named(id: &ContainerId, why: &str) -> String {
    if why.contains(id.as_str()) { why.to_owned() } else { format!("container {id}: {why}") }
}
