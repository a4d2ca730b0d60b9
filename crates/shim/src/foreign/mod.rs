//! Containers that a runtime of somebody else runs: what a helper calls instead of the runtime of this program.
//!
//! Everything here runs in helpers and may wait. The shim itself parents the processes, reads their output and learns of their ends as it
//! does for its own runtime's.

mod oci;
pub(crate) mod pause;
mod program;
mod roots;
mod task;

use crate::config::{Foreign, ShimConfig};
use crate::protocol::{CallError, ErrorCode};
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) use oci::error_in as last_words;
pub(crate) use roots::prepare;
pub use roots::unmount_below;
pub(crate) use task::Streams;

/// What a helper is asked to do with a container: which one, and where its bundle is.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
}

/// What a container is made of besides its bundle. Its standard streams are the helper's own.
#[derive(Debug)]
pub(crate) struct Making {
    pub(crate) rootfs: Option<OwnedFd>,
    pub(crate) volumes: Vec<OwnedFd>,
    /// A connected socket that takes the master of its terminal.
    pub(crate) console: Option<OwnedFd>,
}

/// A container that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) own_pid_namespace: bool,
}

/// How a process ended that is somebody else's child.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u32,
    /// Nanoseconds since 1970; 0 if that is not known.
    pub(crate) exited_at_ns: i64,
    /// Why its end was not seen.
    pub(crate) lost: Option<String>,
}

/// A pod's foreign runtime.
#[derive(Debug)]
pub(crate) struct Runtime {
    foreign: Foreign,
    pod_dir: PathBuf,
    pod_id: String,
    /// The path of the pod's socket, by a descriptor: short enough for whoever has only the classic form of addresses.
    socket: String,
    _folder: Option<OwnedFd>,
}

impl Runtime {
    /// # Errors
    /// The pod's folder cannot be opened.
    pub(crate) fn new(foreign: Foreign, config: &ShimConfig) -> io::Result<Runtime> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match foreign {
            Foreign::Oci(_) => None,
            Foreign::Task(_) => Some(rustix::fs::open(&config.pod_dir, flags, Mode::empty())?),
        };
        let number = folder.as_ref().map_or(0, AsRawFd::as_raw_fd);
        let socket = format!("/proc/{}/fd/{number}/shim.sock", std::process::id());
        let (pod_dir, pod_id) = (config.pod_dir.clone(), config.pod_id.clone());
        Ok(Runtime { foreign, pod_dir, pod_id, socket, _folder: folder })
    }

    /// Whether all its processes are somebody else's children, whose ends have to be waited for, and whose streams are fifos.
    pub(crate) fn parents(&self) -> bool {
        matches!(self.foreign, Foreign::Task(_))
    }

    /// Whether one process stands for all containers: the end of each is asked for once it was started. Further processes are children.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(&self.foreign, Foreign::Oci(program) if program.pause)
    }

    /// Whether the process of a container may be another's, so that nothing is done with its number but to show it.
    pub(crate) fn waits(&self) -> bool {
        self.parents() || self.is_shared()
    }

    /// Does what comes before the first container; `spec` is that of one which stands for the pod.
    pub(crate) fn begin_pod(&self, spec: &[u8]) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(oci) => oci.begin_pod(&self.pod_id, spec),
            Kind::Task(task) => task.begin_pod(spec),
        }
    }

    /// Does what comes after the last container.
    pub(crate) fn end_pod(&self) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(oci) => oci.end_pod(&self.pod_id),
            Kind::Task(task) => task.end_pod(),
        }
    }

    /// Makes a container up to its first instruction, or nothing of it.
    pub(crate) fn create(&self, target: &Target, making: &Making) -> Result<Made, CallError> {
        let done = roots::attach(&self.pod_dir, &target.id, making).map_err(|cause| {
            let what = format!("container {}: its root file system: {cause}", target.id);
            CallError::new(ErrorCode::CreateFailed, what).at("rootfs")
        });
        let made = done.and_then(|()| match self.kind() {
            Kind::Oci(oci) => oci.create(target, making.console.as_ref()),
            Kind::Task(task) => task.create(target),
        });
        if made.is_err() {
            // What is left belongs to nobody else: this helper was started for this container.
            program::end_all_children();
            let _ = self.delete(target);
        }
        made
    }

    pub(crate) fn start(&self, target: &Target) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(oci) => oci.start(target),
            Kind::Task(task) => task.start(target),
        }
    }

    /// Runs a further process, of which `process` is the OCI object; its pid.
    pub(crate) fn exec(
        &self,
        target: &Target,
        exec_id: &str,
        process: &[u8],
        io: ExecIo<'_>,
    ) -> Result<i32, CallError> {
        let done = match self.kind() {
            Kind::Oci(oci) => oci.exec(target, exec_id, process, io.console),
            Kind::Task(task) => task.exec(target, exec_id, process, io.streams),
        };
        if done.is_err() {
            program::end_all_children();
        }
        done
    }

    /// Waits for the end of a container, or of a further process with these streams, that is somebody else's child.
    pub(crate) fn wait(&self, target: &Target, exec: Option<(&str, Streams)>) -> Ended {
        match self.kind() {
            Kind::Oci(oci) => oci.wait(target),
            Kind::Task(task) => task.wait(target, exec),
        }
    }

    /// What has ended is no error.
    pub(crate) fn kill(&self, target: &Target, signal: i32, all: bool) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(oci) => oci.kill(target, signal, all),
            Kind::Task(task) => task.kill(target, None, signal, all),
        }
    }

    /// Sends a signal to a further process that is not simply a child of the shim.
    pub(crate) fn kill_exec(&self, target: &Target, exec_id: &str, signal: i32) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(oci) => oci.kill_exec(target, exec_id, signal),
            Kind::Task(task) => task.kill(target, Some(exec_id), signal, false),
        }
    }

    /// Removes everything of a container, whatever state it is in. One that is not there is removed.
    pub(crate) fn delete(&self, target: &Target) -> Result<(), CallError> {
        let deleted = match self.kind() {
            Kind::Oci(oci) => oci.delete(target),
            Kind::Task(task) => task.delete(target),
        };
        let cgroup = remove_cgroup(target);
        let detached = roots::detach(&self.pod_dir, &target.id).map_err(|cause| {
            let what = format!("container {}: its root file system: {cause}", target.id);
            CallError::new(ErrorCode::DeleteFailed, what).at("rootfs")
        });
        deleted.and(cgroup).and(detached)
    }

    /// Changes the limits; `resources` is the OCI object.
    pub(crate) fn update(&self, target: &Target, resources: &[u8]) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(oci) => oci.update(target, resources),
            Kind::Task(task) => task.update(target, resources),
        }
    }

    /// Gives a terminal another size that is somebody else's.
    pub(crate) fn resize(&self, target: &Target, width: u16, height: u16) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(_) => Ok(()),
            Kind::Task(task) => task.resize(target, width, height),
        }
    }

    /// Says that nobody writes to a container's input any more.
    pub(crate) fn close_input(&self, target: &Target) -> Result<(), CallError> {
        match self.kind() {
            Kind::Oci(_) => Ok(()),
            Kind::Task(task) => task.close_input(target),
        }
    }

    fn kind(&self) -> Kind<'_> {
        match &self.foreign {
            Foreign::Oci(program) => Kind::Oci(oci::Oci::new(program, &self.pod_dir)),
            Foreign::Task(shim) => {
                Kind::Task(task::Task::new(shim, &self.pod_dir, &self.pod_id, &self.socket))
            }
        }
    }
}

