//! Pods and containers in NRI's words.

use std::collections::BTreeMap;

use model::container::Container;
use model::id::{ContainerId, PodId};
use model::request::{ContainerRequest, NamespaceMode, PodRequest, Resources};
use nri::api;
use oci_spec::runtime::Spec;

use crate::context::Context;
use crate::record::{ContainerRecord, PodRecord, PodState};

/// A pod.
pub(crate) fn pod_message(
    context: &Context,
    id: &PodId,
    request: &PodRequest,
    state: &PodState,
) -> api::PodSandbox {
    let limits = |asked: &Option<Resources>| limits(context, asked);
    let pid = u32::try_from(state.shim_pid).unwrap_or_default();
    let own = |kind: &str, mode: NamespaceMode| {
        let path =
            (mode != NamespaceMode::Host && pid != 0).then(|| format!("/proc/{pid}/ns/{}", &kind[..3]));
        path.map(|path| api::LinuxNamespace { r#type: kind.into(), path })
    };
    let modes = &request.namespaces;
    let namespaces = [("network", modes.network), ("ipc", modes.ipc), ("uts", modes.network)];
    api::PodSandbox {
        id: id.to_string(),
        name: request.name.name.clone(),
        uid: request.name.uid.clone(),
        namespace: request.name.namespace.clone(),
        labels: request.labels.clone(),
        annotations: request.annotations.clone(),
        runtime_handler: request.handler.clone(),
        linux: Some(api::LinuxPodSandbox {
            pod_overhead: limits(&state.limits.overhead),
            pod_resources: limits(&state.limits.resources),
            cgroup_parent: request.cgroup_parent.clone().unwrap_or_default(),
            cgroups_path: state.cgroup.path.clone(),
            namespaces: namespaces.into_iter().filter_map(|(kind, mode)| own(kind, mode)).collect(),
            resources: limits(&state.limits.resources),
        }),
        pid,
        ips: state.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// Limits; none where none are asked for, or they mean nothing.
pub(crate) fn limits(context: &Context, asked: &Option<Resources>) -> Option<api::LinuxResources> {
    let limits = spec::resources::to_linux(asked.as_ref()?, &context.host).ok()?;
    Some(nri::resources(&limits))
}

impl PodRecord {
    /// The pod in NRI's words.
    pub(crate) fn message(&self, context: &Context) -> api::PodSandbox {
        pod_message(context, &self.id, &self.request, &self.state)
    }
}

/// A container that is made, or being made, of `spec`.
pub(crate) fn container_message(
    id: &ContainerId,
    pod: &PodId,
    request: &ContainerRequest,
    image: (&str, &str),
    spec: &Spec,
) -> api::Container {
    let told = nri::container(spec);
    let mut annotations: BTreeMap<String, String> = request.annotations.clone();
    annotations.extend(told.annotations);
    let (image_id, image_ref) = image;
    api::Container {
        id: id.to_string(),
        pod_sandbox_id: pod.to_string(),
        name: request.name.clone(),
        labels: request.labels.clone(),
        annotations,
        cdi_devices: request.cdi_devices.iter().map(|name| api::CdiDevice { name: name.clone() }).collect(),
        image: Some(api::Image {
            name: request.image.image.clone(),
            digest: image_ref.rsplit_once('@').map(|(_, digest)| digest.to_owned()).unwrap_or_default(),
            config_digest: image_id.to_owned(),
        }),
        ..api::Container { annotations: BTreeMap::new(), ..told }
    }
}

/// A container that there is, with its bundle's spec. What cannot be read of that is left out, as the container is there all the same.
pub(super) fn read(context: &Context, record: &ContainerRecord) -> api::Container {
    let path = context.bundle(&record.pod, &record.id).join("config.json");
    let spec: Option<Spec> = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let image = (record.facts.image_id.as_str(), record.facts.image_ref.as_str());
    let mut message =
        container_message(&record.id, &record.pod, &record.request, image, &spec.unwrap_or_default());
    let limits = spec::resources::to_linux(&record.state.resources, &context.host);
    if let (Some(linux), Ok(limits)) = (message.linux.as_mut(), limits) {
        let now = nri::resources(&limits);
        let resources = linux.resources.get_or_insert_default();
        (resources.cpu, resources.hugepage_limits, resources.unified) =
            (now.cpu, now.hugepage_limits, now.unified);
        if let (Some(memory), Some(now)) = (resources.memory.as_mut(), now.memory) {
            (memory.limit, memory.swap) = (now.limit, now.swap);
        }
    }
    message.created_at = record.created_at.0;
    set_state(&mut message, &record.state.container);
    message
}

/// Where it is in its life.
pub(super) fn set_state(message: &mut api::Container, container: &Container) {
    let pid = |pid: i32| u32::try_from(pid).unwrap_or_default();
    let state = match container {
        Container::Created { pid: init } => {
            message.pid = pid(*init);
            api::ContainerState::ContainerCreated
        }
        Container::Running { pid: init, started_at } => {
            message.pid = pid(*init);
            message.started_at = started_at.0;
            api::ContainerState::ContainerRunning
        }
        Container::Exited { exit, started_at, finished_at } => {
            (message.started_at, message.finished_at) = (started_at.0, finished_at.0);
            message.exit_code = exit.code();
            message.status_reason = exit.reason().to_owned();
            message.status_message = exit.message().to_owned();
            api::ContainerState::ContainerStopped
        }
        Container::Unreadable { why } => {
            message.status_message.clone_from(why);
            api::ContainerState::ContainerUnknown
        }
    };
    message.state = state.into();
}
