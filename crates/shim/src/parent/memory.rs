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
