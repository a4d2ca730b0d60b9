//! One file that describes devices: its form, and what of it is refused.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::name::{is_device, is_kind};

/// The versions that are understood.
const VERSIONS: &[&str] = &["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// The stages at which a container's hooks run.
const STAGES: &[&str] =
    &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// What a file says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Described {
    pub(crate) cdi_version: String,
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// For a container that gets any of them.
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) container_edits: Edits,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Edits {
    pub(crate) env: Vec<String>,
    pub(crate) device_nodes: Vec<DeviceNode>,
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) intel_rdt: Option<Rdt>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DeviceNode {
    pub(crate) path: String,
    pub(crate) host_path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) file_mode: Option<u32>,
    pub(crate) permissions: String,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NetDevice {
    pub(crate) host_interface_name: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Mount {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    pub(crate) options: Vec<String>,
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) timeout: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rdt {
    #[serde(rename = "closID")]
    pub(crate) clos_id: Option<String>,
    #[serde(rename = "l3CacheSchema")]
    pub(crate) l3_cache_schema: Option<String>,
    #[serde(rename = "memBwSchema")]
    pub(crate) mem_bw_schema: Option<String>,
    pub(crate) schemata: Option<Vec<String>>,
    #[serde(rename = "enableMonitoring")]
    pub(crate) enable_monitoring: Option<bool>,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    Json,
    Yaml,
}

/// Reads what a file says.
///
/// # Errors
/// It is not written in that form, or describes what no container can have.
pub(crate) fn parse(text: &str, form: Form) -> Result<Described, String> {
    let described: Described = match form {
        Form::Json => serde_json::from_str(text).map_err(|why| why.to_string())?,
        Form::Yaml => serde_saphyr::from_str(text).map_err(|why| first_line(&why.to_string()))?,
    };
    check(&described)?;
    Ok(described)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn check(described: &Described) -> Result<(), String> {
    let version = described.cdi_version.trim_start_matches('v');
    if !VERSIONS.contains(&version) {
        return Err(format!("cdiVersion {version:?} is none of {}", VERSIONS.join(", ")));
    }
    if !is_kind(&described.kind) {
        return Err(format!("kind {:?} is not of the form vendor.com/class", described.kind));
    }
    if described.devices.is_empty() {
        return Err("there are no devices in it".into());
    }
    check_edits(&described.container_edits).map_err(|why| format!("containerEdits: {why}"))?;
    let mut names = BTreeSet::new();
    for device in &described.devices {
        if !is_device(&device.name) {
            return Err(format!("{:?} is no name of a device", device.name));
        }
        if !names.insert(&device.name) {
            return Err(format!("there are two devices {:?}", device.name));
        }
        check_edits(&device.container_edits).map_err(|why| format!("device {:?}: {why}", device.name))?;
    }
    Ok(())
}

fn absolute(path: &str) -> bool {
    path.starts_with('/') && !path.contains('\0')
}

fn check_edits(edits: &Edits) -> Result<(), String> {
    for line in &edits.env {
        if line.contains('\0') || line.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(format!("env {line:?} is not of the form NAME=value"));
        }
    }
    edits.device_nodes.iter().try_for_each(check_node)?;
    for mount in &edits.mounts {
        if !absolute(&mount.container_path) || mount.host_path.is_empty() {
            let (from, to) = (&mount.host_path, &mount.container_path);
            return Err(format!("mounts: {from:?} at {to:?}: a mount has a source and an absolute path"));
        }
    }
    for hook in &edits.hooks {
        if !STAGES.contains(&hook.hook_name.as_str()) || !absolute(&hook.path) {
            let (path, name, all) = (&hook.path, &hook.hook_name, STAGES.join(", "));
            return Err(format!(
                "hooks: {path:?} of {name:?}: a hook has an absolute path and is one of {all}"
            ));
        }
    }
    let mut interfaces = BTreeSet::new();
    for device in &edits.net_devices {
        if device.host_interface_name.is_empty() || device.name.is_empty() {
            return Err("netDevices: one has no hostInterfaceName or no name".into());
        }
        if !interfaces.insert(&device.host_interface_name) {
            return Err(format!("netDevices: {:?} is there twice", device.host_interface_name));
        }
    }
    Ok(())
}

fn check_node(node: &DeviceNode) -> Result<(), String> {
    let path = &node.path;
    if !absolute(path) || !(node.host_path.is_empty() || absolute(&node.host_path)) {
        return Err(format!("deviceNodes: {path:?} from {:?}: not absolute paths", node.host_path));
    }
    if !["", "b", "c", "u", "p"].contains(&node.kind.as_str()) {
        return Err(format!("deviceNodes: {path}: type {:?} is none of b, c, u and p", node.kind));
    }
    if !node.permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(format!("deviceNodes: {path}: permissions {:?} are not of r, w and m", node.permissions));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YAML: &str = "
cdiVersion: 0.6.0
kind: vendor.com/net
devices:
  - name: eth-0
    containerEdits:
      env: [ 'A=1' ]
      deviceNodes:
        - path: /dev/vfio/1
          type: c
          major: 10
          minor: 200
          permissions: rw
containerEdits:
  hooks:
    - hookName: createContainer
      path: /bin/hook
      timeout: 3
";

    #[test]
    fn both_forms_say_the_same() {
        let yaml = parse(YAML, Form::Yaml).unwrap();
        let json = serde_json::json!({
            "cdiVersion": "0.6.0", "kind": "vendor.com/net",
            "devices": [{ "name": "eth-0", "containerEdits": { "env": ["A=1"], "deviceNodes": [
                { "path": "/dev/vfio/1", "type": "c", "major": 10, "minor": 200, "permissions": "rw" }] } }],
            "containerEdits": { "hooks": [{ "hookName": "createContainer", "path": "/bin/hook", "timeout": 3 }] },
        });
        assert_eq!(parse(&json.to_string(), Form::Json).unwrap(), yaml);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (from, to, names) in [
            ("0.6.0", "9.0.0", "9.0.0"),
            ("vendor.com/net", "vendor.com", "vendor.com"),
            ("eth-0", "eth-", "eth-"),
            ("/dev/vfio/1", "dev", "dev"),
            ("type: c", "type: x", "\"x\""),
            ("permissions: rw", "permissions: rx", "rx"),
            ("createContainer", "sometime", "sometime"),
            ("A=1", "A", "\"A\""),
        ] {
            let error = parse(&YAML.replace(from, to), Form::Yaml).unwrap_err();
            assert!(error.contains(names), "{error} does not name {names}");
        }
    }

    #[test]
    fn a_file_that_grows_when_it_is_read_is_refused() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", ")));
        }
        assert!(parse(&bomb, Form::Yaml).is_err());
    }

    proptest! {
        #[test]
        fn anything_gets_an_answer(text in ".{0,300}") {
            let _ = parse(&text, Form::Yaml);
            let _ = parse(&text, Form::Json);
        }
    }
}
