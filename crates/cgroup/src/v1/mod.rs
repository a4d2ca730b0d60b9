//! Version 1: a group is a directory of the same path in every hierarchy.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use crate::directory::Directory;
use crate::error::{CgroupError, delete_error, io_error};
use crate::host::Controller;
use crate::path::CgroupPath;

mod apply;
mod devices;
mod stats;

pub(crate) use stats::UsageFiles;

/// The mounted hierarchies.
#[derive(Debug)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
    /// The tree of version 2 of a hybrid host. It has no controllers, but `cgroup.kill`.
    pub(crate) unified: Option<Directory>,
}

/// One hierarchy.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Its options, as in /proc/self/cgroup.
    pub(crate) label: String,
    /// May be none: `name=systemd`.
    pub(crate) controllers: Vec<Controller>,
    pub(crate) directory: Directory,
}

/// A group in every hierarchy that has it.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) path: CgroupPath,
    members: Vec<Member>,
    unified: Option<Directory>,
}

#[derive(Debug)]
struct Member {
    label: String,
    controllers: Vec<Controller>,
    directory: Directory,
}

const UNIFIED: &str = "unified";

impl Mounts {
    pub(crate) fn create(&self, path: CgroupPath) -> Result<Group, CgroupError> {
        let mut made: Vec<&Directory> = Vec::new();
        let result = self.create_all(&path, &mut made);
        if result.is_err() {
            for root in made {
                let _ = root.remove(path.as_str(), Instant::now());
            }
        }
        let (members, unified) = result?;
        Ok(Group { path, members, unified })
    }

    /// Pushes to `made` the hierarchies in which the group is new.
    fn create_all<'a>(
        &'a self,
        path: &CgroupPath,
        made: &mut Vec<&'a Directory>,
    ) -> Result<(Vec<Member>, Option<Directory>), CgroupError> {
        let mut make = |root: &'a Directory, label: &str| -> Result<Directory, CgroupError> {
            let error = |source| io_error("create", path, label, source);
            if root.make(path).map_err(error)? {
                made.push(root);
            }
            root.open(path.as_str()).map_err(error)
        };
        let mut members = Vec::with_capacity(self.mounts.len());
        for mount in &self.mounts {
            let directory = make(&mount.directory, &mount.label)?;
            if mount.controllers.contains(&Controller::Cpuset) {
                inherit_cpuset(&mount.directory, &directory, path)
                    .map_err(|e| io_error("create", path, "cpuset", e))?;
            }
            members.push(mount.member(directory));
        }
        let unified = self.unified.as_ref().map(|root| make(root, UNIFIED)).transpose()?;
        Ok((members, unified))
    }

    pub(crate) fn open(&self, path: CgroupPath) -> Result<Group, CgroupError> {
        let mut members = Vec::with_capacity(self.mounts.len());
        for mount in &self.mounts {
            match mount.directory.open(path.as_str()) {
                Ok(directory) => members.push(mount.member(directory)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(io_error("open", &path, &mount.label, e)),
            }
        }
        if members.is_empty() {
            return Err(CgroupError::NotFound { path: path.as_str().into() });
        }
        let unified = self.unified.as_ref().and_then(|root| root.open(path.as_str()).ok());
        Ok(Group { path, members, unified })
    }

    pub(crate) fn delete(
        &self,
        path: &CgroupPath,
        deadline: Instant,
        wait: Duration,
    ) -> Result<(), CgroupError> {
        let mut first = Ok(());
        let unified = self.unified.iter().map(|root| (UNIFIED, root));
        for (label, root) in self.mounts.iter().map(|m| (m.label.as_str(), &m.directory)).chain(unified) {
            // A failure does not keep the other hierarchies from being cleaned.
            if let Err(e) = root.remove(path.as_str(), deadline) {
                first = first.and_then(|()| Err(delete_error(root, path, label, wait, e)));
            }
        }
        first
    }
}

