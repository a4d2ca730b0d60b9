//! The built-in plugin's configuration.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::bandwidth::Bandwidth;
use crate::cni::config::is_plain_name;
use crate::cni::error::{CniError, code};
use crate::cni::result::{Dns, Route};
use crate::cni::version::Version;
use crate::kernel::link::{Mac, parse_mac};
use crate::pod::PortMapping;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) version: Version,
    pub(crate) bridge: String,
    pub(crate) subnets: Vec<Subnet>,
    /// Besides the default route, which every family gets unless a route to everywhere is listed.
    pub(crate) routes: Vec<Route>,
    /// Whether traffic that leaves the network gets the host's address.
    pub(crate) masquerade: bool,
    pub(crate) hairpin: bool,
    pub(crate) mtu: Option<u32>,
    /// The folder of all of the plugin's networks.
    pub(crate) state_dir: PathBuf,
    pub(crate) dns: Dns,
    pub(crate) runtime: Runtime,
    pub(crate) previous: Option<Value>,
    /// Id and interface of each attachment that GC must keep.
    pub(crate) valid: Option<Vec<(String, String)>>,
}

/// A range of addresses and the host's address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    pub(crate) net: IpNet,
    pub(crate) gateway: IpAddr,
}

/// What one pod asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Runtime {
    pub(crate) ports: Vec<PortMapping>,
    pub(crate) bandwidth: Bandwidth,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) mac: Option<Mac>,
    pub(crate) dns: Option<Dns>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    cni_version: String,
    name: String,
    #[serde(default = "default_bridge")]
    bridge: String,
    #[serde(default)]
    subnets: Vec<String>,
    #[serde(default)]
    gateways: Vec<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default = "yes")]
    ip_masq: bool,
    #[serde(default = "yes")]
    hairpin_mode: bool,
    mtu: Option<u32>,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    runtime_config: RawRuntime,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<RawAttachment>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    port_mappings: Vec<PortMapping>,
    bandwidth: Bandwidth,
    ips: Vec<String>,
    mac: Option<String>,
    dns: Option<Dns>,
}

#[derive(Deserialize)]
struct RawAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

fn default_bridge() -> String {
    "pintle0".into()
}

fn default_state_dir() -> PathBuf {
    "/run/pintle/network".into()
}

fn yes() -> bool {
    true
}

fn bad(message: String) -> CniError {
    CniError::new(code::BAD_CONFIGURATION, message)
}

