//! Changing the limits of a container: all of them or none, and the record follows the kernel.

use std::sync::Arc;

use model::container;
use model::id::ContainerId;
use model::pod::Verdict;
use model::request::Resources;
use nri::api::{Event, LinuxResources};

use crate::actor::{Fact, PodHandle};
use crate::context::{Context, blocking};
use crate::error::{Fault, UpdateError};
use crate::plugins::{self, About};
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;
use crate::snapshot::LookupError;

/// Does what a client asks for, with what plugins make of it.
pub(crate) async fn run(
    context: Arc<Context>,
    record: Arc<ContainerRecord>,
    change: Resources,
    handle: PodHandle,
) -> Result<(), UpdateError> {
    let pass = context.nri.enter().await;
    if !pass.wants(Event::UpdateContainer) && !pass.wants(Event::PostUpdateContainer) {
        return apply(&context, &record.id, change, None, &handle).await;
    }
    let id = record.id.clone();
    let About { pod, container } = About::container(&context, &record).await;
    let asked = spec::resources::to_linux(&change, &context.host)
        .map_err(|source| UpdateError::Spec { id: id.clone(), source: source.into() })?;
    let asked = nri::resources(&asked);
    let (wanted, wishes) = pass
        .update_container(&pod, &container, asked.clone())
        .await
        .map_err(|source| UpdateError::Plugins { id, source })?;
    let change = if wanted == asked {
        change
    } else {
        Resources { oom_score_adj: change.oom_score_adj, ..plugins::to_request(&wanted) }
    };
    apply(&context, &record.id, change, Some(&wanted), &handle).await?;
    pass.post_update(&pod, &container).await;
    drop(pass);
    plugins::fulfil(&context, wishes).await;
    Ok(())
}

/// Has the kernel hold a container to `limits`: by its cgroup, or by the runtime where that is another program, which may keep them elsewhere.
async fn enforce(
    context: &Arc<Context>,
    record: &ContainerRecord,
    handle: &PodHandle,
    limits: oci_spec::runtime::LinuxResources,
) -> Result<(), UpdateError> {
    let id = record.id.clone();
    if let Some(shim) = foreign(context, record, handle) {
        let text = serde_json::to_vec(&limits).map_err(|error| UpdateError::Failed {
            id: id.clone(),
            fault: Fault::Other(error.to_string()),
        })?;
        return shim.client.update(id.as_str(), text).await.map_err(|source| UpdateError::Runtime { source });
    }
    let (host, path) = (context.cgroups.clone(), record.facts.cgroup.clone());
    blocking(move || {
        let cgroup = host
            .open(&path)
            .map_err(|fault| UpdateError::Failed { id: id.clone(), fault: Fault::Cgroup(fault) })?;
        cgroup.apply(&limits).map(drop).map_err(|source| UpdateError::Cgroup { id, source })
    })
    .await
}

/// The shim of a container whose runtime is another program.
fn foreign(context: &Context, record: &ContainerRecord, handle: &PodHandle) -> Option<PodShim> {
    let pod = context.published.load().pods.get(&record.pod).cloned()?;
    let handler = context.handlers.find(&pod.state.handler)?;
    handle.shim.borrow().clone().filter(|_| handler.is_foreign())
}

/// Changes the limits. `beyond`: the same in NRI's words, which has some that CRI has not; those are in force and not recorded.
pub(crate) async fn apply(
    context: &Arc<Context>,
    id: &ContainerId,
    change: Resources,
    beyond: Option<&LinuxResources>,
    handle: &PodHandle,
) -> Result<(), UpdateError> {
    let id = id.clone();
    let _turn = handle.limits.lock().await;
    let Some(record) = context.published.load().containers.get(&id).cloned() else {
        return Err(LookupError::Absent { what: "container", given: id.to_string() }.into());
    };
    let merged = spec::resources::merge(&record.state.resources, &change);
    let mut limits = spec::resources::to_linux(&merged, &context.host)
        .map_err(|source| UpdateError::Spec { id: id.clone(), source: source.into() })?;
    if let Some(beyond) = beyond {
        nri::add_limits(&mut limits, beyond)
            .map_err(|source| UpdateError::Adjusted { id: id.clone(), source })?;
    }
    let before = spec::resources::to_linux(&record.state.resources, &context.host).ok();
    let live = match container::update(&record.state.container) {
        Verdict::Go => true,
        // Its cgroup is gone; the record is what the next reader sees.
        Verdict::AlreadyDone => false,
        Verdict::Refuse(why) => return Err(UpdateError::Refused { id, why }),
    };
    if live {
        enforce(context, &record, handle, limits).await?;
    }
    if let Err(fault) = handle.facts.tell(Fact::Limits(id.clone(), Box::new(merged))).await {
        // The kernel goes back to what the record says.
        if let Some(before) = before.filter(|_| live) {
            let _ = enforce(context, &record, handle, before).await;
        }
        return Err(UpdateError::Failed { id, fault });
    }
    Ok(())
}
