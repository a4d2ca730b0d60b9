//! Exec: runs another process in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Process;
use rustix::fs::{Mode, OFlags};
use sys::namespace::{join, kind};
use sys::process::{Child, Cloned, clone_process};
use sys::root::Root;

use crate::channel::{Channel, Filter, Report};
use crate::command::Command;
use crate::console::Console;
use crate::error::{At, ExecError, Failure, Stage, Warning};
use crate::process::Attributes;
use crate::record::{Folder, Record, Status, status};

/// What to execute.
#[derive(Debug)]
pub struct ExecRequest<'a> {
    /// The directory of containers' states.
    pub state_root: &'a Path,
    /// The container's id.
    pub id: &'a str,
    /// The process; its capabilities, limits and labels are its own, the seccomp filter is the container's.
    pub process: Process,
    /// Where the terminal goes if `process.terminal` is set.
    pub console: Option<Console>,
    /// A file to write the pid to.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors from 3 on the process inherits.
    pub preserve_fds: u32,
    /// A group below the container's in which the process runs, for example `/probes`; it exists. `None` is the container's own.
    pub cgroup: Option<&'a str>,
    /// Also in a paused container, where the process stops before its first step until the container is resumed.
    pub ignore_paused: bool,
}

/// A process that runs.
#[derive(Debug)]
pub struct Executed {
    /// Its pid in the caller's pid namespace. It is the caller's child.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// What was asked for and could not be had in full.
    pub warnings: Vec<Warning>,
}

/// Executes a process in a container, with the caller's standard streams, and returns when it runs (execve succeeded). The caller must
/// have one thread; see the crate's documentation.
///
/// # Errors
/// The first step that failed; the new process has ended then.
pub fn exec(request: ExecRequest<'_>) -> Result<Executed, ExecError> {
    let id = request.id;
    let folder = Folder::open(request.state_root, id)?;
    let record = folder.read()?;
    let failed = |failure| ExecError::Failed { id: id.into(), failure: Box::new(failure) };
    let now = status(&folder, &record).at(Stage::State, || "init").map_err(failed)?;
    let init = record.init().at(Stage::State, || "init").map_err(failed)?;
    let fits =
        matches!(now, Status::Created | Status::Running) || (now == Status::Paused && request.ignore_paused);
    let Some(init) = init.filter(|_| fits) else {
        return Err(ExecError::NotRunning { id: id.into(), status: now });
    };
    run(request, &folder, &record, &init).map_err(failed)
}

fn run(
    request: ExecRequest<'_>,
    folder: &Folder,
    record: &Record,
    init: &OwnedFd,
) -> Result<Executed, Failure> {
    let process = &request.process;
    crate::process::check_ids(process)?;
    if process.terminal().unwrap_or(false) != request.console.is_some() {
        return Err(Failure::new(Stage::Console, "process.terminal", "goes together with a console socket"));
    }
    let console = request.console.map(Console::connect).transpose()?;
    let raw_environment = crate::environment::read(&record.bundle)?;
    let filter = crate::seccomp_filter::read(folder, record)?;
    let group = match request.cgroup {
        Some(below) => Some(crate::cgroups::below(record, below)?),
        None => crate::cgroups::open(record)?,
    };
    let other_users = in_other_user_namespace(record)?;
    sys::process::set_dumpable(false).at(Stage::Process, || "not dumpable")?;
    let (channel, theirs) = Channel::pair()?;
    if other_users {
        crate::process::give_streams(record.pid, process)
            .at(Stage::Process, || "owner of the standard streams")?;
    }
    let into_cgroup = group.as_ref().and_then(|group| group.birthplace());
    let entrance = crate::cgroups::entrance(group.as_ref(), into_cgroup.is_some())?;
    let child = match clone_beside(init, into_cgroup)? {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            drop(channel);
            Joiner {
                process,
                init,
                other_users,
                channel: theirs,
                console,
                filter,
                raw_environment,
                preserve_fds: request.preserve_fds,
                entrance,
                keyring: record.keyring.then_some(record.id.as_str()),
                personality: record.personality.as_ref(),
                memory_policy: record.memory_policy.as_ref(),
                init_pid: record.pid,
            }
            .run()
        }
    };
    drop((theirs, console, entrance));
    let mut warnings = Vec::new();
    let followed = follow(&channel, &child, process, &mut warnings).and_then(|()| {
        request.pid_file.map_or(Ok(()), |path| crate::create::write_pid_file(path, child.pid))
    });
    if let Err(failure) = followed {
        child.kill_and_reap();
        return Err(failure);
    }
    Ok(Executed { pid: child.pid, pidfd: child.pidfd, warnings })
}

