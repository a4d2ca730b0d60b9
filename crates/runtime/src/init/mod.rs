//! What the container's process does between its clone and its command: it builds the container around itself.

mod cgroup_mount;
mod copy_up;
mod devices;
mod finish;
mod mount;
mod paths;
mod rootfs;
mod sysctl;
mod target;

use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{Linux, Process, Spec};
use sys::namespace::kind;
use sys::root::Root;

pub(crate) use cgroup_mount::{HOST as CGROUPS, bind as bind_cgroup};
pub(crate) use devices::{Devices, prepare as prepare_devices};
pub(crate) use target::{Kind, open_or_make, plain_directory};

use crate::channel::{Channel, Report};
use crate::error::{At, Failure, Stage, Warning};
use crate::mounts::Prepared;
use crate::namespaces::Namespaces;

/// All that the process needs, prepared before the clone.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) linux: &'a Linux,
    pub(crate) process: &'a Process,
    pub(crate) namespaces: &'a Namespaces,
    /// The root file system as a detached mount.
    pub(crate) rootfs: OwnedFd,
    pub(crate) mounts: Vec<Prepared>,
    pub(crate) devices: Devices,
    pub(crate) cgroup: crate::cgroups::View,
    pub(crate) channel: Channel,
    /// The socket on which start arrives.
    pub(crate) listener: OwnedFd,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) seccomp_listener: Option<OwnedFd>,
    /// What hooks get on standard input; the pid is this process's and filled in by the runtime.
    pub(crate) state: crate::record::Record,
    pub(crate) preserve_fds: u32,
    /// See [`crate::environment`].
    pub(crate) raw_environment: Vec<u8>,
    /// Into the cgroup, as far as the process was not born in it.
    pub(crate) entrance: cgroup::Entrance,
    pub(crate) no_pivot: bool,
    pub(crate) check_command: bool,
}

/// Becomes the container. Never returns: either the command replaces this process or it ends.
pub(crate) fn run(mut plan: Plan<'_>) -> ! {
    // Into the cgroup before anything that it should limit or count.
    let entered = std::mem::take(&mut plan.entrance).enter().at(Stage::Cgroup, || "entering it");
    let failure = match entered.and_then(|()| build(&plan)) {
        Ok(built) => finish::wait_and_exec(&plan, built),
        Err(failure) => failure,
    };
    let _ = plan.channel.report(&Report::Failed(failure));
    sys::process::exit_now(1)
}

/// What the last steps need of the earlier ones.
struct Built {
    cwd: OwnedFd,
    labels: crate::labels::Labels,
    /// This process's number as the runtime sees it; 0 where nobody asks for it.
    pid_outside: i32,
}

fn build(plan: &Plan<'_>) -> Result<Built, Failure> {
    sys::signal::reset_all().at(Stage::Process, || "signals")?;
    rustix::process::setsid().at(Stage::Process, || "new session")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    if plan.namespaces.new & kind::USER != 0 {
        plan.channel.expect_go()?;
        crate::namespaces::become_root()?;
    } else if plan.namespaces.joins(kind::USER) {
        crate::namespaces::become_root()?;
    }
    plan.namespaces.enter()?;
    names(plan)?;
    sysctl::apply(plan)?;
    let labels = crate::labels::Labels::open(plan.process, &mut |warning| warn(plan, warning))?;
    if plan.state.keyring {
        labels.join_keyring(&plan.state.id)?;
    }
    let pid_outside = if plan.seccomp_listener.is_some() { pid_outside()? } else { 0 };
    rootfs::attach(plan)?;
    let root = Root::from_fd(plan.rootfs.try_clone().at(Stage::Rootfs, || "descriptor")?);
    let mut cgroup = cgroup_mount::Pending::new(plan);
    for mount in &plan.mounts {
        mount::make(plan, &root, mount, &mut cgroup)?;
    }
    devices::make(plan, &root)?;
    cgroup.join()?;
    let hooks = plan.spec.hooks().as_ref();
    if hooks.is_some_and(|h| {
        h.prestart().is_some() || h.create_runtime().is_some() || h.create_container().is_some()
    }) {
        plan.channel.report(&Report::Hooks)?;
        plan.channel.expect_go()?;
    }
    if let Some(hooks) = hooks.and_then(|hooks| hooks.create_container().as_ref()) {
        crate::hooks::run(hooks, "createContainer", &finish::state(plan, "creating"))?;
    }
    let peer = console(plan, &root)?;
    let cwd = open_or_make(&root, plan.process.cwd(), Kind::Directory).map_err(|error| {
        let object = format!("working directory {}", plan.process.cwd().display());
        Failure::io(Stage::Process, object, &error)
    })?;
    paths::protect(plan, &root)?;
    rootfs::finish(plan)?;
    own_null_device();
    drop(peer);
    Ok(Built { cwd, labels, pid_outside })
}

