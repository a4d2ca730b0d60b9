//! Which namespaces a container gets: new ones, joined ones, and the order in which a process enters them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};
use sys::namespace::{join, kind, leave};
use sys::process::{Child, Cloned, clone_process};

use crate::error::{At, Failure, Stage};

/// The namespaces of a configuration.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of the new ones.
    pub(crate) new: u64,
    joined: Vec<Joined>,
    /// What the offsets file of a new time namespace gets.
    time_offsets: String,
}

#[derive(Debug)]
struct Joined {
    kind: u64,
    path: PathBuf,
    fd: OwnedFd,
}

impl Namespaces {
    /// Reads and checks the list; opens those to join.
    pub(crate) fn of(linux: &Linux) -> Result<Namespaces, Failure> {
        let mut namespaces = Namespaces { new: 0, joined: Vec::new(), time_offsets: String::new() };
        let mut seen = 0;
        for namespace in linux.namespaces().iter().flatten() {
            let kind = number(namespace.typ());
            let fail = |cause: &str| Failure::new(Stage::Namespaces, name(kind), cause);
            if seen & kind != 0 {
                return Err(fail("is listed twice"));
            }
            seen |= kind;
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => namespaces.new |= kind,
                Some(path) => {
                    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .at(Stage::Namespaces, || format!("{} namespace {}", name(kind), path.display()))?;
                    namespaces.joined.push(Joined { kind, path: path.clone(), fd });
                }
            }
        }
        if seen & kind::MOUNT == 0 {
            return Err(Failure::new(Stage::Namespaces, "mount", "a container needs a mount namespace")
                .remedy("add {\"type\": \"mount\"} to linux.namespaces"));
        }
        namespaces.check_maps(linux)?;
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            if namespaces.new & kind::TIME == 0 {
                return Err(Failure::new(
                    Stage::Namespaces,
                    "linux.timeOffsets",
                    "need a new time namespace",
                ));
            }
            if !["monotonic", "boottime"].contains(&clock.as_str()) {
                return Err(Failure::new(
                    Stage::Namespaces,
                    format!("linux.timeOffsets.{clock}"),
                    "only monotonic and boottime have offsets",
                ));
            }
            let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            namespaces.time_offsets.push_str(&format!("{clock} {secs} {nanos}\n"));
        }
        Ok(namespaces)
    }

    fn check_maps(&self, linux: &Linux) -> Result<(), Failure> {
        let fail = |cause| Err(Failure::new(Stage::Namespaces, "user", cause));
        let has = |maps: &Option<Vec<_>>| maps.as_ref().is_some_and(|maps| !maps.is_empty());
        let mapped = (has(linux.uid_mappings()), has(linux.gid_mappings()));
        if self.new & kind::USER != 0 && mapped != (true, true) {
            return fail("a new user namespace needs linux.uidMappings and linux.gidMappings");
        }
        if self.new & kind::USER == 0 && !self.joins(kind::USER) && mapped != (false, false) {
            return fail("linux.uidMappings and linux.gidMappings need a user namespace");
        }
        Ok(())
    }

    /// The namespace of this kind that is joined by path, if one is.
    pub(crate) fn joined(&self, kind: u64) -> Option<&OwnedFd> {
        self.joined.iter().find(|joined| joined.kind == kind).map(|joined| &joined.fd)
    }

    /// Whether a namespace of this kind is joined by path.
    pub(crate) fn joins(&self, kind: u64) -> bool {
        self.joined(kind).is_some()
    }

    /// Whether the container has a user namespace that is not the runtime's.
    pub(crate) fn has_user(&self) -> bool {
        self.new & kind::USER != 0 || self.joins(kind::USER)
    }

    /// Whether the container has its own namespace of this kind, new or joined.
    pub(crate) fn has(&self, kind: u64) -> bool {
        self.new & kind != 0 || self.joins(kind)
    }

    /// Clones the container's process: in all new namespaces but the cgroup's, which it takes once it is in its cgroup.
    pub(crate) fn clone(&self, cgroup: Option<std::os::fd::BorrowedFd<'_>>) -> Result<Cloned, Failure> {
        let flags = self.new & !(kind::CGROUP | kind::TIME);
        if self.has_user() && !self.joined.is_empty() {
            return self.clone_between(flags);
        }
        let restore = self.enter_for_children()?;
        let cloned = clone_process(flags, cgroup).map_err(|error| {
            Failure::io(Stage::Namespaces, "making the container's process and namespaces", &error)
        });
        if !matches!(cloned, Ok(Cloned::Child)) {
            for (kind, fd) in restore {
                join(fd.as_fd(), kind)
                    .at(Stage::Namespaces, || format!("going back to the own {}", name(kind)))?;
            }
        }
        cloned
    }

    /// The pid and time namespaces take effect on children only: this process enters them for the clone and goes back after.
    fn enter_for_children(&self) -> Result<Vec<(u64, OwnedFd)>, Failure> {
        let own = |file: &str| {
            rustix::fs::open(format!("/proc/self/ns/{file}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .at(Stage::Namespaces, || format!("own {file} namespace"))
        };
        let mut restore = Vec::new();
        if let Some(pid) = self.joined.iter().find(|joined| joined.kind == kind::PID) {
            restore.push((kind::PID, own("pid")?));
            pid.enter()?;
        }
        if self.new & kind::TIME != 0 {
            restore.push((kind::TIME, own("time")?));
            self.new_time()?;
        }
        Ok(restore)
    }

    fn new_time(&self) -> Result<(), Failure> {
        leave(kind::TIME).at(Stage::Namespaces, || "new time namespace")?;
        if self.time_offsets.is_empty() {
            return Ok(());
        }
        std::fs::write("/proc/self/timens_offsets", &self.time_offsets)
            .at(Stage::Namespaces, || format!("time offsets {:?}", self.time_offsets.trim_end()))
    }

    /// Namespaces of a joined user namespace can be entered only from inside it, and those of the host only from outside: a process
    /// in between enters all in the order that works, and makes the container's process as its own sibling.
    fn clone_between(&self, flags: u64) -> Result<Cloned, Failure> {
        let (ours, theirs) = sys::socket::packet_pair().at(Stage::Namespaces, || "socket pair")?;
        match clone_process(0, None).at(Stage::Namespaces, || "process between")? {
            Cloned::Child => {
                drop(ours);
                match self.between(flags) {
                    Ok(Cloned::Child) => Ok(Cloned::Child),
                    Ok(Cloned::Parent(child)) => {
                        let _ = sys::socket::send(
                            theirs.as_fd(),
                            &child.pid.to_ne_bytes(),
                            &[child.pidfd.as_fd()],
                        );
                        sys::process::exit_now(0)
                    }
                    Err(failure) => {
                        let bytes = serde_json::to_vec(&failure).unwrap_or_default();
                        let _ = sys::socket::send(theirs.as_fd(), &bytes, &[]);
                        sys::process::exit_now(1)
                    }
                }
            }
            Cloned::Parent(between) => {
                drop(theirs);
                let mut buffer = [0; 4096];
                let received = sys::socket::receive(ours.as_fd(), &mut buffer);
                let _ = between.wait();
                let (length, mut fds) = received.at(Stage::Namespaces, || "process between")?;
                match (<[u8; 4]>::try_from(&buffer[..length]), fds.pop()) {
                    (Ok(pid), Some(pidfd)) => {
                        Ok(Cloned::Parent(Child { pid: i32::from_ne_bytes(pid), pidfd }))
                    }
                    _ => Err(serde_json::from_slice(&buffer[..length]).unwrap_or_else(|_| {
                        Failure::new(Stage::Namespaces, "process between", "ended without a word")
                    })),
                }
            }
        }
    }

    fn between(&self, flags: u64) -> Result<Cloned, Failure> {
        let (user, others): (Vec<_>, Vec<_>) =
            self.joined.iter().partition(|joined| joined.kind == kind::USER);
        // What the host's user namespace owns is entered from outside, the rest from inside.
        let inside: Vec<_> = others.into_iter().filter(|joined| joined.enter().is_err()).collect();
        for joined in user.into_iter().chain(inside) {
            joined.enter()?;
            if joined.kind == kind::USER {
                become_root()?;
            }
        }
        if self.new & kind::TIME != 0 {
            self.new_time()?;
        }
        clone_process(flags | sys::process::CLONE_PARENT, None)
            .at(Stage::Namespaces, || "making the container's process and namespaces")
    }

    /// In the container's process: enters what is left to join.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        if self.has_user() && !self.joined.is_empty() {
            return Ok(());
        }
        self.joined.iter().filter(|joined| joined.kind != kind::PID).try_for_each(Joined::enter)
    }

    /// In a process that becomes CRIU: enters what the container shares with its pod and CRIU is to share with the container.
    pub(crate) fn enter_shared(&self) -> Result<(), Failure> {
        const SHARED: u64 = kind::NETWORK | kind::IPC | kind::UTS;
        self.joined.iter().filter(|joined| joined.kind & SHARED != 0).try_for_each(Joined::enter)
    }

    /// The pid namespace that the container shares, if it does.
    pub(crate) fn shared_pids(&self) -> Option<&OwnedFd> {
        self.joined.iter().find(|joined| joined.kind == kind::PID).map(|joined| &joined.fd)
    }
}

