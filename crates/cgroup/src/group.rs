//! One control group, of whichever version.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

use crate::error::{ApplyError, CgroupError, Warning};
use crate::host::{Hierarchies, Layout};
use crate::meter::Meter;
use crate::stats::Stats;
use crate::{v1, v2};

/// A control group with its directories open. Dropping it closes them and leaves the group.
#[derive(Debug)]
pub struct Cgroup {
    host: Arc<Hierarchies>,
    group: Group,
}

#[derive(Debug)]
pub(crate) enum Group {
    V1(v1::Group),
    V2(v2::Group),
}

impl Cgroup {
    pub(crate) fn from_v1(host: Arc<Hierarchies>, group: v1::Group) -> Cgroup {
        Cgroup { host, group: Group::V1(group) }
    }

    pub(crate) fn from_v2(host: Arc<Hierarchies>, group: v2::Group) -> Cgroup {
        Cgroup { host, group: Group::V2(group) }
    }

    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// The path below the root of the hierarchies, without a leading slash.
    pub fn path(&self) -> &str {
        match &self.group {
            Group::V1(group) => group.path.as_str(),
            Group::V2(group) => group.path.as_str(),
        }
    }

    /// Sets what `resources` has; what it leaves out stays as it is, also device access if it has no device rules. Systemd is told, where
    /// the group is a unit of its.
    ///
    /// Returns what has no effect here and harms nobody by having none.
    ///
    /// # Errors
    /// The first value that cannot be set. Every value set before it is put back.
    pub fn apply(&self, resources: &LinuxResources) -> Result<Vec<Warning>, ApplyError> {
        match &self.group {
            Group::V1(group) => group.apply(resources, self.host.unit(&group.path)),
            Group::V2(group) => group.apply(resources, self.host.unit(&group.path)),
        }
    }

    /// [`Cgroup::apply`] for a group that [`crate::Driver::create`] has just made for the same resources.
    ///
    /// # Errors
    /// The first value that cannot be set. Every value set before it is put back.
    pub fn apply_made(&self, resources: &LinuxResources) -> Result<Vec<Warning>, ApplyError> {
        match &self.group {
            Group::V1(group) => group.apply(resources, None),
            Group::V2(group) => group.apply(resources, None),
        }
    }

    /// Moves the process `pid` with all its threads into the group; 0 is the caller.
    ///
    /// # Errors
    /// What the kernel says, with the hierarchy: `ESRCH` if there is no such process.
    pub fn add_process(&self, pid: i32) -> Result<(), CgroupError> {
        match &self.group {
            Group::V1(group) => group.add_process(pid),
            Group::V2(group) => group.add_process(pid),
        }
    }

    /// The directory for `CLONE_INTO_CGROUP` (clone(2)): of version 2, which on a hybrid host is the tree beside the controllers'.
    pub fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        match &self.group {
            Group::V1(group) => group.birthplace(),
            Group::V2(group) => Some(group.birthplace()),
        }
    }

    /// Opens the way into the group for a process that enters it by itself; `born` where it is cloned into [`Cgroup::birthplace`].
    ///
    /// # Errors
    /// What the kernel says, with the hierarchy.
    pub fn entrance(&self, born: bool) -> Result<Entrance, CgroupError> {
        match &self.group {
            Group::V1(group) => group.entrance(born),
            Group::V2(group) => group.entrance(born),
        }
        .map(Entrance)
    }

    /// The processes in the group, and if `recursive` in those below it; sorted. A group that was removed has none.
    pub fn processes(&self, recursive: bool) -> Result<Vec<i32>, CgroupError> {
        match &self.group {
            Group::V1(group) => group.processes(recursive),
            Group::V2(group) => group.processes(recursive),
        }
    }

    /// Stops every process in the group and below from running.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] if that is not so within `wait`; the group is thawed again then.
    pub fn freeze(&self, wait: Duration) -> Result<(), CgroupError> {
        match &self.group {
            Group::V1(group) => group.freeze(wait),
            Group::V2(group) => group.freeze(wait),
        }
    }

    /// Lets frozen processes run again; one that runs is left alone.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        match &self.group {
            Group::V1(group) => group.thaw(),
            Group::V2(group) => group.thaw(),
        }
    }

    /// Whether the group is frozen.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        match &self.group {
            Group::V1(group) => group.is_frozen(),
            Group::V2(group) => group.is_frozen(),
        }
    }

    /// The directory with the files that freeze the group, for a program that takes only a path.
    pub fn freezer_path(&self) -> Result<std::path::PathBuf, CgroupError> {
        match &self.group {
            Group::V1(group) => group.freezer_path(),
            Group::V2(group) => group.freezer_path(),
        }
    }

    /// Moves the process `pid` from the group to that of the caller as far as freezing goes: what freezes the group leaves it alone.
    pub fn spare_from_freezing(&self, pid: i32) -> Result<(), CgroupError> {
        match (&self.group, &self.host.layout) {
            (Group::V1(group), Layout::V1(mounts)) => group.spare_from_freezing(mounts, pid),
            (Group::V2(group), Layout::V2(mount)) => group.spare_from_freezing(mount, pid),
            _ => Ok(()),
        }
    }

    /// Kills every process in the group and below, frozen ones too, and waits until none is left. An empty or removed group is
    /// done already.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] with those left after `wait`: they hang in the kernel. The kill stays in force, and the call may be
    /// repeated.
    pub fn kill_all(&self, wait: Duration) -> Result<(), CgroupError> {
        match &self.group {
            Group::V1(group) => group.kill_all(wait),
            Group::V2(group) => group.kill_all(wait),
        }
    }

    /// Removes the group and all below it; absent is fine.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] if it stays busy for `wait`, as it does while it has processes.
    pub fn delete(&self, wait: Duration) -> Result<(), CgroupError> {
        match &self.group {
            Group::V1(group) => self.host.delete(&group.path, wait),
            Group::V2(group) => self.host.delete(&group.path, wait),
        }
    }

    /// Opens what is read often of the group; the meter needs this handle no longer.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`] if the group was removed.
    pub fn meter(&self) -> Result<Meter, CgroupError> {
        match &self.group {
            Group::V1(group) => group.meter(),
            Group::V2(group) => group.meter(),
        }
    }

    /// What the group has used, in full. What this host does not measure is left at zero.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`] if the group was removed.
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        match &self.group {
            Group::V1(group) => group.stats(self.host.huge_pages()),
            Group::V2(group) => group.stats(self.host.huge_pages()),
        }
    }

    /// How often the kernel killed a process of the group, or below it, for want of memory. Zero where memory is not controlled.
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        match &self.group {
            Group::V1(group) => group.oom_kills(),
            Group::V2(group) => group.oom_kills(),
        }
    }
}

/// The files by which a process enters a group, open, so that it can do so where it sees no control groups.
#[derive(Debug, Default)]
pub struct Entrance(Vec<OwnedFd>);

impl Entrance {
    /// Moves the calling thread, which has to be the only one of its process. The files stay open: the process is about to close all that it
    /// has, or to execute, and either is quicker at once.
    ///
    /// A thread that moves itself need not wait until all processors have seen that no process forks meanwhile, as whoever writes
    /// another's number to `cgroup.procs` does: that takes ten milliseconds and more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn enter(self) -> io::Result<()> {
        let files = std::mem::ManuallyDrop::new(self.0);
        for file in files.iter() {
            rustix::io::write(file, b"0")?;
        }
        Ok(())
    }
}
