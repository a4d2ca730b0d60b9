//! How large containers' writable layers are. Finding out walks the layer, so nobody who lists waits for it: the size that is known is
//! given, and one that is out of date is measured afterwards.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::id::ContainerId;

use super::{Layer, LayerAge};
use crate::context::Context;

/// How old a size may be before it is measured again.
const AGE: Duration = Duration::from_secs(10);

/// A layer that took long to measure is measured less often: walking takes at most the hundredth part of the time.
const IDLE_PER_WALK: u32 = 100;

/// The sizes that are known.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    known: Mutex<HashMap<ContainerId, Known>>,
    refreshing: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    layer: Layer,
    measured: Instant,
    took: Duration,
}

impl Known {
    fn is_fresh(&self) -> bool {
        self.measured.elapsed() < AGE.max(self.took * IDLE_PER_WALK)
    }
}

impl Layers {
    /// The size of a container's layer.
    pub(super) fn get(&self, context: &Context, id: &ContainerId, age: LayerAge) -> Option<Layer> {
        let known = self.lock().get(id).copied();
        match (known, age) {
            (Some(known), LayerAge::Fresh) if known.is_fresh() => Some(known.layer),
            (known, LayerAge::Fresh) => self.measure(context, id).or(known.map(|known| known.layer)),
            (known, LayerAge::Any) => known.map(|known| known.layer),
        }
    }

    fn measure(&self, context: &Context, id: &ContainerId) -> Option<Layer> {
        let begun = Instant::now();
        let usage = context.images.rootfs().usage(id.as_str()).ok()?;
        let layer = Layer { bytes: usage.bytes, inodes: usage.inodes, at: crate::clock::now() };
        let known = Known { layer, measured: Instant::now(), took: begun.elapsed() };
        self.lock().insert(id.clone(), known);
        Some(layer)
    }

    /// Measures what is out of date and forgets what is gone.
    fn refresh(&self, context: &Context) {
        let snapshot = context.published.load();
        let stale: Vec<&ContainerId> = {
            let mut known = self.lock();
            known.retain(|id, _| snapshot.containers.contains_key(id));
            snapshot.containers.keys().filter(|id| !known.get(id).is_some_and(Known::is_fresh)).collect()
        };
        for id in stale {
            self.measure(context, id);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ContainerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the sizes that are out of date measured, one walk at a time, by a thread that nobody waits for.
pub(super) fn refresh(context: &Arc<Context>) {
    if context.layers.refreshing.swap(true, Ordering::AcqRel) {
        return;
    }
    let context = context.clone();
    tokio::task::spawn_blocking(move || {
        let done = Done(&context.layers.refreshing);
        context.layers.refresh(&context);
        drop(done);
    });
}

/// Makes room for the next refresh, however this one ends.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
