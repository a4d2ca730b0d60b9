//! What plugins want of containers that exist: other limits, or their end.

use std::sync::Arc;
use std::time::Duration;

use model::id::ContainerId;
use model::request::Resources;
use nri::Wishes;
use nri::api::{ContainerEviction, ContainerUpdate, LinuxResources};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::actor::Command;
use crate::context::Context;
use crate::update;

/// How long an evicted container may take to end in good order.
const EVICTION_GRACE: Duration = Duration::from_secs(10);

/// Changes limits and begins evictions. Returns the updates that failed and were not allowed to.
pub(crate) async fn fulfil(context: &Arc<Context>, wanted: Wishes) -> Vec<ContainerUpdate> {
    let mut failed = Vec::new();
    for update in wanted.updates {
        if let Err(why) = apply(context, &update).await {
            warn!(container = update.container_id, why, "an update that an NRI plugin wants cannot be made");
            if !update.ignore_failure {
                failed.push(update);
            }
        }
    }
    for eviction in wanted.evictions {
        evict(context, eviction);
    }
    failed
}

async fn apply(context: &Arc<Context>, update: &ContainerUpdate) -> Result<(), String> {
    let Some(resources) = update.linux.as_ref().and_then(|linux| linux.resources.as_ref()) else {
        return Ok(());
    };
    let record = ContainerId::parse(&update.container_id)
        .ok()
        .and_then(|id| context.published.load().containers.get(&id).cloned())
        .ok_or("there is no such container")?;
    let handle = context.handle(&record.pod).ok_or("its pod is gone")?;
    let change = to_request(resources);
    update::apply(context, &record.id, change, Some(resources), &handle).await.map_err(|why| why.to_string())
}

fn evict(context: &Arc<Context>, eviction: ContainerEviction) {
    let shown: String = eviction.container_id.chars().take(model::id::ID_DIGITS).collect();
    let found = ContainerId::parse(&eviction.container_id)
        .ok()
        .and_then(|id| context.published.load().containers.get(&id).cloned());
    let Some((record, handle)) =
        found.and_then(|record| Some((record.clone(), context.handle(&record.pod)?)))
    else {
        warn!(container = shown, "an NRI plugin evicts a container that is not there");
        return;
    };
    info!(container = shown, reason = eviction.reason, "a container is stopped, as an NRI plugin evicts it");
    tokio::spawn(async move {
        let (reply, begun) = oneshot::channel();
        let stop = Command::StopContainer { id: record.id.clone(), timeout: EVICTION_GRACE, reply };
        if handle.command(stop).await.is_none() {
            return;
        }
        let Ok(operation) = begun.await else { return };
        if let Some(Err(error)) = operation.result().await {
            warn!(container = %record.id, %error, "an evicted container could not be stopped");
        }
    });
}

/// What CRI has words for. What it has none for goes to the control group only.
pub(crate) fn to_request(wanted: &LinuxResources) -> Resources {
    let mut request = Resources::default();
    let positive = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    if let Some(memory) = &wanted.memory {
        request.memory_limit_bytes = memory.limit.as_ref().map_or(0, |limit| limit.value);
        request.memory_swap_limit_bytes = memory.swap.as_ref().map_or(0, |swap| swap.value);
    }
    if let Some(cpu) = &wanted.cpu {
        request.cpu_period_us = cpu.period.as_ref().map_or(0, |period| positive(period.value));
        request.cpu_quota_us = cpu.quota.as_ref().map_or(0, |quota| quota.value);
        request.cpu_shares = cpu.shares.as_ref().map_or(0, |shares| positive(shares.value));
        request.cpuset_cpus.clone_from(&cpu.cpus);
        request.cpuset_mems.clone_from(&cpu.mems);
    }
    request.hugepage_limits =
        wanted.hugepage_limits.iter().map(|page| (page.page_size.clone(), page.limit)).collect();
    request.unified.clone_from(&wanted.unified);
    request
}
