//! What ADD returns: reading it in every version of the specification and writing it in another.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::version::Version;

/// A result in the shape of 1.1, which every older shape converts to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AddResult {
    #[serde(deserialize_with = "null_is_empty")]
    pub interfaces: Vec<Interface>,
    #[serde(deserialize_with = "null_is_empty")]
    pub ips: Vec<Ip>,
    #[serde(deserialize_with = "null_is_empty")]
    pub routes: Vec<Route>,
    #[serde(deserialize_with = "null_is_empty")]
    pub dns: Dns,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The network namespace it is in; empty for the host's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    #[serde(with = "lenient_net")]
    pub address: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub gateway: Option<IpAddr>,
    /// Which of the result's interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    #[serde(with = "lenient_net")]
    pub dst: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "empty_is_none")]
    pub gw: Option<IpAddr>,
    /// `mtu`, `priority` and what later versions add.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty", alias = "servers")]
    pub nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_is_empty")]
    pub domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty", alias = "searches")]
    pub search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub options: Vec<String>,
}

/// A plugin's output is not a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CNI result: {0}")]
pub struct BadResult(pub String);

impl AddResult {
    /// Reads a result of any version; one without `cniVersion` is taken as `assumed`.
    pub fn parse(value: &Value, assumed: Version) -> Result<AddResult, BadResult> {
        let object = value.as_object().ok_or_else(|| BadResult("it is not an object".into()))?;
        let version = match object.get("cniVersion").and_then(Value::as_str) {
            None | Some("") => assumed,
            Some(text) => Version::parse(text)
                .ok_or_else(|| BadResult(format!("its cniVersion {text:?} is not known")))?,
        };
        if version < Version::V0_3_0 {
            return parse_old(object);
        }
        AddResult::deserialize(value).map_err(|error| BadResult(error.to_string()))
    }

    /// The result in the shape that `version` has.
    pub fn to_json(&self, version: Version) -> Value {
        if version < Version::V0_3_0 {
            return self.to_old(version);
        }
        let mut value = serde_json::to_value(self).unwrap_or_else(|_| json!({}));
        value["cniVersion"] = version.as_str().into();
        if version < Version::V1_0
            && let Some(ips) = value["ips"].as_array_mut()
        {
            for (ip, address) in ips.iter_mut().zip(&self.ips) {
                ip["version"] = if address.address.addr().is_ipv4() { "4" } else { "6" }.into();
            }
        }
        value
    }

    fn to_old(&self, version: Version) -> Value {
        let mut value = json!({ "cniVersion": version.as_str(), "dns": self.dns });
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            if let Some(ip) = self.ips.iter().find(|ip| ip.address.addr().is_ipv4() == v4) {
                let routes: Vec<&Route> =
                    self.routes.iter().filter(|r| r.dst.addr().is_ipv4() == v4).collect();
                value[key] = json!({ "ip": ip.address, "gateway": ip.gateway, "routes": routes });
            }
        }
        value
    }
}

/// `ip4` and `ip6` with an address, a gateway and routes each (SPEC 0.2.0).
fn parse_old(object: &Map<String, Value>) -> Result<AddResult, BadResult> {
    #[derive(Deserialize)]
    struct Old {
        #[serde(with = "lenient_net")]
        ip: IpNet,
        #[serde(default, deserialize_with = "empty_is_none")]
        gateway: Option<IpAddr>,
        #[serde(default, deserialize_with = "null_is_empty")]
        routes: Vec<Route>,
    }
    let bad = |error: serde_json::Error| BadResult(error.to_string());
    let mut result = AddResult::default();
    for key in ["ip4", "ip6"] {
        if let Some(value) = object.get(key).filter(|value| !value.is_null()) {
            let old = Old::deserialize(value).map_err(bad)?;
            result.ips.push(Ip { address: old.ip, gateway: old.gateway, interface: None });
            result.routes.extend(old.routes);
        }
    }
    if let Some(dns) = object.get("dns").filter(|value| !value.is_null()) {
        result.dns = Dns::deserialize(dns).map_err(bad)?;
    }
    Ok(result)
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

fn empty_is_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(from)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// An address with a prefix length; one without is taken as a single address.
mod lenient_net {
    use super::{IpAddr, IpNet};
    use serde::Deserialize;

    pub(super) fn serialize<S: serde::Serializer>(net: &IpNet, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(net)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<IpNet, D::Error> {
        let text = String::deserialize(from)?;
        let single = || text.parse::<IpAddr>().map(IpNet::from);
        text.parse()
            .or_else(|_| single())
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is not an address with a prefix length")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_conversion_through_every_version() {
        let value = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "br0"}, {"name": "eth0", "sandbox": "/n", "mac": "aa:bb:cc:dd:ee:ff"}],
            "ips": [{"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 1},
                    {"address": "fd00::5/64", "interface": 1}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.0.1", "priority": 5}],
            "dns": {"nameservers": ["10.0.0.10"]}
        });
        let result = AddResult::parse(&value, Version::V1_0).unwrap();
        for version in Version::ALL {
            let written = result.to_json(version);
            assert_eq!(written["cniVersion"], version.as_str());
            let read = AddResult::parse(&written, Version::V1_0).unwrap();
            assert_eq!(read.ips.len(), 2, "{version}");
            assert_eq!(read.routes, result.routes, "{version}");
            assert_eq!(read.dns, result.dns, "{version}");
            if version >= Version::V0_3_0 {
                assert_eq!(read, result, "{version}");
            }
        }
    }

    #[test]
    fn null_lists_are_empty_and_bad_addresses_are_named() {
        let value = json!({"cniVersion": "0.4.0", "ips": null, "routes": null, "dns": {}});
        assert_eq!(AddResult::parse(&value, Version::V0_4).unwrap(), AddResult::default());
        let value = json!({"cniVersion": "0.4.0", "ips": [{"address": "10.1.0.500/16"}]});
        let error = AddResult::parse(&value, Version::V0_4).unwrap_err();
        assert!(error.to_string().contains("10.1.0.500/16"), "{error}");
        assert!(AddResult::parse(&json!({"cniVersion": "9.0.0"}), Version::V1_0).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
                let _ = AddResult::parse(&value, Version::V1_0);
            }
        }

        #[test]
        fn any_field_values_are_read_or_refused(
            key in "(ips|interfaces|routes|dns|ip4|ip6|cniVersion)",
            inner in "(address|gateway|interface|dst|gw|name|mtu|nameservers|ip)",
            text in "(\"[0-9a-f:./]{0,20}\"|null|-?[0-9]{1,20}|\\[\\]|\\{\\})",
        ) {
            for json in [format!("{{\"{key}\":[{{\"{inner}\":{text}}}]}}"), format!("{{\"{key}\":{{\"{inner}\":{text}}}}}"), format!("{{\"{key}\":{text}}}")] {
                let value: Value = serde_json::from_str(&json).unwrap_or_default();
                for version in Version::ALL {
                    if let Ok(result) = AddResult::parse(&value, version) {
                        result.to_json(version);
                    }
                }
            }
        }
    }
}
