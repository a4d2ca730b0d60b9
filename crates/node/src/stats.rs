//! What containers use: read from their cgroups through descriptors that stay open, and from the size of their writable layers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cgroup::{Cgroup, Stats};
use model::container::Container;
use model::id::ContainerId;
use model::time::Timestamp;

use crate::context::{Context, blocking};
use crate::record::ContainerRecord;

/// How old the size of a writable layer may be; measuring it walks the layer.
const LAYER_AGE: Duration = Duration::from_secs(10);

/// The shortest time over which a rate is worth computing.
const RATE_WINDOW: Duration = Duration::from_millis(100);

/// One container's use at one moment.
#[derive(Debug, Clone)]
pub struct ContainerStats {
    pub record: Arc<ContainerRecord>,
    pub at: Timestamp,
    /// None: it does not run.
    pub cgroup: Option<Stats>,
    /// CPU use over the time since the last look, in billionths of a core; none at the first look.
    pub usage_nano_cores: Option<u64>,
    pub writable_layer: Option<Layer>,
}

/// The size of a writable layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    pub bytes: u64,
    pub inodes: u64,
    pub at: Timestamp,
}

/// What is kept between two looks.
#[derive(Debug, Default)]
pub(crate) struct Samples(Mutex<HashMap<ContainerId, Sample>>);

#[derive(Debug, Default)]
struct Sample {
    cgroup: Option<Arc<Cgroup>>,
    cpu: Option<CpuSample>,
    layer: Option<(Instant, Layer)>,
}

#[derive(Debug, Clone, Copy)]
struct CpuSample {
    at: Instant,
    usage_ns: u64,
    rate: Option<u64>,
}

/// Looks at these containers now.
pub(crate) async fn of(context: &Arc<Context>, records: Vec<Arc<ContainerRecord>>) -> Vec<ContainerStats> {
    let context = context.clone();
    blocking(move || {
        let looked = records.into_iter().map(|record| look(&context, record)).collect();
        context.samples.keep_only(&context.published.load());
        looked
    })
    .await
}

fn look(context: &Context, record: Arc<ContainerRecord>) -> ContainerStats {
    let running = matches!(record.state.container, Container::Running { .. } | Container::Created { .. });
    let cgroup = running.then(|| context.samples.cgroup(context, &record)).flatten();
    let stats = cgroup.and_then(|cgroup| cgroup.stats().ok());
    let usage_nano_cores =
        stats.as_ref().and_then(|stats| context.samples.rate(&record.id, stats.cpu.usage_ns));
    let writable_layer = context.samples.layer(context, &record.id);
    ContainerStats { at: crate::clock::now(), cgroup: stats, usage_nano_cores, writable_layer, record }
}

impl Samples {
    fn with<T>(&self, id: &ContainerId, work: impl FnOnce(&mut Sample) -> T) -> T {
        work(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(id.clone()).or_default())
    }

    fn keep_only(&self, snapshot: &crate::snapshot::Snapshot) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| snapshot.containers.contains_key(id));
    }

    fn cgroup(&self, context: &Context, record: &ContainerRecord) -> Option<Arc<Cgroup>> {
        if let Some(open) = self.with(&record.id, |sample| sample.cgroup.clone()) {
            return Some(open);
        }
        let opened = Arc::new(context.cgroups.open(&record.facts.cgroup).ok()?);
        self.with(&record.id, |sample| sample.cgroup = Some(opened.clone()));
        Some(opened)
    }

    /// The rate since the last look; two looks that are too near to one another give the same answer.
    fn rate(&self, id: &ContainerId, usage_ns: u64) -> Option<u64> {
        let now = Instant::now();
        self.with(id, |sample| {
            let rate = match sample.cpu {
                Some(last) if now - last.at < RATE_WINDOW => return last.rate,
                Some(last) => Some(nano_cores(usage_ns.saturating_sub(last.usage_ns), now - last.at)),
                None => None,
            };
            sample.cpu = Some(CpuSample { at: now, usage_ns, rate });
            rate
        })
    }

    fn layer(&self, context: &Context, id: &ContainerId) -> Option<Layer> {
        let known = self.with(id, |sample| sample.layer);
        if let Some((at, layer)) = known
            && at.elapsed() < LAYER_AGE
        {
            return Some(layer);
        }
        let usage = context.images.rootfs().usage(id.as_str()).ok()?;
        let layer = Layer { bytes: usage.bytes, inodes: usage.inodes, at: crate::clock::now() };
        self.with(id, |sample| sample.layer = Some((Instant::now(), layer)));
        Some(layer)
    }
}

/// Billionths of a core: nanoseconds of CPU for each second of the clock.
fn nano_cores(used_ns: u64, elapsed: Duration) -> u64 {
    let nano_cores = u128::from(used_ns) * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(nano_cores).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_core_is_a_billion() {
        assert_eq!(nano_cores(500_000_000, Duration::from_millis(500)), 1_000_000_000);
        assert_eq!(nano_cores(0, Duration::ZERO), 0);
    }
}