/// This process as the procfs of the runtime's pid namespace names it, which is there until the root changes.
fn pid_outside() -> Result<i32, Failure> {
    let link = std::fs::read_link("/proc/self").at(Stage::Seccomp, || "/proc/self")?;
    let number = link.to_str().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::new(Stage::Seccomp, "/proc/self", "does not name this process"))
}

/// Opens the container's own null device for each standard stream that is the host's: nothing of the container is then open on a mount
/// that it does not have, which nobody could checkpoint.
fn own_null_device() {
    use rustix::fs::{FileType, Mode, OFlags, makedev};
    let is_null = |fd: std::os::fd::BorrowedFd<'_>| {
        rustix::fs::fstat(fd).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == makedev(1, 3)
        })
    };
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let [stdin, stdout, stderr] = streams.map(is_null);
    if !(stdin || stdout || stderr) {
        return;
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Not every container has one; then the host's is as good.
    let Ok(own) = rustix::fs::open("/dev/null", flags, Mode::empty()) else { return };
    if !is_null(own.as_fd()) || rustix::fs::fcntl_setfl(&own, OFlags::empty()).is_err() {
        return;
    }
    let _ = stdin.then(|| rustix::stdio::dup2_stdin(&own));
    let _ = stdout.then(|| rustix::stdio::dup2_stdout(&own));
    let _ = stderr.then(|| rustix::stdio::dup2_stderr(&own));
}

fn warn(plan: &Plan<'_>, warning: Warning) {
    let _ = plan.channel.report(&Report::Warning(warning));
}

fn names(plan: &Plan<'_>) -> Result<(), Failure> {
    for (name, what, set) in [
        (plan.spec.hostname(), "hostname", rustix::system::sethostname as fn(&[u8]) -> _),
        (plan.spec.domainname(), "domainname", rustix::system::setdomainname),
    ] {
        let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
        if !plan.namespaces.has(kind::UTS) {
            return Err(Failure::new(
                Stage::Namespaces,
                what,
                "needs a uts namespace of the container's own",
            ));
        }
        set(name.as_bytes()).at(Stage::Namespaces, || format!("{what} {name:?}"))?;
    }
    Ok(())
}

/// Opens the terminal in the container's own devpts and puts it on /dev/console.
fn console(plan: &Plan<'_>, root: &Root) -> Result<Option<OwnedFd>, Failure> {
    let Some(socket) = &plan.console else { return Ok(None) };
    let devpts = plain_directory(root, std::path::Path::new("/dev/pts")).at(Stage::Console, || "/dev/pts")?;
    let size = crate::process::console_size(plan.process);
    let peer = crate::console::open(devpts.as_fd(), size, plan.process.user().uid(), socket.as_fd())
        .map_err(|failure| failure.remedy("the container needs a mount of type devpts at /dev/pts"))?;
    let mount = sys::mount::clone_mount(peer.as_fd(), false).at(Stage::Console, || "/dev/console")?;
    let dev = plain_directory(root, std::path::Path::new("/dev")).at(Stage::Console, || "/dev")?;
    let place =
        devices::plain_file(&dev, std::ffi::OsStr::new("console")).at(Stage::Console, || "/dev/console")?;
    sys::mount::attach(mount.as_fd(), place.as_fd()).at(Stage::Console, || "/dev/console")?;
    Ok(Some(peer))
}
