//! What is known of the slice that the pod's containers are in, for when one of them is gone before anybody has looked.

use super::container::{Container, Phase};
use crate::parent::memory::Beside;

/// What is known of the slice that the pod's containers are in.
#[derive(Debug, Default)]
pub(super) struct SliceMemory {
    /// How often memory had run out in it before the first container.
    before: Option<u64>,
    /// How often of those that have ended.
    told: u64,
}

impl SliceMemory {
    /// A container was created, and the slice's count was `count` then.
    pub(super) fn begin(&mut self, count: Option<u64>) {
        self.before = self.before.or(count);
    }

    /// Memory ran out so often in a container that has ended.
    pub(super) fn tell(&mut self, count: u64) {
        self.told = self.told.saturating_add(count);
    }

    pub(super) fn beside<'a>(&self, others: impl Iterator<Item = &'a Container>) -> Beside {
        let alive = others.filter(|other| {
            !matches!(other.phase, Phase::Exited | Phase::Deleting | Phase::Draining { looking: false, .. })
        });
        Beside {
            others: alive.filter_map(|other| other.cgroup.clone()).collect(),
            counted: self.before.map(|before| before.saturating_add(self.told)),
        }
    }
}
