//! The calls about what pods and containers use.

use node::Node;
use tonic::Status;

use super::code::Coded;
use crate::runtime_v1 as proto;
use crate::translate::filter::{ContainerFilter, PodFilter};
use crate::translate::{metrics, stats, text};

pub(super) async fn one(
    node: &Node,
    request: proto::ContainerStatsRequest,
) -> Result<proto::ContainerStatsResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    let found = node.container_stats(&id).await.map_err(|error| error.status())?;
    Ok(proto::ContainerStatsResponse { stats: Some(stats::container(&found, &mountpoint(node))) })
}

pub(super) async fn list(
    node: &Node,
    filter: Option<proto::ContainerStatsFilter>,
) -> Vec<proto::ContainerStats> {
    let filter = ContainerFilter::of_stats(filter);
    let found = node.list_container_stats(|record| filter.admits(record)).await;
    let mountpoint = mountpoint(node);
    found.iter().map(|found| stats::container(found, &mountpoint)).collect()
}

pub(super) async fn one_pod(
    node: &Node,
    request: proto::PodSandboxStatsRequest,
) -> Result<proto::PodSandboxStatsResponse, Status> {
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let found = node.pod_stats(&id).await.map_err(|error| error.status())?;
    Ok(proto::PodSandboxStatsResponse { stats: Some(stats::pod(&found, &mountpoint(node))) })
}

pub(super) async fn list_pods(
    node: &Node,
    filter: Option<proto::PodSandboxStatsFilter>,
) -> Vec<proto::PodSandboxStats> {
    let filter = PodFilter::of_stats(filter);
    let found = node.list_pod_stats(|record| filter.admits(record)).await;
    let mountpoint = mountpoint(node);
    found.iter().map(|found| stats::pod(found, &mountpoint)).collect()
}

pub(super) fn descriptors(node: &Node) -> Vec<proto::MetricDescriptor> {
    let cgroups = node.cgroups();
    let (version2, huge_pages) =
        (cgroups.mode() == cgroup::Mode::V2, cgroups.has(cgroup::Controller::Hugetlb));
    metrics::descriptors(metrics::Here { version2, huge_pages })
}

pub(super) async fn metrics(node: &Node) -> Vec<proto::PodSandboxMetrics> {
    metrics::pods(&node.measure().await)
}

/// The file system that writable layers are in.
fn mountpoint(node: &Node) -> String {
    node.images().containers_path().to_string_lossy().into_owned()
}
