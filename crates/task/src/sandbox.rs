//! The Sandbox service, which shims may serve beside the Task service: the pod as a thing of its own.

use crate::types::{Metric, Mount, Platform, Timestamp};
use std::collections::BTreeMap;
use ttrpc::Any;

/// The name of the service.
pub const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

/// The calls of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    CreateSandbox,
    StartSandbox,
    Platform,
    StopSandbox,
    WaitSandbox,
    SandboxStatus,
    PingSandbox,
    ShutdownSandbox,
    SandboxMetrics,
}

impl Method {
    /// Every call.
    pub const ALL: [Method; 9] = [
        Method::CreateSandbox,
        Method::StartSandbox,
        Method::Platform,
        Method::StopSandbox,
        Method::WaitSandbox,
        Method::SandboxStatus,
        Method::PingSandbox,
        Method::ShutdownSandbox,
        Method::SandboxMetrics,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::CreateSandbox => "CreateSandbox",
            Method::StartSandbox => "StartSandbox",
            Method::Platform => "Platform",
            Method::StopSandbox => "StopSandbox",
            Method::WaitSandbox => "WaitSandbox",
            Method::SandboxStatus => "SandboxStatus",
            Method::PingSandbox => "PingSandbox",
            Method::ShutdownSandbox => "ShutdownSandbox",
            Method::SandboxMetrics => "SandboxMetrics",
        }
    }

    /// The call of that name.
    pub fn parse(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// The first call to a new shim.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(string, tag = "2")]
    pub bundle_path: String,
    #[prost(message, repeated, tag = "3")]
    pub rootfs: Vec<Mount>,
    /// `runtime.v1.PodSandboxConfig` from CRI.
    #[prost(message, optional, tag = "4")]
    pub options: Option<Any>,
    #[prost(string, tag = "5")]
    pub netns_path: String,
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
}

/// The answer to [`CreateSandboxRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct CreateSandboxResponse {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StartSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StartSandboxResponse {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    #[prost(message, optional, tag = "2")]
    pub created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    pub spec: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PlatformRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PlatformResponse {
    #[prost(message, optional, tag = "1")]
    pub platform: Option<Platform>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StopSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(uint32, tag = "2")]
    pub timeout_secs: u32,
}

/// The answer to [`StopSandboxRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct StopSandboxResponse {}

/// Answered once the sandbox has exited.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WaitSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct WaitSandboxResponse {
    #[prost(uint32, tag = "1")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "2")]
    pub exited_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SandboxStatusRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SandboxStatusResponse {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// CRI's: `SANDBOX_READY` or `SANDBOX_NOTREADY`.
    #[prost(string, tag = "3")]
    pub state: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub info: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    pub created_at: Option<Timestamp>,
    #[prost(message, optional, tag = "6")]
    pub exited_at: Option<Timestamp>,
    #[prost(message, optional, tag = "7")]
    pub extra: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PingRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

/// The answer to [`PingRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PingResponse {}

/// Ends the shim.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ShutdownSandboxRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

/// The answer to [`ShutdownSandboxRequest`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ShutdownSandboxResponse {}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SandboxMetricsRequest {
    #[prost(string, tag = "1")]
    pub sandbox_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SandboxMetricsResponse {
    #[prost(message, optional, tag = "1")]
    pub metrics: Option<Metric>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.name()), Some(method));
        }
        assert_eq!(Method::parse("Ping"), None);
    }
}
