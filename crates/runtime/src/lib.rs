//! The OCI runtime: create, start, exec, kill, delete, ps, state and update by the runtime-spec.
//!
//! [`create`] and [`exec`] clone the container's process from the calling process and must therefore be called in a single-threaded,
//! short-lived process: the shim forks one, `pintle oci` is one. No program is executed between the clone and the container's own
//! command. That is safe because of three things: the caller has one thread, so that no lock is copied in a held state; the caller is a
//! copy or a sealed image in memory, so that nothing on disk can be overwritten through `/proc/<pid>/exe` ([`seal_self`]); and the
//! process is not dumpable until the command replaces it, so that nobody in the container can open or trace it.
//!
//! Every path inside the root file system is resolved by descriptor and stays inside; mounts are made detached and attached on
//! descriptors; host paths of mounts are opened by the caller's side before the clone.

mod capabilities;
mod cgroups;
mod channel;
mod checkpoint;
mod cli;
mod command;
mod console;
mod create;
mod criu;
mod default_spec;
mod delete;
mod environment;
mod error;
mod exec;
mod features;
mod hooks;
mod idmap;
mod init;
mod json_place;
mod kill;
mod labels;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod rdt;
mod record;
mod restore;
mod rootless;
mod rules;
mod sealed;
mod seccomp_filter;
mod start;
mod update;

pub use cgroups::{pause, processes, resume, stats, warm_up};
pub use checkpoint::{CheckpointRequest, DUMP_LOG, checkpoint};
pub use cli::{main, timestamp};
pub use console::Console;
pub use create::{CreateRequest, Created, create};
pub use criu::{CriuOptions, check as check_criu, locate as locate_criu};
pub use default_spec::default_spec;
pub use delete::{Deleted, delete};
pub use environment::RAW_ENVIRONMENT;
pub use error::{
    CheckpointError, CreateError, DeleteError, ExecError, Failure, KillError, Lookup, Stage, StartError,
    UpdateError, Warning,
};
pub use exec::{ExecRequest, Executed, exec};
pub use features::features;
pub use kill::kill;
pub use oci_spec;
pub use rdt::Group as RdtGroup;
pub use record::{Record, Status, list, state};
pub use restore::{RESTORE_LOG, RestoreRequest, restore};
pub use sealed::seal_self;
pub use start::{StartAttempt, begin_start, start};
pub use update::update;