/// Whether the container's user namespace is not the caller's; joining one's own is an error to the kernel.
fn in_other_user_namespace(record: &Record) -> Result<bool, Failure> {
    let of = |pid: &str| {
        rustix::fs::stat(format!("/proc/{pid}/ns/user"))
            .map(|stat| (stat.st_dev, stat.st_ino))
            .at(Stage::Namespaces, || format!("user namespace of {pid}"))
    };
    Ok(of("self")? != of(&record.pid.to_string())?)
}

/// Clones a child that is born in the container's pid namespace; this process goes back to its own.
fn clone_beside(init: &OwnedFd, cgroup: Option<std::os::fd::BorrowedFd<'_>>) -> Result<Cloned, Failure> {
    let own = rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::Namespaces, || "own pid namespace")?;
    join(init.as_fd(), kind::PID).at(Stage::Namespaces, || "pid namespace of the container")?;
    let cloned = clone_process(0, cgroup).map_err(|error| {
        let failure = Failure::io(Stage::Process, "new process", &error);
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOMEM) => failure.remedy("the container's init has ended"),
            _ => failure,
        }
    })?;
    if let Cloned::Parent(_) = cloned {
        match join(own.as_fd(), kind::PID) {
            // Root of the container's user namespace cannot go back to the host's; it makes no further process either.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            other => other.at(Stage::Namespaces, || "going back to the own pid namespace")?,
        }
    }
    Ok(cloned)
}

/// Does the parent's part and waits until the child has become its command: its end of the channel closes on exec.
fn follow(
    channel: &Channel,
    child: &Child,
    process: &Process,
    warnings: &mut Vec<Warning>,
) -> Result<(), Failure> {
    if let Some(adjustment) = process.oom_score_adj() {
        crate::create::set_oom_score_adj(child.pid, adjustment, warnings)?;
    }
    channel.order(&crate::channel::Order::Go)?;
    let mut ready = false;
    loop {
        match channel.next_report()? {
            Some(Report::Warning(warning)) => warnings.push(warning),
            Some(Report::Failed(failure)) => return Err(failure),
            Some(Report::Ready) => ready = true,
            Some(Report::Hooks) => return Err(Failure::new(Stage::State, "message", "out of turn")),
            None if ready => return Ok(()),
            None => return Err(Failure::new(Stage::Process, "the new process", "ended without a word")),
        }
    }
}

/// The new process, on its way into the container.
struct Joiner<'a> {
    process: &'a Process,
    init: &'a OwnedFd,
    other_users: bool,
    channel: Channel,
    console: Option<OwnedFd>,
    filter: Option<Filter>,
    raw_environment: Vec<u8>,
    preserve_fds: u32,
    entrance: cgroup::Entrance,
    /// The container's id, if it has a keyring.
    keyring: Option<&'a str>,
    personality: Option<&'a oci_spec::runtime::LinuxPersonality>,
    memory_policy: Option<&'a oci_spec::runtime::LinuxMemoryPolicy>,
    /// The number of init on the host.
    init_pid: i32,
}

