//! The configuration that `pintle network init` writes.

use ipnet::IpNet;
use serde_json::json;

use crate::plugin;

/// What may be chosen about the default network.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The network's name.
    pub name: String,
    pub bridge: String,
    /// Where pods get their addresses from; empty means the pod CIDR that the kubelet tells.
    pub subnets: Vec<IpNet>,
    pub mtu: Option<u32>,
}

impl Default for Defaults {
    /// Works without a kubelet: a private IPv4 network behind the bridge `pintle0`.
    fn default() -> Defaults {
        let subnet = IpNet::V4(ipnet::Ipv4Net::new_assert([10, 88, 0, 0].into(), 16));
        Defaults { name: "pintle".into(), bridge: "pintle0".into(), subnets: vec![subnet], mtu: None }
    }
}

/// The configuration list for a node, as the text of `/etc/cni/net.d/10-pintle.conflist`.
pub fn default_configuration(defaults: &Defaults) -> String {
    let subnets: Vec<String> = match defaults.subnets.as_slice() {
        [] => vec!["{podCIDR}".into()],
        subnets => subnets.iter().map(|net| net.to_string()).collect(),
    };
    let mut plugin = json!({
        "type": plugin::TYPE,
        "bridge": defaults.bridge,
        "subnets": subnets,
        "ipMasq": true,
        "capabilities": { "portMappings": true, "bandwidth": true, "ips": true, "mac": true, "dns": true },
    });
    if let Some(mtu) = defaults.mtu {
        plugin["mtu"] = mtu.into();
    }
    let list = json!({ "cniVersion": "1.1.0", "name": defaults.name, "plugins": [plugin] });
    let mut text = serde_json::to_string_pretty(&list).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::NetworkList;

    #[test]
    fn the_default_is_a_good_configuration() {
        let list = NetworkList::parse(default_configuration(&Defaults::default()).as_bytes()).unwrap();
        assert_eq!((list.name.as_str(), list.plugins[0].kind.as_str()), ("pintle", plugin::TYPE));
        let cidr = default_configuration(&Defaults { subnets: Vec::new(), ..Defaults::default() });
        assert!(cidr.contains("{podCIDR}"));
    }
}