impl Joined {
    fn enter(&self) -> Result<(), Failure> {
        join(self.fd.as_fd(), self.kind).map_err(|error| {
            let object = format!("joining the {} namespace {}", name(self.kind), self.path.display());
            let failure = Failure::io(Stage::Namespaces, object, &error);
            match error.kind() {
                io::ErrorKind::InvalidInput => failure.remedy("the path must be a namespace of this kind"),
                _ => failure,
            }
        })
    }
}

/// Takes user and group 0 of the user namespace this process is in.
pub(crate) fn become_root() -> Result<(), Failure> {
    sys::users::become_root()
        .at(Stage::Namespaces, || "user and group 0 of the user namespace")
        .map_err(|failure| failure.remedy("the id maps must hold container id 0"))
}

fn number(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::Mount => kind::MOUNT,
        LinuxNamespaceType::Cgroup => kind::CGROUP,
        LinuxNamespaceType::Uts => kind::UTS,
        LinuxNamespaceType::Ipc => kind::IPC,
        LinuxNamespaceType::User => kind::USER,
        LinuxNamespaceType::Pid => kind::PID,
        LinuxNamespaceType::Network => kind::NETWORK,
        LinuxNamespaceType::Time => kind::TIME,
    }
}

fn name(kind: u64) -> &'static str {
    match kind {
        kind::MOUNT => "mount",
        kind::CGROUP => "cgroup",
        kind::UTS => "uts",
        kind::IPC => "ipc",
        kind::USER => "user",
        kind::PID => "pid",
        kind::NETWORK => "network",
        _ => "time",
    }
}
