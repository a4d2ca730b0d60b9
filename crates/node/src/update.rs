//! Changing the limits of a container: all of them or none, and the record follows the kernel.

use std::sync::Arc;

use model::container;
use model::pod::Verdict;
use model::request::Resources;

use crate::actor::{Fact, Facts};
use crate::context::{Context, blocking};
use crate::error::{Fault, UpdateError};
use crate::record::ContainerRecord;

pub(crate) async fn run(
    context: Arc<Context>,
    record: Arc<ContainerRecord>,
    change: Resources,
    facts: Facts,
) -> Result<(), UpdateError> {
    let id = record.id.clone();
    let merged = spec::resources::merge(&record.state.resources, &change);
    let limits = spec::resources::to_linux(&merged, &context.host)
        .map_err(|source| UpdateError::Spec { id: id.clone(), source: source.into() })?;
    let before = spec::resources::to_linux(&record.state.resources, &context.host).ok();
    let live = match container::update(&record.state.container) {
        Verdict::Go => true,
        // Its cgroup is gone; the record is what the next reader sees.
        Verdict::AlreadyDone => false,
        Verdict::Refuse(why) => return Err(UpdateError::Refused { id, why }),
    };
    if live {
        let (host, path, asked) = (context.cgroups.clone(), record.facts.cgroup.clone(), id.clone());
        blocking(move || {
            let cgroup = host
                .open(&path)
                .map_err(|fault| UpdateError::Failed { id: asked.clone(), fault: Fault::Cgroup(fault) })?;
            cgroup.apply(&limits).map(drop).map_err(|source| UpdateError::Cgroup { id: asked, source })
        })
        .await?;
    }
    if let Err(fault) = facts.tell(Fact::Limits(id.clone(), Box::new(merged))).await {
        // The kernel goes back to what the record says.
        if let Some(before) = before.filter(|_| live) {
            let (host, path) = (context.cgroups.clone(), record.facts.cgroup.clone());
            blocking(move || host.open(&path).ok().and_then(|cgroup| cgroup.apply(&before).ok())).await;
        }
        return Err(UpdateError::Failed { id, fault });
    }
    Ok(())
}
