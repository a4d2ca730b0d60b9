//! Version 2: a group is one directory, and a controller works in it if every group above hands it down.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::directory::{Directory, read_descriptor};
use crate::error::{CgroupError, delete_error, io_error};
use crate::host::Controller;
use crate::path::CgroupPath;
use crate::stats::value_of;

mod apply;
mod program;
mod stats;

pub(crate) use stats::UsageFiles;

/// What is handed down to a group that is made, where the host has it.
const WANTED: [&str; 8] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

/// The mounted tree.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) root: Directory,
    pub(crate) path: String,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) path: CgroupPath,
    directory: Directory,
}

impl Mount {
    pub(crate) fn controllers(&self) -> Vec<Controller> {
        self.root
            .read("cgroup.controllers", |t| t.split_whitespace().filter_map(Controller::parse).collect())
            .unwrap_or_default()
    }

    pub(crate) fn create(&self, path: CgroupPath) -> Result<Group, CgroupError> {
        let error = |source| io_error("create", &path, &self.path, source);
        self.root.make(&path).map_err(error)?;
        let directory = self.root.open(path.as_str()).map_err(error)?;
        hand_down(&self.root, &directory, &path);
        Ok(Group { path, directory })
    }

    /// Opens a group that systemd has just made.
    pub(crate) fn adopt(&self, path: CgroupPath) -> Result<Group, CgroupError> {
        let group = self.open(path)?;
        // Systemd hands down what it knows of; huge pages, for one, it does not.
        hand_down(&self.root, &group.directory, &group.path);
        Ok(group)
    }

    pub(crate) fn open(&self, path: CgroupPath) -> Result<Group, CgroupError> {
        match self.root.open(path.as_str()) {
            Ok(directory) => Ok(Group { path, directory }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(CgroupError::NotFound { path: path.as_str().into() })
            }
            Err(e) => Err(io_error("open", &path, &self.path, e)),
        }
    }

    pub(crate) fn delete(
        &self,
        path: &CgroupPath,
        deadline: Instant,
        wait: Duration,
    ) -> Result<(), CgroupError> {
        self.root
            .remove(path.as_str(), deadline)
            .map_err(|e| delete_error(&self.root, path, &self.path, wait, e))
    }
}

/// Makes every group above `path` hand down what it has of [`WANTED`]. What one of them cannot (it has processes of its own, or is
/// somebody else's) is missing in the group; setting a limit that needs it fails later and names it.
fn hand_down(root: &Directory, leaf: &Directory, path: &CgroupPath) {
    let list = |directory: &Directory, file: &str| -> Vec<&'static str> {
        directory
            .read(file, |text| {
                let has = |name: &&str| text.split_whitespace().any(|n| n == *name);
                WANTED.iter().copied().filter(has).collect()
            })
            .unwrap_or_default()
    };
    if list(leaf, "cgroup.controllers") == list(root, "cgroup.controllers") {
        return;
    }
    let mut above = String::new();
    for prefix in path.prefixes() {
        let handed = list(root, &format!("{above}cgroup.subtree_control"));
        let missing: Vec<&str> = list(root, &format!("{above}cgroup.controllers"))
            .into_iter()
            .filter(|c| !handed.contains(c))
            .collect();
        // A group with processes must not be asked: the kernel would refuse some controllers (EBUSY) and hand down those that can
        // count threads, whereupon no process can enter the groups below (cgroup-v2.rst, "Threads"). The root is exempt.
        let populated = || root.read(&format!("{above}cgroup.procs"), |t| !t.is_empty()).unwrap_or(true);
        if !missing.is_empty() && !above.is_empty() && populated() {
            return;
        }
        let control = format!("{above}cgroup.subtree_control");
        let all = missing.iter().map(|c| format!("+{c}")).collect::<Vec<_>>();
        if !all.is_empty() && root.write(&control, &all.join(" ")).is_err() {
            // One that cannot be handed down must not keep the others back.
            for one in &all {
                let _ = root.write(&control, one);
            }
        }
        above = format!("{prefix}/");
    }
}

