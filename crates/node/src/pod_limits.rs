//! What a pod as a whole may use: kept in its record, and set where the pod's cgroup is ours.
//!
//! A cgroup that the request named belongs to whoever named it. The kubelet sets such a one itself, before it tells us; what we would
//! write could only contradict it.

use std::sync::Arc;

use model::id::PodId;
use model::pod::Pod;
use model::request::{PodRequest, Resources};
use nri::api::Event;
use spec::resources::{ResourceError, to_linux};

use crate::actor::{Fact, PodHandle};
use crate::context::{Context, blocking};
use crate::error::{Fault, PodLimitsFault, UpdatePodError};
use crate::plugins;
use crate::record::{PodCgroup, PodLimits};
use crate::snapshot::LookupError;

/// The limits that a pod begins with.
pub(crate) fn of(request: &PodRequest) -> PodLimits {
    PodLimits { resources: request.resources.clone(), overhead: request.overhead.clone() }
}

/// Refuses numbers that mean nothing, before anything is changed.
pub(crate) fn check(limits: &PodLimits, host: &spec::HostFacts) -> Result<(), ResourceError> {
    let parts = [&limits.resources, &limits.overhead];
    parts.into_iter().flatten().try_for_each(|part| to_linux(part, host).map(drop))
}

/// Sets the limits of the pod's cgroup where that is ours; it is made here where no container has been created yet.
pub(crate) async fn apply(
    context: &Context,
    cgroup: &PodCgroup,
    limits: &PodLimits,
) -> Result<(), PodLimitsFault> {
    let sum = sum(limits);
    if !cgroup.ours || sum == Resources::default() {
        return Ok(());
    }
    // Both parts were checked, and sums of what is in range are.
    let Ok(linux) = to_linux(&sum, &context.host) else { return Ok(()) };
    let (host, path, driver) = (context.cgroups.clone(), cgroup.path.clone(), cgroup.driver());
    blocking(move || {
        let group = driver.create(&host, &path, &linux, &[]).map_err(PodLimitsFault::Group)?;
        group.apply_made(&linux).map(drop).map_err(PodLimitsFault::Value)
    })
    .await
}

/// Changes what is given, keeps the rest; the same again changes nothing.
pub(crate) async fn update(
    context: Arc<Context>,
    id: PodId,
    change: PodLimits,
    handle: PodHandle,
) -> Result<(), UpdatePodError> {
    // Before the turn: whoever has the turn must not wait for a plugin that is told of everything, which waits for all passes.
    let pass = context.nri.enter().await;
    let _turn = handle.limits.lock().await;
    let Some(record) = context.published.load().pods.get(&id).cloned() else {
        return Err(LookupError::Absent { what: "pod", given: id.to_string() }.into());
    };
    let now = &record.state.limits;
    let limits = PodLimits {
        resources: change.resources.or_else(|| now.resources.clone()),
        overhead: change.overhead.or_else(|| now.overhead.clone()),
    };
    check(&limits, &context.host)
        .map_err(|source| UpdatePodError::Spec { id: id.clone(), source: source.into() })?;
    if limits == *now {
        return Ok(());
    }
    let failed = |fault| UpdatePodError::Failed { id: id.clone(), fault };
    if pass.wants(Event::UpdatePodSandbox) {
        let [overhead, resources] = [&limits.overhead, &limits.resources]
            .map(|part| plugins::limits(&context, part).unwrap_or_default());
        let agreed = pass.update_pod(&record.message(&context), overhead, resources).await;
        agreed.map_err(|source| UpdatePodError::Refused { id: id.clone(), source })?;
    }
    if record.state.pod == Pod::Ready {
        let applied = apply(&context, &record.state.cgroup, &limits).await;
        applied.map_err(|why| failed(Fault::Limits(why)))?;
    }
    handle.facts.tell(Fact::PodLimits(Box::new(limits))).await.map_err(failed)?;
    if pass.wants(Event::PostUpdatePodSandbox)
        && let Some(record) = context.published.load().pods.get(&id)
    {
        pass.post_update_pod(&record.message(&context)).await;
    }
    Ok(())
}

/// The pod's limit: its containers' and what it takes beside them. Where the containers have none, overhead alone limits nothing.
fn sum(limits: &PodLimits) -> Resources {
    let none = Resources::default();
    let (own, beside) =
        (limits.resources.as_ref().unwrap_or(&none), limits.overhead.as_ref().unwrap_or(&none));
    let both = |own: i64, beside: i64| if own > 0 { own.saturating_add(beside.max(0)) } else { own };
    let period = if own.cpu_period_us > 0 { own.cpu_period_us } else { DEFAULT_PERIOD_US };
    let beside_period = if beside.cpu_period_us > 0 { beside.cpu_period_us } else { DEFAULT_PERIOD_US };
    let beside_quota =
        i128::from(beside.cpu_quota_us.max(0)) * i128::from(period) / i128::from(beside_period);
    Resources {
        cpu_quota_us: both(own.cpu_quota_us, i64::try_from(beside_quota).unwrap_or(i64::MAX)),
        cpu_shares: both(own.cpu_shares, beside.cpu_shares),
        memory_limit_bytes: both(own.memory_limit_bytes, beside.memory_limit_bytes),
        memory_swap_limit_bytes: both(
            own.memory_swap_limit_bytes,
            beside.memory_swap_limit_bytes.max(beside.memory_limit_bytes),
        ),
        ..own.clone()
    }
}

/// The kernel's, which is in force where none is set.
const DEFAULT_PERIOD_US: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_comes_on_top_of_a_limit_and_is_none_by_itself() {
        let own = Resources {
            cpu_quota_us: 50_000,
            cpu_shares: 1024,
            memory_limit_bytes: 100,
            memory_swap_limit_bytes: 100,
            ..Resources::default()
        };
        let beside = Resources {
            cpu_period_us: 50_000,
            cpu_quota_us: 5000,
            cpu_shares: 10,
            memory_limit_bytes: 7,
            ..Resources::default()
        };
        let limits = PodLimits { resources: Some(own.clone()), overhead: Some(beside.clone()) };
        let both = sum(&limits);
        assert_eq!((both.cpu_quota_us, both.cpu_shares), (60_000, 1034));
        assert_eq!((both.memory_limit_bytes, both.memory_swap_limit_bytes), (107, 107));
        let alone = sum(&PodLimits { resources: None, overhead: Some(beside) });
        assert_eq!(alone, Resources::default());
        let unlimited = Resources { cpu_quota_us: -1, ..own };
        let limits = PodLimits { resources: Some(unlimited), overhead: limits.overhead };
        assert_eq!(sum(&limits).cpu_quota_us, -1);
    }
}