impl Mount {
    fn member(&self, directory: Directory) -> Member {
        Member { label: self.label.clone(), controllers: self.controllers.clone(), directory }
    }
}

impl Group {
    pub(crate) fn find(&self, controller: Controller) -> Option<&Directory> {
        self.members.iter().find(|m| m.controllers.contains(&controller)).map(|m| &m.directory)
    }

    pub(crate) fn add_process(&self, pid: i32) -> Result<(), CgroupError> {
        let pid = pid.to_string();
        let unified = self.unified.iter().map(|d| (UNIFIED, d));
        for (label, directory) in self.members.iter().map(|m| (m.label.as_str(), &m.directory)).chain(unified)
        {
            directory
                .write("cgroup.procs", &pid)
                .map_err(|e| io_error("add a process to", &self.path, label, e))?;
        }
        Ok(())
    }

    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// `tasks` moves one thread; written by itself it is the quick way (see [`crate::Entrance::enter`]).
    pub(crate) fn entrance(&self, born: bool) -> Result<Vec<OwnedFd>, CgroupError> {
        let open = |label: &str, directory: &Directory, name: &str| {
            directory.writable(name).map_err(|e| io_error("open the way into", &self.path, label, e))
        };
        let mut files = Vec::with_capacity(self.members.len() + 1);
        for member in &self.members {
            files.push(open(&member.label, &member.directory, "tasks")?);
        }
        if let Some(unified) = self.unified.as_ref().filter(|_| !born) {
            files.push(open(UNIFIED, unified, "cgroup.procs")?);
        }
        Ok(files)
    }

    /// The directory that tells who is in the group. Another program may move a process out of one hierarchy (systemd does in its
    /// own); those with controllers are where it is held.
    fn census(&self) -> Option<&Directory> {
        [Controller::Freezer, Controller::Pids, Controller::Memory, Controller::Cpu]
            .iter()
            .find_map(|c| self.find(*c))
            .or(self.members.first().map(|m| &m.directory))
    }

    pub(crate) fn processes(&self, recursive: bool) -> Result<Vec<i32>, CgroupError> {
        self.census().map_or(Ok(Vec::new()), |d| {
            d.processes(recursive)
                .map_err(|e| io_error("list the processes of", &self.path, "cgroup.procs", e))
        })
    }

    fn freezer(&self, doing: &'static str) -> Result<&Directory, CgroupError> {
        self.find(Controller::Freezer).ok_or(CgroupError::NoController {
            doing,
            path: self.path.as_str().into(),
            controller: "freezer",
        })
    }

    pub(crate) fn freeze(&self, wait: Duration) -> Result<(), CgroupError> {
        let freezer = self.freezer("freeze")?;
        let error = |e| io_error("freeze", &self.path, "freezer.state", e);
        let deadline = Instant::now() + wait;
        let mut pause = Duration::from_micros(50);
        for attempt in 1u32.. {
            // Writing again takes in processes that were forked while others froze.
            freezer.write("freezer.state", "FROZEN").map_err(error)?;
            if freezer.read("freezer.state", |t| t.trim() == "FROZEN").map_err(error)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                break;
            }
            if attempt % 50 == 0 {
                // Some processes cannot freeze while others are frozen (vfork): let go and try again.
                freezer.write("freezer.state", "THAWED").map_err(error)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        }
        self.thaw()?;
        Err(self.timeout("frozen", wait))
    }

    pub(crate) fn thaw(&self) -> Result<(), CgroupError> {
        self.freezer("thaw")?
            .write("freezer.state", "THAWED")
            .map_err(|e| io_error("thaw", &self.path, "freezer.state", e))
    }

    pub(crate) fn freezer_path(&self) -> Result<std::path::PathBuf, CgroupError> {
        let freezer = self.freezer("freeze")?;
        freezer.path().map_err(|e| io_error("find", &self.path, "freezer", e))
    }

