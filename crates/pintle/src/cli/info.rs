//! `pintle info`: whether the runtime is ready, and what it works with.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::decimal_bytes;
use super::output::{OutputArgs, printable, show};
use super::view;
use cri::runtime_v1 as cri_v1;
use serde_json::{Value, json};
use std::fmt::Write;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let status = client.runtime().status(cri_v1::StatusRequest { verbose: true }).await;
    let status = status.explain(|| "asking for the runtime's status".into())?;
    let version = client.runtime().version(cri_v1::VersionRequest { version: String::new() }).await;
    let version = version.explain(|| "asking for the runtime's version".into())?;
    let (pods, containers, images) =
        tokio::try_join!(client.list_pods(), client.list_containers(), client.list_images())?;
    let filesystems = client.images().image_fs_info(cri_v1::ImageFsInfoRequest {}).await;
    let filesystems = filesystems.map(|answer| answer.into_inner().image_filesystems).unwrap_or_default();
    let config = client.runtime().runtime_config(cri_v1::RuntimeConfigRequest {}).await.ok();
    let cgroup_driver =
        config.and_then(|answer| answer.into_inner().linux).map(|linux| cgroup_driver(&linux));
    let node = client.node().info(cri::node_v1::InfoRequest {}).await.ok().map(tonic::Response::into_inner);
    let running = containers.iter().filter(|c| view::container_state(c.state) == "running").count();
    let value = json!({
        "endpoint": client.endpoint().to_string(),
        "runtime": { "name": version.runtime_name, "version": version.runtime_version },
        "conditions": status.status.unwrap_or_default().conditions.iter().map(|condition| json!({
            "type": condition.r#type, "status": condition.status,
            "reason": condition.reason, "message": condition.message,
        })).collect::<Vec<_>>(),
        "handlers": status.runtime_handlers.iter().map(handler).collect::<Vec<_>>(),
        "cgroupDriver": cgroup_driver,
        "pods": pods.len(),
        "containers": { "total": containers.len(), "running": running },
        "images": { "count": images.len(), "sizeBytes": images.iter().map(|image| image.size).sum::<u64>() },
        "imageFilesystems": filesystems.iter().map(filesystem).collect::<Vec<_>>(),
        "node": node.map(|node| json!({
            "rootDir": node.root_dir, "stateDir": node.state_dir,
            "cgroupLayout": node.cgroup_layout, "facts": node.facts,
        })),
        "info": view::info(&status.info),
    });
    show(args.output.output, &value, || text(&value))
}

fn cgroup_driver(linux: &cri_v1::LinuxRuntimeConfiguration) -> &'static str {
    match cri_v1::CgroupDriver::try_from(linux.cgroup_driver) {
        Ok(cri_v1::CgroupDriver::Systemd) => "systemd",
        Ok(cri_v1::CgroupDriver::Cgroupfs) => "cgroupfs",
        Err(_) => "unknown",
    }
}

fn handler(handler: &cri_v1::RuntimeHandler) -> Value {
    let features = handler.features.unwrap_or_default();
    json!({
        "name": handler.name,
        "recursiveReadOnlyMounts": features.recursive_read_only_mounts,
        "userNamespaces": features.user_namespaces,
    })
}

fn filesystem(usage: &cri_v1::FilesystemUsage) -> Value {
    json!({
        "mountpoint": usage.fs_id.as_ref().map(|id| &id.mountpoint),
        "usedBytes": usage.used_bytes.map(|used| used.value),
        "inodesUsed": usage.inodes_used.map(|used| used.value),
    })
}

/// The same for a reader: what is wrong stands first and in words.
fn text(value: &Value) -> String {
    let mut out = String::new();
    let word = |value: &Value| printable(value.as_str().unwrap_or("-"));
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{:<18}{text}", format!("{name}:"));
    };
    line("Runtime", format!("{} {}", word(&value["runtime"]["name"]), word(&value["runtime"]["version"])));
    line("Endpoint", word(&value["endpoint"]));
    for condition in value["conditions"].as_array().into_iter().flatten() {
        let state = match condition["status"].as_bool() {
            Some(true) => "yes".to_owned(),
            _ => format!("NO: {} {}", word(&condition["reason"]), word(&condition["message"])),
        };
        line(&word(&condition["type"]), state);
    }
    line("Pods", value["pods"].to_string());
    let containers = &value["containers"];
    line("Containers", format!("{} ({} running)", containers["total"], containers["running"]));
    let images = &value["images"];
    line(
        "Images",
        format!("{} ({})", images["count"], decimal_bytes(images["sizeBytes"].as_u64().unwrap_or(0))),
    );
    for filesystem in value["imageFilesystems"].as_array().into_iter().flatten() {
        let used = decimal_bytes(filesystem["usedBytes"].as_u64().unwrap_or(0));
        line("Image storage", format!("{} ({used} used)", word(&filesystem["mountpoint"])));
    }
    line("Cgroup driver", word(&value["cgroupDriver"]));
    for handler in value["handlers"].as_array().into_iter().flatten() {
        let name = match word(&handler["name"]) {
            name if name.is_empty() => "(default)".to_owned(),
            name => name,
        };
        let has = |key: &str, what| handler[key].as_bool().unwrap_or(false).then_some(what);
        let features = [
            has("userNamespaces", "user namespaces"),
            has("recursiveReadOnlyMounts", "recursive read-only mounts"),
        ];
        let features: Vec<&str> = features.into_iter().flatten().collect();
        let features = if features.is_empty() { "no features".to_owned() } else { features.join(", ") };
        line("Handler", format!("{name} ({features})"));
    }
    let node = &value["node"];
    if node.is_object() {
        line("Root directory", word(&node["rootDir"]));
        line("State directory", word(&node["stateDir"]));
        line("Cgroup layout", word(&node["cgroupLayout"]));
        for (name, fact) in node["facts"].as_object().into_iter().flatten() {
            line(&printable(name), word(fact));
        }
    }
    out
}
