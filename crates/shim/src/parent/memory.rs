//! Whether memory ran out in a container whose cgroup is gone.
//!
//! Systemd removes a scope of version 2 as soon as nobody is in it, and its counts with it, which may be before anybody has looked. The slice
//! above goes on counting for all that were ever in it: what neither those who are still there had, nor those who were told of before, the
//! one that is gone had.

use std::path::{Path, PathBuf};

/// What a look at one container needs of the others: nothing, unless told. Made in the shim, used in a helper.
#[derive(Default)]
pub(crate) struct Beside {
    /// The cgroups of the others that are alive.
    pub(crate) others: Vec<PathBuf>,
    /// How often of those that were told of, and before the first.
    pub(crate) counted: Option<u64>,
}

/// How often memory ran out in the slice that the container's group `path` is in, when the container was made; `None` where it is in none.
pub(crate) fn at_first(path: &Path) -> Option<u64> {
    scope(path)?;
    of_slice(&cgroup::Host::detect().ok()?, path)
}

/// The scope of systemd that the group `path` is, or lies in: crun has its containers in a group below theirs.
fn scope(path: &Path) -> Option<&Path> {
    path.ancestors().find(|above| above.extension().is_some_and(|kind| kind == "scope"))
}

/// By now.
fn of_slice(host: &cgroup::Host, path: &Path) -> Option<u64> {
    if host.mode() != cgroup::Mode::V2 {
        return None;
    }
    host.open(scope(path)?.parent()?.to_str()?).ok()?.oom_kills().ok()
}

impl Beside {
    /// How often memory ran out in the scope `path`, which is gone; `None` where that is not known.
    pub(super) fn of_gone(&self, host: &cgroup::Host, path: &Path) -> Option<u64> {
        let all = of_slice(host, path)?;
        let others = self.others.iter().filter_map(|other| host.open(other.to_str()?).ok()?.oom_kills().ok());
        Some(all.saturating_sub(self.counted?).saturating_sub(others.sum()))
    }
}
