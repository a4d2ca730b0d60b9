//! How many files the daemon may have open: more than it was given, which its shims and their containers must not inherit.

use std::io;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Enough for a thousand containers' cgroups, connections and layers.
const WANTED: u64 = 65_536;

/// The limit that this process was started with, which is what its children should have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inherited(u64, Option<u64>);

/// Raises the soft limit as far as it is wanted and allowed; a descriptor for each controller of each container is kept open.
pub(crate) fn raise() -> Inherited {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let inherited = Inherited(current.unwrap_or(WANTED), maximum);
    let raised = WANTED.min(maximum.unwrap_or(WANTED));
    if inherited.0 < raised
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum })
    {
        tracing::warn!(%error, limit = inherited.0, "the limit of open files stays as it is");
    }
    inherited
}

impl Inherited {
    /// Gives a shim, and with it everything that it forks, the limit that this process was started with.
    pub(crate) fn pass_on(self, pid: i32) -> io::Result<()> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(self.0), maximum: self.1 })?;
        Ok(())
    }
}
