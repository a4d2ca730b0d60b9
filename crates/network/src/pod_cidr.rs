//! The pod CIDR that the kubelet hands out, and its place in a built-in network's configuration.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Value, json};
use sys::file::{Durability, write_atomic};

use crate::cni::config::NetworkList;
use crate::plugin;

/// Stands in `subnets` for what the kubelet says.
const PLACEHOLDER: &str = "{podCIDR}";

/// Parses `10.1.2.0/24` or `10.1.2.0/24,fd00:1::/64`.
pub(crate) fn parse(text: &str) -> Option<Vec<IpNet>> {
    let nets: Option<Vec<IpNet>> = text
        .split(',')
        .map(str::trim)
        .map(|part| part.parse::<IpNet>().ok().map(|net| net.trunc()))
        .collect();
    nets.filter(|nets| !nets.is_empty() && nets.len() <= 8)
}

/// Whether a built-in network of `list` waits for the pod CIDR.
pub(crate) fn wanted(list: &NetworkList) -> bool {
    list.plugins
        .iter()
        .any(|plugin| plugin.kind == plugin::TYPE && takes_pod_cidr(plugin.body.get("subnets")))
}

/// `list` with the pod CIDR in the place of missing subnets and of the placeholder.
pub(crate) fn fill(list: &NetworkList, nets: &[IpNet]) -> NetworkList {
    let mut list = list.clone();
    for plugin in list.plugins.iter_mut().filter(|plugin| plugin.kind == plugin::TYPE) {
        let subnets = plugin.body.get("subnets");
        if takes_pod_cidr(subnets) {
            let mut filled: Vec<Value> = nets.iter().map(|net| json!(net)).collect();
            let others = subnets.and_then(Value::as_array).into_iter().flatten();
            filled.extend(others.filter(|subnet| subnet.as_str() != Some(PLACEHOLDER)).cloned());
            plugin.body.insert("subnets".into(), Value::Array(filled));
        }
    }
    list
}

fn takes_pod_cidr(subnets: Option<&Value>) -> bool {
    match subnets {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => {
            list.is_empty() || list.iter().any(|subnet| subnet.as_str() == Some(PLACEHOLDER))
        }
        Some(_) => false,
    }
}

/// The file that keeps the pod CIDR over a restart: the kubelet says it once.
#[derive(Debug)]
pub(crate) struct Kept(PathBuf);

impl Kept {
    pub(crate) fn in_folder(folder: &Path) -> Kept {
        Kept(folder.join("pod-cidr"))
    }

    /// `None` where nothing was kept, or nothing that can be used.
    pub(crate) fn read(&self) -> Option<Vec<IpNet>> {
        parse(std::fs::read_to_string(&self.0).ok()?.trim())
    }

    pub(crate) fn write(&self, text: &str) -> io::Result<()> {
        if let Some(folder) = self.0.parent() {
            std::fs::create_dir_all(folder)?;
        }
        write_atomic(&self.0, format!("{text}\n").as_bytes(), 0o600, Durability::Disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_network_that_waits_for_it_gets_the_pod_cidr() {
        let nets = parse("10.1.2.7/24, fd00:1::/64").unwrap();
        assert_eq!(nets[0].to_string(), "10.1.2.0/24");
        assert!(parse("").is_none() && parse("10.1.2.0").is_none() && parse("10.0.0.0/24,x").is_none());
        let list = |subnets: &str| {
            NetworkList::parse(
                format!("{{\"name\":\"n\",\"cniVersion\":\"1.0.0\",\"type\":\"pintle\"{subnets}}}")
                    .as_bytes(),
            )
            .unwrap()
        };
        for (subnets, expected) in [
            ("", json!(["10.1.2.0/24", "fd00:1::/64"])),
            (
                r#","subnets":["{podCIDR}","10.9.0.0/24"]"#,
                json!(["10.1.2.0/24", "fd00:1::/64", "10.9.0.0/24"]),
            ),
        ] {
            assert!(wanted(&list(subnets)));
            assert_eq!(fill(&list(subnets), &nets).plugins[0].body["subnets"], expected);
        }
        let own = list(r#","subnets":["10.9.0.0/24"]"#);
        assert!(!wanted(&own));
        assert_eq!(fill(&own, &nets), own);
    }
}
