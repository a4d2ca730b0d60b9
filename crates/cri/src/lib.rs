//! The protocol edge: CRI `runtime.v1` by gRPC, its messages, and their translation to what the node understands.
//!
//! [`runtime_v1`] and [`node_v1`] are generated and committed (`cargo xtask gen`): messages, clients and server traits.

/// Largest message in either direction, in bytes: what the kubelet's own client allows (16 MiB). tonic's default is 4 MiB for what is received.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

mod service;
pub mod translate;

pub use service::serve;

/// The Kubernetes Container Runtime Interface, as `k8s.io/cri-api/pkg/apis/runtime/v1` defines it.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[rustfmt::skip]
#[path = "generated/runtime.v1.rs"]
pub mod runtime_v1;

/// Pintle's own service on the same socket, for what CRI has no words for.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
#[rustfmt::skip]
#[path = "generated/pintle.v1.rs"]
pub mod node_v1;
