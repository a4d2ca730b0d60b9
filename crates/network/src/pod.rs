//! What a pod asks of its network, and what it gets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::bandwidth::Bandwidth;
use crate::cni::result::{Dns, Interface, Route};

/// A network namespace: the path that plugins are given, and a descriptor of it.
#[derive(Debug)]
pub struct Netns {
    pub path: PathBuf,
    pub fd: OwnedFd,
}

impl Netns {
    /// Opens `path`, for example `/proc/<pid>/ns/net`.
    pub fn open(path: impl Into<PathBuf>) -> std::io::Result<Netns> {
        let path = path.into();
        let fd = std::fs::File::open(&path)?.into();
        Ok(Netns { path, fd })
    }
}

/// A pod that is to be attached to the node's network.
#[derive(Debug)]
pub struct PodNetwork {
    /// The sandbox id; the attachment is known by it.
    pub pod_id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub netns: Netns,
    /// The interface's name inside the pod, `eth0` by custom.
    pub interface: String,
    /// Mappings with `host_port` 0 are left out.
    pub port_mappings: Vec<PortMapping>,
    pub bandwidth: Option<Bandwidth>,
    pub dns: Dns,
    pub annotations: BTreeMap<String, String>,
    pub cgroup_path: String,
    /// Addresses the pod must get, where the plugins can grant them (capability `ips`).
    pub ips: Vec<IpNet>,
    /// The hardware address the pod must get (capability `mac`).
    pub mac: Option<String>,
}

impl PodNetwork {
    /// A pod without host ports or limits, on interface `eth0`.
    pub fn new(pod_id: impl Into<String>, netns: Netns) -> PodNetwork {
        PodNetwork {
            pod_id: pod_id.into(),
            name: String::new(),
            namespace: String::new(),
            uid: String::new(),
            netns,
            interface: "eth0".into(),
            port_mappings: Vec::new(),
            bandwidth: None,
            dns: Dns::default(),
            annotations: BTreeMap::new(),
            cgroup_path: String::new(),
            ips: Vec::new(),
            mac: None,
        }
    }

    /// What the plugins may be given, by capability (CONVENTIONS.md of the CNI project).
    pub(crate) fn runtime_config(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| {
            map.insert(name.into(), value);
        };
        let ports: Vec<&PortMapping> = self.port_mappings.iter().filter(|p| p.host_port != 0).collect();
        if !ports.is_empty() {
            put("portMappings", json!(ports));
        }
        if let Some(bandwidth) = &self.bandwidth {
            put("bandwidth", bandwidth.to_json());
        }
        if self.dns != Dns::default() {
            let Dns { nameservers, search, options, .. } = &self.dns;
            put("dns", json!({ "servers": nameservers, "searches": search, "options": options }));
        }
        if !self.ips.is_empty() {
            put("ips", json!(self.ips));
        }
        if let Some(mac) = &self.mac {
            put("mac", json!(mac));
        }
        if !self.cgroup_path.is_empty() {
            put("cgroupPath", json!(self.cgroup_path));
        }
        if !self.annotations.is_empty() {
            put("io.kubernetes.cri.pod-annotations", json!(self.annotations));
        }
        map
    }
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[serde(alias = "TCP", alias = "")]
    Tcp,
    #[serde(alias = "UDP")]
    Udp,
    #[serde(alias = "SCTP")]
    Sctp,
}

impl Protocol {
    /// Its number in the IP header (RFC 1700 and successors).
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    pub host_port: u16,
    pub container_port: u16,
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The host's address it is limited to; `None` and unspecified addresses mean all of them.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none", with = "optional_ip")]
    pub host_ip: Option<IpAddr>,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

mod optional_ip {
    use super::IpAddr;
    use serde::{Deserialize, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(ip: &Option<IpAddr>, to: S) -> Result<S::Ok, S::Error> {
        ip.serialize(to)
    }

    /// An empty string is what runtimes write for "no address".
    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
        match Option::<String>::deserialize(from)?.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
        }
    }
}

/// A pod's place in the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// The pod's addresses on its interface, in the order of the result; never empty.
    pub ips: Vec<IpAddr>,
    pub interfaces: Vec<Interface>,
    pub routes: Vec<Route>,
    pub dns: Dns,
    /// The result as the last plugin gave it.
    pub result: Value,
}
