//! The calls about pods.

use node::{Node, PodLimits};
use tonic::Status;

use super::code::{Coded, status};
use super::{info, now};
use crate::runtime_v1::*;
use crate::translate::filter::PodFilter;
use crate::translate::{self, text};

pub(super) async fn run(node: &Node, request: RunPodSandboxRequest) -> Result<RunPodSandboxResponse, Status> {
    let pod = translate::pod::from_proto(request.config, request.runtime_handler)?;
    let id = node.run_pod(pod).await.map_err(status)?;
    Ok(RunPodSandboxResponse { pod_sandbox_id: id.to_string() })
}

pub(super) async fn stop(
    node: &Node,
    request: StopPodSandboxRequest,
) -> Result<StopPodSandboxResponse, Status> {
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    node.stop_pod(&id).await.map_err(status)?;
    Ok(StopPodSandboxResponse {})
}

pub(super) async fn remove(
    node: &Node,
    request: RemovePodSandboxRequest,
) -> Result<RemovePodSandboxResponse, Status> {
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    node.remove_pod(&id).await.map_err(status)?;
    Ok(RemovePodSandboxResponse {})
}

/// Pod and containers come from one snapshot, so that they belong together; `timestamp` says of when.
pub(super) fn pod_status(
    node: &Node,
    request: PodSandboxStatusRequest,
) -> Result<PodSandboxStatusResponse, Status> {
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let timestamp = now();
    let snapshot = node.snapshot();
    let record = snapshot.pod(&id).map_err(|error| error.status())?;
    let containers = snapshot.containers_of(&record.id);
    Ok(PodSandboxStatusResponse {
        status: Some(translate::status::pod_status(record)),
        info: if request.verbose { info::pod(record) } else { Default::default() },
        containers_statuses: containers.map(|record| translate::status::container_status(record)).collect(),
        timestamp,
    })
}

pub(super) async fn update(
    node: &Node,
    request: UpdatePodSandboxResourcesRequest,
) -> Result<UpdatePodSandboxResourcesResponse, Status> {
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let part = |field: &str, asked: Option<LinuxContainerResources>| {
        let part = asked.map(translate::resources::from_proto).transpose();
        part.map_err(|bad| bad.within(field))
    };
    let change = PodLimits {
        resources: part("resources", request.resources)?,
        overhead: part("overhead", request.overhead)?,
    };
    node.update_pod(&id, change).await.map_err(status)?;
    Ok(UpdatePodSandboxResourcesResponse {})
}

pub(super) fn list(node: &Node, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>, Status> {
    let filter = PodFilter::parse(filter)?;
    let snapshot = node.snapshot();
    let wanted = snapshot.pods.values().filter(|record| filter.admits(record));
    Ok(wanted.map(|record| translate::status::pod_item(record)).collect())
}