    pub(crate) fn spare_from_freezing(&self, mounts: &Mounts, pid: i32) -> Result<(), CgroupError> {
        let error = |e| io_error("spare a process of", &self.path, "freezer", e);
        let own = crate::host::own_path("freezer").map_err(error)?;
        let found = mounts.mounts.iter().find(|mount| mount.controllers.contains(&Controller::Freezer));
        let Some(mount) = found else { return Ok(()) };
        let own = mount.directory.open(&own).map_err(error)?;
        own.write("cgroup.procs", &pid.to_string()).map_err(error)
    }

    pub(crate) fn is_frozen(&self) -> Result<bool, CgroupError> {
        self.freezer("look at")?
            .read("freezer.state", |t| t.trim() == "FROZEN")
            .map_err(|e| io_error("look at", &self.path, "freezer.state", e))
    }

    pub(crate) fn kill_all(&self, wait: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + wait;
        let mut pause = Duration::from_micros(100);
        loop {
            let processes = self.processes(true)?;
            if processes.is_empty() {
                return Ok(());
            }
            // In the tree of version 2 the kernel kills the whole group at once.
            let at_once = self.unified.as_ref().is_some_and(|d| d.write("cgroup.kill", "1").is_ok());
            if !at_once || pause > Duration::from_millis(1) {
                // Frozen, they can neither fork nor exit while they are signalled. If they cannot be frozen they are signalled
                // all the same, again and again.
                let _ = self.freeze(Duration::from_millis(20));
                self.signal_all()?;
            }
            // A frozen process dies when it is thawed.
            if let Some(freezer) = self.find(Controller::Freezer) {
                self.thaw_below(freezer);
            }
            if Instant::now() >= deadline {
                return Err(self.timeout("emptied", wait));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Thaws the group and every one below it; what fails shows as a process that does not die.
    fn thaw_below(&self, freezer: &Directory) {
        let _ = freezer.write("freezer.state", "THAWED");
        for child in freezer.descendants().unwrap_or_default() {
            let _ = freezer.write(&format!("{child}/freezer.state"), "THAWED");
        }
    }

    fn signal_all(&self) -> Result<(), CgroupError> {
        kill_members(&self.processes(true)?, || self.processes(true))
    }

    fn timeout(&self, state: &'static str, waited: Duration) -> CgroupError {
        let mut processes = self.processes(true).unwrap_or_default();
        processes.truncate(16);
        CgroupError::Timeout { state, path: self.path.as_str().into(), waited, processes }
    }
}

/// Gives an empty cpuset what the nearest one above it has that is not, and those between too; until then no process can enter it
/// (cgroup-v1/cpusets.rst).
fn inherit_cpuset(root: &Directory, leaf: &Directory, path: &CgroupPath) -> io::Result<()> {
    let above: Vec<&str> = path.prefixes().collect();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = leaf.text(file)?;
        let mut empty = Vec::new();
        for group in above.iter().rev() {
            if !value.is_empty() {
                break;
            }
            empty.push(format!("{group}/{file}"));
            value = match group.rsplit_once('/') {
                Some((parent, _)) => root.text(&format!("{parent}/{file}"))?,
                None => root.text(file)?,
            };
        }
        for place in empty.iter().rev() {
            root.write(place, &value)?;
        }
    }
    Ok(())
}

/// Sends SIGKILL to `processes`. A number is used only if its process is in the group (`census`) after its pidfd was opened, so that
/// one reused by somebody else is not hit.
pub(crate) fn kill_members(
    processes: &[i32],
    census: impl FnOnce() -> Result<Vec<i32>, CgroupError>,
) -> Result<(), CgroupError> {
    let open = |pid| rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
    let opened: Vec<(i32, OwnedFd)> = processes.iter().filter_map(|pid| Some((*pid, open(*pid)?))).collect();
    let still = census()?;
    for (pid, fd) in opened {
        if still.binary_search(&pid).is_ok() {
            // It may have died since: that is what is wanted.
            let _ = rustix::process::pidfd_send_signal(fd, Signal::KILL);
        }
    }
    Ok(())
}
