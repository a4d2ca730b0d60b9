//! NRI, the Node Resource Interface: plugins that are told of every pod and container, and may adjust containers while they are made.
//!
//! A plugin connects to a socket, or is started from a folder with its connection open. Over it go two ttrpc services, one each way. This
//! crate knows the wire, the plugins, how several plugins' wishes become one, and what they mean in an OCI runtime spec. What a pod or a
//! container is, and when something happens to it, it is told.

mod adjustment;
mod changes;
mod connection;
mod describe;
mod dispatch;
mod error;
mod launch;
mod limits;
mod listen;
mod mux;
mod owners;
mod plugin;
mod plugins;
mod register;
mod spec;

pub use describe::{container, resources};
pub use dispatch::{Creation, Pass, Wishes};
pub use error::{Refusal, SpecError, StartError};
pub use limits::add_limits;
pub use plugins::{Config, Inventory, Later, Nri, Runtime};
pub use spec::adjust_spec;

/// NRI's messages, as `github.com/containerd/nri/pkg/api/api.proto` defines them.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[rustfmt::skip]
#[path = "generated/nri.pkg.api.v1alpha1.rs"]
pub mod api;
