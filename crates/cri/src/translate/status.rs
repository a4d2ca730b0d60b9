//! The node's records as CRI's statuses and list items.

use model::container::Container as Life;
use model::exit::Exit;
use model::pod::Pod;
use node::{ContainerRecord, Event, EventKind, PodRecord};

use super::{container, namespace, pod, resources, signal};
use crate::runtime_v1 as proto;

/// A pod in a list.
pub fn pod_item(record: &PodRecord) -> proto::PodSandbox {
    proto::PodSandbox {
        id: record.id.to_string(),
        metadata: Some(pod::name_to_proto(&record.request.name)),
        state: pod_state(record).into(),
        created_at: record.created_at.nanoseconds(),
        labels: record.request.labels.clone(),
        annotations: record.request.annotations.clone(),
        runtime_handler: record.request.handler.clone(),
    }
}

/// A pod's status.
pub fn pod_status(record: &PodRecord) -> proto::PodSandboxStatus {
    let mut addresses = record.state.addresses.iter().map(ToString::to_string);
    let ip = addresses.next().unwrap_or_default();
    let additional_ips = addresses.map(|ip| proto::PodIp { ip }).collect();
    let options = namespace::to_proto(&record.request.namespaces);
    proto::PodSandboxStatus {
        id: record.id.to_string(),
        metadata: Some(pod::name_to_proto(&record.request.name)),
        state: pod_state(record).into(),
        created_at: record.created_at.nanoseconds(),
        network: Some(proto::PodSandboxNetworkStatus { ip, additional_ips }),
        linux: Some(proto::LinuxPodSandboxStatus {
            namespaces: Some(proto::Namespace { options: Some(options) }),
        }),
        labels: record.request.labels.clone(),
        annotations: record.request.annotations.clone(),
        runtime_handler: record.request.handler.clone(),
    }
}

/// Whether a pod can be used.
pub fn pod_state(record: &PodRecord) -> proto::PodSandboxState {
    match record.state.pod {
        Pod::Ready => proto::PodSandboxState::SandboxReady,
        Pod::Stopped { .. } => proto::PodSandboxState::SandboxNotready,
    }
}

/// Where a container is in its life.
pub fn container_state(record: &ContainerRecord) -> proto::ContainerState {
    match record.state.container {
        Life::Created { .. } => proto::ContainerState::ContainerCreated,
        Life::Running { .. } => proto::ContainerState::ContainerRunning,
        Life::Exited { .. } => proto::ContainerState::ContainerExited,
        Life::Unreadable { .. } => proto::ContainerState::ContainerUnknown,
    }
}

/// A container's name and attempt.
pub fn container_metadata(record: &ContainerRecord) -> proto::ContainerMetadata {
    proto::ContainerMetadata { name: record.request.name.clone(), attempt: record.request.attempt }
}

/// A container in a list.
pub fn container_item(record: &ContainerRecord) -> proto::Container {
    proto::Container {
        id: record.id.to_string(),
        pod_sandbox_id: record.pod.to_string(),
        metadata: Some(container_metadata(record)),
        image: Some(container::image_to_proto(&record.request.image)),
        image_ref: record.facts.image_ref.clone(),
        state: container_state(record).into(),
        created_at: record.created_at.nanoseconds(),
        labels: record.request.labels.clone(),
        annotations: record.request.annotations.clone(),
        image_id: record.facts.image_id.clone(),
    }
}

/// A container's status.
pub fn container_status(record: &ContainerRecord) -> proto::ContainerStatus {
    let ended = ended(&record.state.container);
    let facts = &record.facts;
    let log_path = facts.log_path.as_ref().map(|path| path.to_string_lossy().into_owned());
    proto::ContainerStatus {
        id: record.id.to_string(),
        metadata: Some(container_metadata(record)),
        state: container_state(record).into(),
        created_at: record.created_at.nanoseconds(),
        started_at: record.started_at().nanoseconds(),
        finished_at: ended.finished_at,
        exit_code: ended.exit_code,
        image: Some(container::image_to_proto(&record.request.image)),
        image_ref: facts.image_ref.clone(),
        reason: ended.reason,
        message: ended.message,
        labels: record.request.labels.clone(),
        annotations: record.request.annotations.clone(),
        mounts: container::mounts_to_proto(&record.request.mounts, &facts.volume_images),
        log_path: log_path.unwrap_or_default(),
        resources: Some(proto::ContainerResources {
            linux: Some(resources::to_proto(&record.state.resources)),
            windows: None,
        }),
        image_id: facts.image_id.clone(),
        user: Some(proto::ContainerUser {
            linux: Some(proto::LinuxContainerUser {
                uid: facts.uid.into(),
                gid: facts.gid.into(),
                supplemental_groups: facts.additional_gids.iter().map(|gid| i64::from(*gid)).collect(),
            }),
        }),
        stop_signal: signal::value(facts.stop_signal).into(),
    }
}

/// A step in the life of a pod or a container, with everything that its pod was at that moment.
pub fn event(event: &Event) -> proto::ContainerEventResponse {
    use proto::ContainerEventType as Type;
    let kind = match event.kind {
        EventKind::Created => Type::ContainerCreatedEvent,
        EventKind::Started => Type::ContainerStartedEvent,
        EventKind::Stopped => Type::ContainerStoppedEvent,
        EventKind::Deleted => Type::ContainerDeletedEvent,
    };
    proto::ContainerEventResponse {
        container_id: event.subject.as_str().to_owned(),
        container_event_type: kind.into(),
        created_at: event.at.nanoseconds(),
        pod_sandbox_status: Some(pod_status(&event.pod)),
        containers_statuses: event.containers.iter().map(|record| container_status(record)).collect(),
    }
}

/// What a status says about a container's end; all zero and empty while it has not ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ended {
    finished_at: i64,
    exit_code: i32,
    reason: String,
    message: String,
}

fn ended(life: &Life) -> Ended {
    match life {
        Life::Created { .. } | Life::Running { .. } => Ended::default(),
        Life::Exited { exit, finished_at, .. } => Ended {
            finished_at: finished_at.nanoseconds(),
            exit_code: exit.code(),
            reason: exit.reason().into(),
            message: exit.message().into(),
        },
        Life::Unreadable { why } => {
            let lost = Exit::Lost { why: why.clone() };
            Ended { reason: lost.reason().into(), message: why.clone(), ..Default::default() }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
