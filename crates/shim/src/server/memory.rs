//! Whether memory ran out in a container whose cgroup is gone.
//!
//! Systemd removes a scope of version 2 as soon as nobody is in it, and its counts with it, which may be before anybody has looked. The slice
//! above goes on counting for all that were ever in it: what neither those who are still there had, nor those who were told of before, the
//! one that is gone had.

use std::path::{Path, PathBuf};

use super::container::{Container, Phase};

/// What is known of the slice that the pod's containers are in.
#[derive(Debug, Default)]
pub(super) struct SliceMemory {
    /// How often memory had run out in it before the first container.
    before: Option<u64>,
    /// How often of those that have ended.
    told: u64,
}

/// What a look at one container needs of the others: nothing, unless told. Made in the shim, used in a helper.
#[derive(Default)]
pub(crate) struct Beside {
    others: Vec<PathBuf>,
    counted: Option<u64>,
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

/// How often memory ran out in the slice that the scope `path` is in, by now; `None` where it is no scope.
pub(super) fn of_slice(host: &cgroup::Host, path: &Path) -> Option<u64> {
    if host.mode() != cgroup::Mode::V2 || path.extension()? != "scope" {
        return None;
    }
    host.open(path.parent()?.to_str()?).ok()?.oom_kills().ok()
}

impl Beside {
    /// How often memory ran out in the scope `path`, which is gone; `None` where that is not known.
    pub(super) fn of_gone(&self, host: &cgroup::Host, path: &Path) -> Option<u64> {
        let all = of_slice(host, path)?;
        let others = self.others.iter().filter_map(|other| host.open(other.to_str()?).ok()?.oom_kills().ok());
        Some(all.saturating_sub(self.counted?).saturating_sub(others.sum()))
    }
}
