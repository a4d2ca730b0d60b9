//! Who makes groups: we ourselves, or systemd, which is asked to.

use oci_spec::runtime::LinuxResources;

use crate::error::CgroupError;
use crate::group::Cgroup;
use crate::host::{Host, Mode};
use crate::systemd;

/// The driver: what the kubelet calls `cgroupDriver`. Whatever is done with a group that is there needs none: what systemd has made is known
/// by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Groups are made by writing the file system of control groups. A group's name is its path.
    Cgroupfs,
    /// Groups are units of systemd, which is told of their limits. A group's name is `slice:prefix:name`.
    Systemd,
}

impl Driver {
    /// The one that fits this host: systemd's where systemd is its init and control groups are of version 2, as one writer alone may change
    /// a tree, and that is systemd then.
    pub fn of(host: &Host) -> Driver {
        if host.mode() == Mode::V2 && systemd::runs() { Driver::Systemd } else { Driver::Cgroupfs }
    }

    /// As the kubelet spells it.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Cgroupfs => "cgroupfs",
            Driver::Systemd => "systemd",
        }
    }

    /// The path of the group that `name`, a `cgroupsPath` of the runtime specification, means to this driver.
    ///
    /// # Errors
    /// [`CgroupError::BadPath`] if it is no name of this driver's.
    pub fn path(self, name: &str) -> Result<String, CgroupError> {
        match self {
            Driver::Cgroupfs => Ok(format!("/{}", name.trim_start_matches('/'))),
            Driver::Systemd => systemd::place(name),
        }
    }

    /// Makes the group `path`, to be limited by `resources`: [`Cgroup::apply_made`] has to follow. A scope of systemd is made with
    /// `processes` in it, and ends with the last of them; no other group needs any, and they are not moved there.
    ///
    /// # Errors
    /// A bad path; what the kernel or systemd says. What this call had made is removed again then.
    pub fn create(
        self,
        host: &Host,
        path: &str,
        resources: &LinuxResources,
        processes: &[i32],
    ) -> Result<Cgroup, CgroupError> {
        match self {
            Driver::Cgroupfs => host.create(path),
            Driver::Systemd => host.start_unit(path, resources, processes),
        }
    }
}