enum Kind<'a> {
    Oci(oci::Oci<'a>),
    Task(task::Task<'a>),
}

/// The streams of a further process besides those of the helper: where the master of its terminal goes, or what a foreign shim gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecIo<'a> {
    pub(crate) console: Option<&'a OwnedFd>,
    pub(crate) streams: &'a Streams,
}

/// The parts of a bundle's configuration that are of interest here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    linux: ConfigLinux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ConfigLinux {
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Deserialize)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    path: Option<PathBuf>,
}

/// What was made of a container with this process.
fn made(pod_dir: &Path, target: &Target, pid: i32) -> Made {
    // The cgroup of a process that runs all containers is not this one's.
    let cgroup = if pause::is(pod_dir, pid) { None } else { cgroup_of(pid) };
    Made { pid, cgroup, own_pid_namespace: own_pid_namespace(&target.bundle) }
}

/// Whether the end of the container's first process ends all others of it.
fn own_pid_namespace(bundle: &Path) -> bool {
    let read =
        || -> io::Result<Config> { Ok(serde_json::from_slice(&std::fs::read(bundle.join("config.json"))?)?) };
    let config = read().unwrap_or_default();
    config.linux.namespaces.iter().any(|namespace| namespace.kind == "pid" && namespace.path.is_none())
}

/// The cgroup that a process is in, relative to the roots of the hierarchies: with version 1 where its memory is counted.
fn cgroup_of(pid: i32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    cgroup_in(&text)
}

/// As proc_pid_cgroup(5) has it: `hierarchy:controllers:path`, a line each.
fn cgroup_in(text: &str) -> Option<PathBuf> {
    let lines = || text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let of = |wanted: &str| {
        lines().find(|(controllers, _)| controllers.split(',').any(|one| one == wanted)).map(|(_, path)| path)
    };
    let path = of("memory").or_else(|| of("pids")).or_else(|| of(""))?;
    (path != "/" && !path.ends_with(" (deleted)")).then(|| path.into())
}

/// Ends what is left in the container's cgroup and removes it: a runtime that failed may have left both.
fn remove_cgroup(target: &Target) -> Result<(), CallError> {
    crate::parent::work::remove_cgroup(&target.bundle).map_err(|cause| {
        let what = format!("container {}: its cgroup: {cause}", target.id);
        CallError::new(ErrorCode::DeleteFailed, what).at("cgroup")
    })
}

#[cfg(test)]
mod tests;