impl Group {
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn birthplace(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    pub(crate) fn entrance(&self, born: bool) -> Result<Vec<OwnedFd>, CgroupError> {
        if born {
            return Ok(Vec::new());
        }
        let file = self.directory.writable("cgroup.procs");
        file.map(|file| vec![file]).map_err(|e| io_error("open the way into", &self.path, "cgroup.procs", e))
    }

    pub(crate) fn add_process(&self, pid: i32) -> Result<(), CgroupError> {
        self.directory
            .write("cgroup.procs", &pid.to_string())
            .map_err(|e| io_error("add a process to", &self.path, "cgroup.procs", e))
    }

    pub(crate) fn processes(&self, recursive: bool) -> Result<Vec<i32>, CgroupError> {
        self.directory
            .processes(recursive)
            .map_err(|e| io_error("list the processes of", &self.path, "cgroup.procs", e))
    }

    pub(crate) fn freeze(&self, wait: Duration) -> Result<(), CgroupError> {
        self.directory
            .write("cgroup.freeze", "1")
            .map_err(|e| io_error("freeze", &self.path, "cgroup.freeze", e))?;
        if self.wait_for("frozen", 1, wait)? {
            return Ok(());
        }
        self.thaw()?;
        Err(self.timeout("frozen", wait))
    }

    pub(crate) fn thaw(&self) -> Result<(), CgroupError> {
        self.directory
            .write("cgroup.freeze", "0")
            .map_err(|e| io_error("thaw", &self.path, "cgroup.freeze", e))
    }

    pub(crate) fn freezer_path(&self) -> Result<std::path::PathBuf, CgroupError> {
        self.directory.path().map_err(|e| io_error("find", &self.path, "cgroup.freeze", e))
    }

    pub(crate) fn spare_from_freezing(&self, mount: &Mount, pid: i32) -> Result<(), CgroupError> {
        let error = |e| io_error("spare a process of", &self.path, "cgroup.procs", e);
        let own = crate::host::own_path("").map_err(error)?;
        let own = mount.root.open(&own).map_err(error)?;
        own.write("cgroup.procs", &pid.to_string()).map_err(error)
    }

    pub(crate) fn is_frozen(&self) -> Result<bool, CgroupError> {
        self.directory
            .read("cgroup.events", |t| value_of(t, "frozen") == Some(1))
            .map_err(|e| io_error("look at", &self.path, "cgroup.events", e))
    }

    pub(crate) fn kill_all(&self, wait: Duration) -> Result<(), CgroupError> {
        match self.directory.write("cgroup.kill", "1") {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.directory.has("cgroup.procs") => {
                return self.kill_one_by_one(wait);
            }
            Err(e) if crate::error::is_gone(&e) => return Ok(()),
            Err(e) => return Err(io_error("kill", &self.path, "cgroup.kill", e)),
        }
        if self.wait_for("populated", 0, wait)? { Ok(()) } else { Err(self.timeout("emptied", wait)) }
    }

    /// Before Linux 5.14 there is no `cgroup.kill`. A process of version 2 can be killed while it is frozen.
    fn kill_one_by_one(&self, wait: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + wait;
        loop {
            let _ = self.freeze(Duration::from_millis(100));
            crate::v1::kill_members(&self.processes(true)?, || self.processes(true))?;
            let _ = self.thaw();
            if self.wait_for("populated", 0, Duration::from_millis(50))? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.timeout("emptied", wait));
            }
        }
    }

    /// Waits until `key` of `cgroup.events` is `wanted`; false if it is not after `wait`. A removed group is neither populated nor
    /// frozen.
    fn wait_for(&self, key: &'static str, wanted: u64, wait: Duration) -> Result<bool, CgroupError> {
        let error = |e| io_error("watch", &self.path, "cgroup.events", e);
        let file = match self.directory.file("cgroup.events") {
            Ok(file) => file,
            Err(e) if crate::error::is_gone(&e) => return Ok(wanted == 0),
            Err(e) => return Err(error(e)),
        };
        let deadline = Instant::now() + wait;
        loop {
            let now = match read_descriptor(file.as_fd(), |text| value_of(text, key)) {
                Ok(now) => now,
                Err(e) if crate::error::is_gone(&e) => return Ok(wanted == 0),
                Err(e) => return Err(error(e)),
            };
            if now == Some(wanted) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // The kernel raises POLLPRI when the file changes; a poll that is interrupted just looks again.
            let slice = left.min(Duration::from_millis(100));
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(slice.subsec_nanos()) };
            let _ = poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout));
        }
    }

    fn timeout(&self, state: &'static str, waited: Duration) -> CgroupError {
        let mut processes = self.processes(true).unwrap_or_default();
        processes.truncate(16);
        CgroupError::Timeout { state, path: self.path.as_str().into(), waited, processes }
    }
}
