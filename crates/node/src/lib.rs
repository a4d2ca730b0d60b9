//! The pods of this node: one actor per pod, operations that outlive their callers, recovery, and the snapshot that lists read.
//!
//! It knows no protobuf: requests come as [`model::request`] types and answers go out as records, outputs and errors of its own.

mod actor;
mod cgroups;
mod checkpoint;
mod clock;
mod confinement;
mod container_mounts;
mod context;
mod create_container;
mod devices;
mod disk;
mod error;
mod events;
mod exec_sync;
mod handlers;
mod host;
mod join;
mod lost;
mod node;
mod open_files;
mod planned;
mod plugins;
mod pod_files;
mod pod_limits;
mod pod_shim;
mod propagation;
mod record;
mod records;
mod recover;
mod remove_container;
mod remove_pod;
mod run_pod;
pub mod shim_client;
mod slot;
mod snapshot;
mod stage;
mod start_container;
mod stats;
mod stop_container;
mod stop_pod;
mod streaming;
mod teardown;
mod update;
mod users;

pub use cgroup::Driver as CgroupDriver;
pub use context::{CheckpointConfig, NodeConfig, SecurityConfig};
pub use disk::{Capacity, capacity};
pub use error::*;
pub use events::{Event, EventKind, Events, Lagged, QUEUE as EVENT_QUEUE, Subject};
pub use exec_sync::{ExecOutput, OUTPUT_LIMIT};
pub use handlers::{
    BaseSpecError, Features, HandlerConfig, HandlerError, HandlerKind, OciHandler, Pause, PrivilegedPolicy,
    ShimHandler,
};
pub use node::{Node, OpenNodeError, Parts};
pub use record::{
    ContainerFacts, ContainerRecord, ContainerState, PodCgroup, PodLimits, PodRecord, PodState,
};
pub use snapshot::{LookupError, Snapshot};
pub use stats::{
    ContainerMeasurement, ContainerStats, FileSystem, Layer, Measurements, PodMeasurement, PodStats,
    Processes,
};
