//! How a shim is started: what containerd 2.3 and later write to its standard input, and what it answers on its standard output.
//!
//! Before, the same came as arguments and in the environment, and the answer was JSON (1.7 to 2.2) or the bare address.

use crate::any::named;
use std::collections::BTreeMap;
use ttrpc::Any;

#[derive(Clone, PartialEq, prost::Message)]
pub struct BootstrapParams {
    /// The container, or the sandbox.
    #[prost(string, tag = "1")]
    pub instance_id: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// 0 is information; graver is more, chattier is less: debug is -4, warning 4, error 8.
    #[prost(int32, tag = "3")]
    pub log_level: i32,
    #[prost(string, tag = "4")]
    pub containerd_version: String,
    /// Where events go.
    #[prost(string, tag = "5")]
    pub containerd_ttrpc_address: String,
    #[prost(string, tag = "6")]
    pub containerd_grpc_address: String,
    #[prost(string, tag = "7")]
    pub containerd_binary: String,
    /// The runtime's options are among them.
    #[prost(message, repeated, tag = "8")]
    pub extensions: Vec<Extension>,
    /// The folder for the shim's socket.
    #[prost(string, optional, tag = "9")]
    pub socket_dir: Option<String>,
}

/// The chattiest level that is still "debug".
pub const LOG_LEVEL_DEBUG: i32 = -4;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Extension {
    #[prost(message, optional, tag = "1")]
    pub value: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BootstrapResult {
    /// 2 or 3: of the Task service that is to be used.
    #[prost(int32, tag = "1")]
    pub version: i32,
    /// `unix://` and a path.
    #[prost(string, tag = "2")]
    pub address: String,
    /// `ttrpc` or `grpc`.
    #[prost(string, tag = "3")]
    pub protocol: String,
    #[prost(int32, repeated, tag = "4")]
    pub capabilities: Vec<i32>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub metadata: BTreeMap<String, String>,
}

named! { "containerd.runtime.bootstrap.v1" => BootstrapParams, BootstrapResult }
