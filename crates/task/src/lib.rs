//! The messages of containerd's shim API: the Task service in both of its versions, the Sandbox service, events, how a shim is started.
//!
//! Both sides use them: Pintle as a shim below containerd, and Pintle driving somebody else's shim. They were written by hand, from the
//! numbers and types that the wire has; a field that is not here is skipped when it comes. No IO.

pub mod bootstrap;
pub mod events;
mod metrics_shared;
pub mod metrics_v1;
pub mod metrics_v2;
pub mod options;
pub mod sandbox;

mod any;
mod error;
mod service;
mod types;

pub use any::{
    Named, OCI_FEATURES, OCI_PROCESS, OCI_RESOURCES, OCI_SPEC, pack, pack_json, type_name, unpack,
};
pub use error::Code;
pub use service::*;
pub use ttrpc::Any;
pub use types::*;

#[cfg(test)]
mod wire_tests;
