//! What the commands answer in JSON and YAML: our own names, stable, independent of the protocol's messages.

use super::human::rfc3339;
use cri::runtime_v1 as cri_v1;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A container as `ps` lists it.
pub(crate) fn container(container: &cri_v1::Container, pod: Option<&cri_v1::PodSandbox>) -> Value {
    let metadata = container.metadata.clone().unwrap_or_default();
    json!({
        "id": container.id,
        "name": metadata.name,
        "attempt": metadata.attempt,
        "state": container_state(container.state),
        "createdAt": rfc3339(container.created_at),
        "image": image_name(container.image.as_ref(), &container.image_ref),
        "imageId": container.image_id,
        "podId": container.pod_sandbox_id,
        "podName": pod.map(super::inventory::pod_name),
        "labels": container.labels,
        "annotations": container.annotations,
    })
}

/// A pod as `pods` lists it.
pub(crate) fn pod(pod: &cri_v1::PodSandbox) -> Value {
    let metadata = pod.metadata.clone().unwrap_or_default();
    json!({
        "id": pod.id,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "attempt": metadata.attempt,
        "state": pod_state(pod.state),
        "createdAt": rfc3339(pod.created_at),
        "runtimeHandler": pod.runtime_handler,
        "labels": pod.labels,
        "annotations": pod.annotations,
    })
}

/// An image as `images` lists it.
pub(crate) fn image(image: &cri_v1::Image) -> Value {
    json!({
        "id": image.id,
        "tags": image.repo_tags,
        "digests": image.repo_digests,
        "sizeBytes": image.size,
        "uid": image.uid.map(|uid| uid.value),
        "username": image.username,
        "pinned": image.pinned,
    })
}

/// A container with everything its status says.
pub(crate) fn container_status(answer: &cri_v1::ContainerStatusResponse, pod_id: &str) -> Value {
    let status = answer.status.clone().unwrap_or_default();
    let metadata = status.metadata.clone().unwrap_or_default();
    json!({
        "kind": "container",
        "id": status.id,
        "name": metadata.name,
        "attempt": metadata.attempt,
        "podId": pod_id,
        "state": container_state(status.state),
        "createdAt": rfc3339(status.created_at),
        "startedAt": rfc3339(status.started_at),
        "finishedAt": rfc3339(status.finished_at),
        "exitCode": (status.state == cri_v1::ContainerState::ContainerExited as i32).then_some(status.exit_code),
        "reason": status.reason,
        "message": status.message,
        "image": image_name(status.image.as_ref(), &status.image_ref),
        "imageId": status.image_id,
        "logPath": status.log_path,
        "mounts": status.mounts.iter().map(mount).collect::<Vec<_>>(),
        "resources": status.resources.and_then(|resources| resources.linux).map(|linux| resources(&linux)),
        "user": status.user.and_then(|user| user.linux).map(|user| json!({
            "uid": user.uid, "gid": user.gid, "supplementalGroups": user.supplemental_groups,
        })),
        "labels": status.labels,
        "annotations": status.annotations,
        "info": info(&answer.info),
    })
}

/// A pod with everything its status says.
pub(crate) fn pod_status(answer: &cri_v1::PodSandboxStatusResponse) -> Value {
    let status = answer.status.clone().unwrap_or_default();
    let metadata = status.metadata.clone().unwrap_or_default();
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    let namespaces =
        status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    json!({
        "kind": "pod",
        "id": status.id,
        "name": metadata.name,
        "namespace": metadata.namespace,
        "uid": metadata.uid,
        "attempt": metadata.attempt,
        "state": pod_state(status.state),
        "createdAt": rfc3339(status.created_at),
        "ips": ips.filter(|ip| !ip.is_empty()).collect::<Vec<_>>(),
        "namespaces": namespaces.map(|options| json!({
            "network": namespace_mode(options.network),
            "pid": namespace_mode(options.pid),
            "ipc": namespace_mode(options.ipc),
        })),
        "runtimeHandler": status.runtime_handler,
        "labels": status.labels,
        "annotations": status.annotations,
        "info": info(&answer.info),
    })
}

/// An image with what its status says.
pub(crate) fn image_status(answer: &cri_v1::ImageStatusResponse) -> Value {
    let mut value = image(&answer.image.clone().unwrap_or_default());
    value["kind"] = json!("image");
    value["info"] = info(&answer.info);
    value
}

/// The debugging text of a runtime; values that are JSON are shown as such.
pub(crate) fn info(info: &BTreeMap<String, String>) -> Value {
    let parsed = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    Value::Object(info.iter().map(|(key, text)| (key.clone(), parsed(text))).collect::<Map<_, _>>())
}

/// The name of a container's image: as it was asked for, or else what it was resolved to.
pub(crate) fn image_name(spec: Option<&cri_v1::ImageSpec>, image_ref: &str) -> String {
    let spec = spec.cloned().unwrap_or_default();
    let names = [spec.user_specified_image, spec.image, image_ref.to_owned()];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default()
}

/// The word for a container's state.
pub(crate) fn container_state(state: i32) -> &'static str {
    match cri_v1::ContainerState::try_from(state) {
        Ok(cri_v1::ContainerState::ContainerCreated) => "created",
        Ok(cri_v1::ContainerState::ContainerRunning) => "running",
        Ok(cri_v1::ContainerState::ContainerExited) => "exited",
        Ok(cri_v1::ContainerState::ContainerUnknown) | Err(_) => "unknown",
    }
}

/// The word for a pod's state.
pub(crate) fn pod_state(state: i32) -> &'static str {
    match cri_v1::PodSandboxState::try_from(state) {
        Ok(cri_v1::PodSandboxState::SandboxReady) => "ready",
        Ok(cri_v1::PodSandboxState::SandboxNotready) => "notready",
        Err(_) => "unknown",
    }
}

fn namespace_mode(mode: i32) -> &'static str {
    match cri_v1::NamespaceMode::try_from(mode) {
        Ok(cri_v1::NamespaceMode::Pod) => "pod",
        Ok(cri_v1::NamespaceMode::Container) => "container",
        Ok(cri_v1::NamespaceMode::Node) => "node",
        Ok(cri_v1::NamespaceMode::Target) => "target",
        Err(_) => "unknown",
    }
}

fn mount(mount: &cri_v1::Mount) -> Value {
    json!({
        "containerPath": mount.container_path,
        "hostPath": mount.host_path,
        "readonly": mount.readonly,
        "image": mount.image.as_ref().map(|image| image.image.clone()),
    })
}

fn resources(linux: &cri_v1::LinuxContainerResources) -> Value {
    json!({
        "cpuPeriodMicros": linux.cpu_period,
        "cpuQuotaMicros": linux.cpu_quota,
        "cpuShares": linux.cpu_shares,
        "memoryLimitBytes": linux.memory_limit_in_bytes,
        "swapLimitBytes": linux.memory_swap_limit_in_bytes,
        "oomScoreAdj": linux.oom_score_adj,
        "cpusetCpus": linux.cpuset_cpus,
        "cpusetMems": linux.cpuset_mems,
        "unified": linux.unified,
    })
}
