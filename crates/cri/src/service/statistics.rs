//! The calls about what containers use.

use node::Node;
use tonic::Status;

use super::code::Coded;
use crate::runtime_v1 as proto;
use crate::translate::filter::ContainerFilter;
use crate::translate::{stats, text};

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

/// Writable layers are in the file system that holds the images.
fn mountpoint(node: &Node) -> String {
    node.images().fs_info().mountpoint.to_string_lossy().into_owned()
}
