//! What can go wrong with control groups, and what is only worth a warning.

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::directory::Directory;
use crate::path::CgroupPath;
use crate::systemd::SystemdError;

/// The host's control groups could not be found.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The list of mounts could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A mounted hierarchy could not be opened.
    #[error("cannot open the cgroup hierarchy mounted on {path}: {source}")]
    Open {
        /// Where it is mounted.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing of either version is mounted.
    #[error("no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup")]
    NoCgroups,
}

/// An operation on a control group failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The path cannot be a control group's.
    #[error("cgroup path {path:?} {why}")]
    BadPath {
        /// As given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The group does not exist in any hierarchy.
    #[error("cgroup {path:?} does not exist")]
    NotFound {
        /// Its path.
        path: String,
    },
    /// The kernel refused.
    #[error("cannot {doing} cgroup {path:?} ({place}): {source}")]
    Io {
        /// Verb.
        doing: &'static str,
        /// The group's path.
        path: String,
        /// Hierarchy or file.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// The host has no controller for this.
    #[error("cannot {doing} cgroup {path:?}: the {controller} controller is not mounted")]
    NoController {
        /// Verb.
        doing: &'static str,
        /// The group's path.
        path: String,
        /// The controller's name.
        controller: &'static str,
    },
    /// The kernel did not get there in time.
    #[error("cgroup {path:?} could not be {state} within {waited:?}; processes in it: {processes:?}")]
    Timeout {
        /// Past participle: frozen, emptied, removed.
        state: &'static str,
        /// The group's path.
        path: String,
        /// How long was waited.
        waited: Duration,
        /// Who is still in it, at most 16.
        processes: Vec<i32>,
    },
    /// Systemd did not do its part.
    #[error("cgroup {path:?}: {source}")]
    Systemd {
        /// The group's path.
        path: String,
        /// Why.
        source: SystemdError,
    },
}

/// Resources could not be applied; what had been changed was put back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused a value.
    #[error("cgroup {path:?}: writing {value:?} to {file}: {source}")]
    Write {
        /// The group's path.
        path: String,
        /// The file.
        file: String,
        /// What was written.
        value: String,
        /// Why.
        source: io::Error,
    },
    /// The current value of a file was needed and could not be read.
    #[error("cgroup {path:?}: reading {file}: {source}")]
    Read {
        /// The group's path.
        path: String,
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The host or the group lacks a controller that was asked for.
    #[error("cgroup {path:?}: {file} cannot be set: the {controller} controller is not available to it")]
    NoController {
        /// The group's path.
        path: String,
        /// The file that would be written.
        file: String,
        /// The controller.
        controller: String,
    },
    /// The kernel lacks a file that was asked for.
    #[error("cgroup {path:?}: this kernel's {controller} controller has no {file}")]
    NoFile {
        /// The group's path.
        path: String,
        /// The file.
        file: String,
        /// The controller.
        controller: String,
    },
    /// More memory is in use than the new limit allows, and could not be reclaimed.
    #[error("cgroup {path:?}: the memory limit cannot be lowered to {limit} bytes: {usage} bytes are in use")]
    BelowUsage {
        /// The group's path.
        path: String,
        /// Bytes asked for.
        limit: i64,
        /// Bytes in use.
        usage: u64,
    },
    /// A value makes no sense whatever the host.
    #[error("resources: {field} is {value:?}: {why}")]
    Invalid {
        /// The field, as the runtime specification spells it.
        field: &'static str,
        /// As given.
        value: String,
        /// What is wrong.
        why: &'static str,
    },
    /// `unified` names files of version 2.
    #[error("resources: unified {key:?} cannot be set: this host has cgroup version 1")]
    UnifiedOnV1 {
        /// The key.
        key: String,
    },
    /// Systemd, whose unit the group is, did not take the limits.
    #[error("cgroup {path:?}: {source}")]
    Systemd {
        /// The group's path.
        path: String,
        /// Why.
        source: SystemdError,
    },
    /// Undoing the change failed as well.
    #[error("{error}; and these could not be put back: {}", .files.join(", "))]
    NotRestored {
        /// What failed at first.
        error: Box<ApplyError>,
        /// Files that keep their new value, with the reason.
        files: Vec<String>,
    },
}

/// Something asked for has no effect here, and nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The field, as the runtime specification spells it.
    pub field: &'static str,
    /// Why it has no effect.
    pub why: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has no effect: {}", self.field, self.why)
    }
}

pub(crate) fn io_error(
    doing: &'static str,
    path: &CgroupPath,
    place: &str,
    source: io::Error,
) -> CgroupError {
    CgroupError::Io { doing, path: path.as_str().into(), place: place.into(), source }
}

/// What became of removing `path` below `root`: still busy, or something worse.
pub(crate) fn delete_error(
    root: &Directory,
    path: &CgroupPath,
    place: &str,
    waited: Duration,
    source: io::Error,
) -> CgroupError {
    if !matches!(Errno::from_io_error(&source), Some(Errno::BUSY | Errno::NOTEMPTY)) {
        return io_error("remove", path, place, source);
    }
    let mut processes = root.open(path.as_str()).and_then(|d| d.processes(true)).unwrap_or_default();
    processes.truncate(16);
    CgroupError::Timeout { state: "removed", path: path.as_str().into(), waited, processes }
}

/// Whether a file could not be reached because its group was removed.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NODEV))
}
