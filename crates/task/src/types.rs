//! What several of the services have in common: times, mounts, states, platforms.

use crate::any::named;
use ttrpc::Any;

/// `google.protobuf.Empty`: the answer of calls that have nothing to say.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The time so many nanoseconds after 1970.
    pub fn from_ns(ns: i64) -> Timestamp {
        const SECOND: i64 = 1_000_000_000;
        Timestamp { seconds: ns.div_euclid(SECOND), nanos: ns.rem_euclid(SECOND) as i32 }
    }

    /// Nanoseconds since 1970; what does not fit is the nearest that does.
    pub fn as_ns(&self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(self.nanos.into())
    }
}

/// What is to be mounted, in the words of mount(8).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mount {
    /// `bind`, `overlay`, `ext4`, ...
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub source: String,
    /// Below the place that all mounts of a list have in common; empty is that place itself.
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// Where a process of a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Status {
    Unknown = 0,
    Created = 1,
    Running = 2,
    Stopped = 3,
    Paused = 4,
    Pausing = 5,
}

/// A process in a task's control group.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessInfo {
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// [`crate::options::ProcessDetails`] for the first of a further process, nothing otherwise.
    #[prost(message, optional, tag = "2")]
    pub info: Option<Any>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub os: String,
    #[prost(string, tag = "2")]
    pub architecture: String,
    #[prost(string, tag = "3")]
    pub variant: String,
    #[prost(string, tag = "4")]
    pub os_version: String,
    #[prost(string, repeated, tag = "5")]
    pub os_features: Vec<String>,
}

/// What was measured of something, and when.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub id: String,
    /// [`crate::metrics_v1::Metrics`] or [`crate::metrics_v2::Metrics`].
    #[prost(message, optional, tag = "3")]
    pub data: Option<Any>,
}

/// What `-info` prints.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub version: Option<RuntimeVersion>,
    /// The options that came on standard input.
    #[prost(message, optional, tag = "3")]
    pub options: Option<Any>,
    /// [`crate::OCI_FEATURES`].
    #[prost(message, optional, tag = "4")]
    pub features: Option<Any>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RuntimeVersion {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(string, tag = "2")]
    pub revision: String,
}

named! { "containerd.types" => Mount, Platform, Metric, RuntimeInfo, RuntimeVersion }

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_survives(ns: i64) {
            let time = Timestamp::from_ns(ns);
            prop_assert_eq!(time.as_ns(), ns);
            prop_assert!((0..1_000_000_000).contains(&time.nanos));
        }
    }

    #[test]
    fn an_absurd_time_is_no_panic() {
        assert_eq!(Timestamp { seconds: i64::MAX, nanos: i32::MAX }.as_ns(), i64::MAX);
        assert_eq!(Timestamp { seconds: i64::MIN, nanos: -1 }.as_ns(), i64::MIN);
    }
}