impl Joiner<'_> {
    fn run(mut self) -> ! {
        let entered = std::mem::take(&mut self.entrance).enter().at(Stage::Cgroup, || "entering it");
        let failure = match entered.and_then(|()| self.enter()) {
            Ok(command) => command.execute(),
            Err(failure) => failure,
        };
        let code = if failure.errno == Some(rustix::io::Errno::NOENT.raw_os_error()) { 127 } else { 126 };
        let _ = self.channel.report(&Report::Failed(failure));
        sys::process::exit_now(code)
    }

    fn enter(&self) -> Result<Command, Failure> {
        let mut warnings = Vec::new();
        let affinity = self.process.exec_cpu_affinity().as_ref();
        if let Some(list) = affinity.and_then(|affinity| affinity.initial().as_deref()) {
            crate::process::set_affinity(list)?;
        }
        sys::signal::reset_all().at(Stage::Process, || "signals")?;
        rustix::process::setsid().at(Stage::Process, || "new session")?;
        rustix::process::umask(Mode::empty());
        self.channel.expect_go()?;
        if let Some(list) = affinity.and_then(|affinity| affinity.cpu_affinity_final().as_deref()) {
            crate::process::set_affinity(list)?;
        }
        // The private procfs is of the container's pid namespace, in which this process was born, and made with the host's rights.
        let labels = crate::labels::Labels::open(self.process, &mut |warning| warnings.push(warning))?;
        self.join_namespaces()?;
        if let Some(id) = self.keyring {
            labels.join_keyring(id)?;
        }
        let root = Root::open(Path::new("/")).at(Stage::Rootfs, || "/")?;
        let peer = self.console(&root)?;
        let cwd = self.process.cwd();
        let directory = root.directory(cwd).map_err(|error| {
            let failure = Failure::io(Stage::Process, format!("working directory {}", cwd.display()), &error);
            match error.kind() {
                std::io::ErrorKind::NotFound => failure.remedy("it does not exist in the container"),
                _ => failure,
            }
        })?;
        crate::process::enter_directory(directory.as_fd(), cwd)?;
        drop((directory, root, peer));
        let attributes = Attributes::of(self.process, self.filter.is_some(), &mut warnings)?;
        let command = Command::of(self.process, &self.raw_environment)?;
        attributes.limits(self.process, &mut warnings)?;
        crate::process::personality(self.personality)?;
        crate::process::memory_policy(self.memory_policy)?;
        attributes.owner_of_streams();
        attributes.become_user(self.process)?;
        labels.apply()?;
        for warning in warnings {
            self.channel.report(&Report::Warning(warning))?;
        }
        self.channel.report(&Report::Ready)?;
        sys::process::close_on_exec_from(3).at(Stage::Command, || "closing descriptors")?;
        sys::process::inherit_descriptors(3, self.preserve_fds)
            .at(Stage::Command, || format!("{} descriptors to preserve", self.preserve_fds))?;
        if let Some(filter) = &self.filter {
            crate::seccomp_filter::load(&filter.without_listener(), None)?;
            attributes.finish()?;
        }
        Ok(command)
    }

    fn join_namespaces(&self) -> Result<(), Failure> {
        let users = if self.other_users { kind::USER } else { 0 };
        let kinds = kind::MOUNT | kind::CGROUP | kind::UTS | kind::IPC | kind::NETWORK | kind::TIME | users;
        let joined = join(self.init.as_fd(), kinds).or_else(|error| match error.kind() {
            // One that is the host's, and so is this process's own, must not be named by root of a user namespace.
            std::io::ErrorKind::PermissionDenied => join(self.init.as_fd(), kinds & self.other_kinds()),
            _ => Err(error),
        });
        joined.at(Stage::Namespaces, || "namespaces of the container").map_err(|failure| {
            failure.remedy("its init has just ended, or this process lacks CAP_SYS_ADMIN")
        })?;
        if self.other_users {
            crate::namespaces::become_root()?;
        }
        Ok(())
    }

    /// The kinds of namespaces in which the container differs from this process.
    fn other_kinds(&self) -> u64 {
        let names = [
            (kind::MOUNT, "mnt"),
            (kind::CGROUP, "cgroup"),
            (kind::UTS, "uts"),
            (kind::IPC, "ipc"),
            (kind::NETWORK, "net"),
            (kind::TIME, "time"),
            (kind::USER, "user"),
        ];
        let inode = |pid: &str, name: &str| {
            rustix::fs::stat(format!("/proc/{pid}/ns/{name}")).map(|stat| stat.st_ino)
        };
        let init = self.init_pid.to_string();
        let differs = |name: &str| match (inode("self", name), inode(&init, name)) {
            (Ok(own), Ok(theirs)) => own != theirs,
            _ => true,
        };
        names.into_iter().filter(|(_, name)| differs(name)).fold(0, |kinds, (kind, _)| kinds | kind)
    }

    /// Opens a terminal in the container's devpts. Like every path of the container, /dev/pts is resolved without links.
    fn console(&self, root: &Root) -> Result<Option<OwnedFd>, Failure> {
        let Some(socket) = &self.console else { return Ok(None) };
        let devpts =
            crate::init::plain_directory(root, Path::new("/dev/pts")).at(Stage::Console, || "/dev/pts")?;
        let size = crate::process::console_size(self.process);
        crate::console::open(devpts.as_fd(), size, self.process.user().uid(), socket.as_fd()).map(Some)
    }
}