impl Config {
    /// Reads and checks what came on standard input.
    pub(crate) fn parse(value: &Value) -> Result<Config, CniError> {
        let raw = Raw::deserialize(value)
            .map_err(|error| CniError::new(code::DECODE, format!("network configuration: {error}")))?;
        let version = Version::parse(&raw.cni_version)
            .filter(|version| super::VERSIONS.contains(version))
            .ok_or_else(|| {
                CniError::new(
                    code::INCOMPATIBLE_VERSION,
                    format!("cniVersion {:?} is not one of {}", raw.cni_version, super::versions_text()),
                )
            })?;
        if !is_plain_name(&raw.name) {
            return Err(bad(format!("network name {:?} is not a plain name", raw.name)));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let bridge = &raw.bridge;
        if bridge.is_empty() || bridge.len() > 15 || bridge.starts_with('.') || !bridge.chars().all(plain) {
            return Err(bad(format!("bridge {bridge:?} is not an interface name of at most 15 letters")));
        }
        if raw.mtu.is_some_and(|mtu| !(576..=65535).contains(&mtu)) {
            return Err(bad(format!("mtu {} is not between 576 and 65535", raw.mtu.unwrap_or(0))));
        }
        if !raw.state_dir.is_absolute() {
            return Err(bad(format!("stateDir {} is not absolute", raw.state_dir.display())));
        }
        let runtime = runtime(raw.runtime_config)?;
        let attachments =
            |list: Vec<RawAttachment>| list.into_iter().map(|a| (a.container_id, a.ifname)).collect();
        Ok(Config {
            version,
            subnets: subnets(&raw.subnets, &raw.gateways)?,
            name: raw.name,
            bridge: raw.bridge,
            routes: raw.routes,
            masquerade: raw.ip_masq,
            hairpin: raw.hairpin_mode,
            mtu: raw.mtu,
            state_dir: raw.state_dir,
            dns: raw.dns,
            runtime,
            previous: raw.prev_result,
            valid: raw.valid.map(attachments),
        })
    }

    pub(crate) fn has_family(&self, v4: bool) -> bool {
        self.subnets.iter().any(|subnet| subnet.gateway.is_ipv4() == v4)
    }
}

fn subnets(texts: &[String], gateways: &[IpAddr]) -> Result<Vec<Subnet>, CniError> {
    let mut subnets: Vec<Subnet> = Vec::new();
    for text in texts {
        let net: IpNet = text.parse().map_err(|_| {
            bad(format!("subnet {text:?} is not an address with a prefix length, such as 10.88.0.0/16"))
        })?;
        let net = net.trunc();
        let bits = net.max_prefix_len() - net.prefix_len();
        if bits < 2 || net.prefix_len() == 0 {
            return Err(bad(format!("subnet {net} has no room for a gateway and pods")));
        }
        if let Some(other) = subnets.iter().find(|s| s.net.contains(&net) || net.contains(&s.net)) {
            return Err(bad(format!("subnets {} and {net} overlap", other.net)));
        }
        let gateway = gateways.iter().copied().find(|gateway| net.contains(gateway));
        let gateway = gateway.unwrap_or_else(|| super::ipam::first_address(net));
        subnets.push(Subnet { net, gateway });
    }
    match gateways.iter().find(|gateway| !subnets.iter().any(|s| s.gateway == **gateway)) {
        Some(gateway) => Err(bad(format!("gateway {gateway} is in none of the subnets"))),
        None if subnets.len() > 8 => Err(bad("more than 8 subnets".into())),
        None => Ok(subnets),
    }
}

fn runtime(raw: RawRuntime) -> Result<Runtime, CniError> {
    let ip = |text: &String| {
        let plain = text.split_once('/').map_or(text.as_str(), |(ip, _)| ip);
        plain.parse().map_err(|_| bad(format!("requested address {text:?} is not an IP address")))
    };
    let mac = match &raw.mac {
        None => None,
        Some(text) => Some(
            parse_mac(text)
                .ok_or_else(|| bad(format!("requested mac {text:?} is not a unicast hardware address")))?,
        ),
    };
    let mut ports: Vec<PortMapping> = raw.port_mappings.into_iter().filter(|p| p.host_port != 0).collect();
    if let Some(port) = ports.iter().find(|port| port.container_port == 0) {
        return Err(bad(format!("host port {} leads to container port 0", port.host_port)));
    }
    for port in &mut ports {
        port.host_ip = port.host_ip.filter(|ip| !ip.is_unspecified());
    }
    ports.sort();
    ports.dedup();
    Ok(Runtime {
        ports,
        bandwidth: raw.bandwidth,
        ips: raw.ips.iter().map(ip).collect::<Result<_, _>>()?,
        mac,
        dns: raw.dns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_are_named() {
        for (change, expected) in [
            (json!({"cniVersion": "0.2.0"}), "0.2.0"),
            (json!({"bridge": "a/b"}), "a/b"),
            (json!({"subnets": ["10.0.0.0/31"]}), "no room"),
            (json!({"subnets": ["10.0.0.0"]}), "prefix length"),
            (json!({"subnets": ["10.0.0.0/8", "10.1.0.0/16"]}), "overlap"),
            (json!({"gateways": ["192.0.2.1"]}), "192.0.2.1"),
            (json!({"mtu": 10}), "mtu 10"),
            (json!({"stateDir": "run"}), "absolute"),
            (json!({"runtimeConfig": {"mac": "01:00:00:00:00:01"}}), "unicast"),
            (json!({"runtimeConfig": {"ips": ["x"]}}), "\"x\""),
            (json!({"runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 70000}]}}), "70000"),
        ] {
            let mut value = json!({"cniVersion": "1.0.0", "name": "n", "subnets": ["10.9.0.0/24"]});
            for (key, entry) in change.as_object().unwrap() {
                value[key] = entry.clone();
            }
            let error = Config::parse(&value).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn host_addresses_that_mean_everywhere_are_none() {
        let value = json!({"cniVersion": "1.0.0", "name": "n", "runtimeConfig": {"portMappings": [
            {"hostPort": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": ""},
            {"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "0.0.0.0"},
            {"hostPort": 0, "containerPort": 1, "protocol": "udp"}]}});
        let config = Config::parse(&value).unwrap();
        assert_eq!(config.runtime.ports.len(), 1);
        assert_eq!(config.runtime.ports[0].host_ip, None);
    }

    proptest::proptest! {
        #[test]
        fn any_value_is_parsed_or_refused(
            key in "(subnets|gateways|bridge|mtu|routes|dns|runtimeConfig|stateDir|ipMasq)",
            text in "(\"[0-9a-f:./]{0,20}\"|null|-?[0-9]{1,20}|true|\\[\"[0-9./:]{0,12}\"\\]|\\{\"ips\":\\[\"[0-9/.]{0,9}\"\\]\\})",
        ) {
            let json = format!("{{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"{key}\":{text}}}");
            if let Ok(value) = serde_json::from_str(&json) {
                let _ = Config::parse(&value);
            }
        }
    }
}
