//! What a status says when it is asked to be verbose: JSON for people and tools, promised to nobody.

use std::collections::BTreeMap;

use model::container::Container as Life;
use node::{CgroupDriver, ContainerRecord, Node, PodRecord};
use serde_json::{Value, json};

/// The map of a status: one entry, as tools know it from other runtimes.
pub(super) type Info = BTreeMap<String, String>;

fn one(key: &str, value: &Value) -> Info {
    [(key.to_owned(), value.to_string())].into()
}

pub(super) fn pod(record: &PodRecord) -> Info {
    let value = json!({
        "pid": record.state.shim_pid,
        "cgroup": record.state.cgroup.path,
        "networkOwed": record.state.network_owed,
        "resources": record.state.limits.resources,
        "overhead": record.state.limits.overhead,
        "config": *record.request,
    });
    one("info", &value)
}

/// Reads the container's spec from its bundle: from tmpfs, and only when asked to be verbose.
pub(super) fn container(node: &Node, record: &ContainerRecord) -> Info {
    let pid = match record.state.container {
        Life::Created { pid } | Life::Running { pid, .. } => pid,
        Life::Exited { .. } | Life::Unreadable { .. } => 0,
    };
    let spec = std::fs::read(node.bundle(record).join("config.json")).ok();
    let spec: Option<Value> = spec.and_then(|text| serde_json::from_slice(&text).ok());
    let value = json!({
        "sandboxID": record.pod,
        "pid": pid,
        "cgroup": record.facts.cgroup,
        "config": *record.request,
        "runtimeSpec": spec,
    });
    one("info", &value)
}

pub(super) fn image(image: &image::Image) -> Info {
    let config = &image.config;
    let value = json!({
        "id": image.id.to_string(),
        "created": image.created,
        "layers": image.layers,
        "imageSpec": {
            "config": {
                "User": config.user,
                "Env": config.env,
                "Entrypoint": config.entrypoint,
                "Cmd": config.cmd,
                "WorkingDir": config.working_dir,
                "Labels": config.labels,
                "StopSignal": config.stop_signal,
            },
        },
    });
    one("info", &value)
}

pub(super) fn daemon(node: &Node) -> Info {
    let config = node.config();
    let value = json!({
        "stateDir": config.state_dir,
        "imageRoot": node.images().fs_info().mountpoint,
        "systemdCgroup": config.cgroup_driver == CgroupDriver::Systemd,
        "version": env!("CARGO_PKG_VERSION"),
    });
    one("config", &value)
}
