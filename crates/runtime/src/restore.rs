//! Restore: makes a container as create does, with processes that CRIU makes of a checkpoint in place of the command.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use sys::mount::{Change, Parameter, Propagation, attribute};
use sys::namespace::kind;
use sys::root::Root;

use crate::cgroups::Quota;
use crate::checkpoint::open_folder;
use crate::console::Console;
use crate::create::{self, CreateRequest, Created, Made, Refusal};
use crate::criu::{
    CriuOptions, External, InheritFd, Notice, Options, Origin, PIDS, PRE_RESUME, SETUP_NAMESPACES, Session,
    TERMINAL,
};
use crate::error::{At, CreateError, Failure, Stage};
use crate::idmap::{IdMaps, Users};
use crate::mounts::{Prepared, Source, Sources, clean};
use crate::namespaces::Namespaces;
use crate::record::{RESTORED, Record, Status};

/// What CRIU writes its log to, in the folder for that.
pub const RESTORE_LOG: &str = "restore.log";

const FREEZE_WAIT: Duration = Duration::from_secs(5);

/// What to restore, and how.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// The container to make.
    pub create: CreateRequest<'a>,
    /// The program, as an absolute path.
    pub criu: &'a Path,
    /// The folder with the images. Nothing in it is changed.
    pub images: &'a Path,
    /// The folder for the log.
    pub work: &'a Path,
    /// Let nothing run before start; otherwise the container runs at once.
    pub wait_for_start: bool,
    /// Connections of TCP were saved with their state and are to be restored.
    pub tcp_established: bool,
    /// Connections to unix sockets outside were saved.
    pub external_unix: bool,
    /// File locks were saved.
    pub file_locks: bool,
    /// The container had a terminal of the caller's.
    pub shell_job: bool,
    /// What else.
    pub more: CriuOptions<'a>,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// Restores a container whose standard streams are the caller's. The caller must have one thread; see the crate's documentation.
///
/// # Errors
/// The first step that failed; all earlier steps were taken back.
pub fn restore(request: RestoreRequest<'_>) -> Result<Created, CreateError> {
    let log = request.work.join(RESTORE_LOG);
    let (id, state_root) = (request.create.id, request.create.state_root);
    create::all_or_nothing(id, state_root, |made| {
        make(request, made).map_err(|refusal| match refusal {
            Refusal::Failed(failure) => Refusal::Failed(Box::new(crate::criu::with_log(*failure, &log))),
            Refusal::Exists => Refusal::Exists,
        })
    })
}

fn make(mut request: RestoreRequest<'_>, made: &mut Made) -> Result<Created, Refusal> {
    let mut warnings = Vec::new();
    let console = request.create.console.take();
    let given = request.create.rootfs.take();
    let volumes = std::mem::take(&mut request.create.volumes);
    let new = &request.create;
    let bundle =
        std::path::absolute(new.bundle).at(Stage::Configuration, || new.bundle.display().to_string())?;
    let spec = match &new.spec {
        Some(spec) => spec.clone(),
        None => create::load(&bundle.join("config.json"))?,
    };
    let (linux, _) = create::parts(&spec, console.is_some())?;
    create::open_folder(new.state_root, new.id, made)?;
    let saved = crate::criu::read_saved(request.images)?;
    let namespaces = Namespaces::of(linux)?;
    if namespaces.has_user() {
        return Err(Failure::new(
            Stage::Namespaces,
            "user",
            "a container with a user namespace cannot be restored",
        )
        .into());
    }
    let (rootfs, rootfs_path) = create::root_filesystem(given, &spec, &bundle)?;
    let sources = Sources {
        bundle: &bundle,
        volumes: volumes.into_iter().map(Some).collect(),
        id_maps: IdMaps::new(Users::Host),
    };
    let mounts = crate::mounts::prepare(spec.mounts().as_deref().unwrap_or_default(), sources)?;
    let driver = crate::cgroups::driver(new.systemd_cgroup);
    let cgroup_path = crate::cgroups::path_of(linux, new.id, driver)?;
    let (group, holder) = crate::cgroups::create(&cgroup_path, driver, linux, Quota::AtOnce, &mut warnings)?;
    (made.cgroup, made.holder) = (Some(group), holder);
    let mut record = create::new_record(new.id, &spec, bundle, &namespaces);
    record.rootfs = rootfs_path;
    record.cgroup = Some(cgroup_path.clone());
    sys::process::set_dumpable(false).at(Stage::Process, || "not dumpable")?;
    let (images, work) = (open_folder(request.images)?, open_folder(request.work)?);
    let stage = made.folder()?.path.clone();
    let streams = Streams::of(&saved.streams)?;
    let shared_pids = namespaces.shared_pids();
    let mut options = options(&request, &images, &work, &stage, &saved.external);
    options.inherit_fd = streams.inherited();
    options.inherit_fd.extend(shared_pids.map(|fd| InheritFd { key: PIDS.into(), fd: fd.as_raw_fd() }));
    options.orphan_pts_master = Some(console.is_some());
    request.more.ask(&mut options);
    let console = console.map(Console::connect).transpose()?;
    let entrance = crate::cgroups::entrance(made.cgroup.as_ref(), false)?;
    let group = cgroup_path.display().to_string();
    let session = Session::start(request.criu, || {
        // CRIU itself is moved out again before the processes run.
        entrance.enter().at(Stage::Cgroup, || "entering it")?;
        namespaces.enter_shared()?;
        if namespaces.new & kind::CGROUP != 0 {
            sys::namespace::leave(kind::CGROUP).at(Stage::Namespaces, || "new cgroup namespace")?;
        }
        set_stage(&stage, &rootfs, &mounts, &saved.external, &group)?;
        if let Some(fd) = shared_pids {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).at(Stage::Namespaces, || "pid")?;
        }
        streams.hide()
    })?;
    let cgroup = made.cgroup.as_ref();
    let pid = session.restore(options, request.deadline, |notice| {
        at_moment(&notice, &spec, &record, console.as_ref())?;
        if let Some(group) = cgroup.filter(|_| notice.what == PRE_RESUME) {
            let failed =
                |error: cgroup::CgroupError| Failure::new(Stage::Cgroup, group.path().to_string(), error);
            group.spare_from_freezing(notice.criu).map_err(failed)?;
            if request.wait_for_start {
                group.freeze(FREEZE_WAIT).map_err(failed)?;
            }
        }
        Ok(())
    });
    // What was made before a failure is in the cgroup, and goes with it.
    let pid = pid?;
    record.pid = pid;
    record.start_time = sys::process::start_time(pid).at(Stage::State, || format!("process {pid}"))?;
    let filter = match linux.seccomp() {
        Some(profile) => Some(crate::seccomp_filter::compile(profile, &mut warnings)?),
        None => None,
    };
    record.seccomp_flags = filter.as_ref().map(|filter| filter.flags);
    let number = rustix::process::Pid::from_raw(pid);
    let pidfd = number
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()))
        .at(Stage::State, || format!("process {pid}"))?;
    if request.wait_for_start {
        made.folder()?.mark(RESTORED).at(Stage::State, || RESTORED)?;
    }
    create::keep(made, &record, filter.as_ref(), new.pid_file)?;
    Ok(Created { pid, pidfd, warnings })
}

fn options(
    request: &RestoreRequest<'_>,
    images: &OwnedFd,
    work: &OwnedFd,
    stage: &Path,
    external: &[External],
) -> Options {
    let sources = external.iter().enumerate();
    Options {
        images_dir_fd: images.as_raw_fd(),
        work_dir_fd: Some(work.as_raw_fd()),
        ext_unix_sk: Some(request.external_unix),
        tcp_established: Some(request.tcp_established),
        tcp_close: Some(!request.tcp_established),
        shell_job: Some(request.shell_job),
        file_locks: Some(request.file_locks),
        log_level: Some(4),
        log_file: Some(RESTORE_LOG.into()),
        notify_scripts: Some(true),
        root: Some(stage.join("root").display().to_string()),
        link_remap: Some(true),
        rst_sibling: Some(true),
        manage_cgroups_mode: Some(0),
        external: sources
            .map(|(number, mount)| {
                format!("mnt[{}]:{}", mount.key(), stage.join(number.to_string()).display())
            })
            .collect(),
        ..Options::default()
    }
}

/// What this side has to do at the moments that CRIU tells of.
fn at_moment(
    notice: &Notice,
    spec: &Spec,
    record: &Record,
    console: Option<&OwnedFd>,
) -> Result<(), Failure> {
    match (notice.what.as_str(), spec.hooks()) {
        (SETUP_NAMESPACES, Some(hooks)) => {
            let mut state = record.oci_state(Status::Created);
            state["status"] = "creating".into();
            state["pid"] = notice.pid.into();
            crate::hooks::run(hooks.prestart().as_deref().unwrap_or_default(), "prestart", &state)?;
            crate::hooks::run(hooks.create_runtime().as_deref().unwrap_or_default(), "createRuntime", &state)
        }
        (TERMINAL, _) => match (notice.descriptors.first(), console) {
            (Some(master), Some(socket)) => {
                sys::socket::send(socket.as_fd(), b"/dev/pts/ptmx", &[master.as_fd()])
                    .at(Stage::Console, || "sending the terminal over the console socket")
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The caller's standard streams, as descriptors that CRIU inherits.
struct Streams(Vec<(String, OwnedFd)>);

impl Streams {
    /// Takes those that were pipes when the checkpoint was made.
    fn of(names: &[Option<String>; 3]) -> Result<Streams, Failure> {
        let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        let mut found: Vec<(String, OwnedFd)> = Vec::new();
        for (name, stream) in names.iter().zip(own) {
            let Some(name) = name.as_ref().filter(|name| found.iter().all(|(known, _)| known != *name))
            else {
                continue;
            };
            let copy =
                rustix::io::fcntl_dupfd_cloexec(stream, 3).at(Stage::Process, || "standard streams")?;
            found.push((name.clone(), copy));
        }
        Ok(Streams(found))
    }

    fn inherited(&self) -> Vec<InheritFd> {
        self.0.iter().map(|(key, fd)| InheritFd { key: key.clone(), fd: fd.as_raw_fd() }).collect()
    }

    /// In the process that becomes CRIU: lets it inherit them, and nothing of what it says itself go there.
    fn hide(&self) -> Result<(), Failure> {
        let at = |result: rustix::io::Result<()>| result.at(Stage::Process, || "standard streams");
        for (_, fd) in &self.0 {
            at(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()))?;
        }
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .at(Stage::Process, || "/dev/null")?;
        at(rustix::stdio::dup2_stdin(&null))?;
        at(rustix::stdio::dup2_stdout(&null))?;
        at(rustix::stdio::dup2_stderr(&null))
    }
}

/// In the process that becomes CRIU: makes a mount namespace in which the root file system and what external mounts show have paths, all
/// below `stage`, as CRIU takes them by path only.
fn set_stage(
    stage: &Path,
    rootfs: &OwnedFd,
    mounts: &[Prepared],
    external: &[External],
    group: &str,
) -> Result<(), Failure> {
    let object = || stage.display().to_string();
    sys::namespace::leave(kind::MOUNT).at(Stage::Namespaces, || "new mount namespace")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| {
        rustix::fs::open(path, flags, Mode::empty()).at(Stage::Rootfs, || path.display().to_string())
    };
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    sys::mount::set_attributes(open(Path::new("/"))?.as_fd(), true, &private)
        .at(Stage::Rootfs, || "private mounts")?;
    let shelf = sys::mount::new_filesystem("tmpfs", &[Parameter::Value("mode", "700")], 0)
        .at(Stage::Rootfs, object)?;
    sys::mount::attach(shelf.as_fd(), open(stage)?.as_fd()).at(Stage::Rootfs, object)?;
    place(&shelf, "root", rootfs, true).at(Stage::Rootfs, || "its place on the stage")?;
    let empty = sys::mount::new_filesystem("tmpfs", &[Parameter::Value("mode", "755")], attribute::RDONLY)
        .at(Stage::Rootfs, object)?;
    // What is copied has to be attached, on kernels before 6.15.
    place(&shelf, "empty", &empty, true).at(Stage::Rootfs, object)?;
    for (number, mount) in mounts.iter().enumerate() {
        if let Source::Bind { tree, directory, .. } = &mount.source {
            let name = || format!("mount {}", mount.destination.display());
            place(&shelf, &format!("bind{number}"), tree, *directory).at(Stage::Mounts, name)?;
        }
    }
    for (number, mount) in external.iter().enumerate() {
        let name = || format!("external mount {}", mount.at.display());
        let source = source(mount, mounts, group, &empty).at(Stage::Mounts, name)?;
        let kind =
            rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&source).at(Stage::Mounts, name)?.st_mode);
        let directory = kind == rustix::fs::FileType::Directory;
        place(&shelf, &number.to_string(), &source, directory).at(Stage::Mounts, name)?;
    }
    Ok(())
}

/// Attaches `tree` as `name` on the shelf, which is new and nobody else's.
fn place(shelf: &OwnedFd, name: &str, tree: &OwnedFd, directory: bool) -> std::io::Result<()> {
    if directory {
        rustix::fs::mkdirat(shelf, name, Mode::RWXU)?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        rustix::fs::openat(shelf, name, flags, Mode::RUSR)?;
    }
    let target = rustix::fs::openat(shelf, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    sys::mount::attach(tree.as_fd(), target.as_fd())
}

/// A detached copy of what the mount is to show.
fn source(mount: &External, mounts: &[Prepared], group: &str, empty: &OwnedFd) -> std::io::Result<OwnedFd> {
    match &mount.origin {
        Origin::Bind { mount: destination, below } => {
            // Several mounts may go to one place: the last is the one that is seen.
            let tree = mounts.iter().rev().find(|prepared| prepared.destination == clean(destination));
            let Some(Prepared { source: Source::Bind { tree, .. }, .. }) = tree else {
                let why = format!("the configuration has no bind mount at {}", destination.display());
                return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why));
            };
            if below.as_os_str().is_empty() {
                return sys::mount::clone_mount(tree.as_fd(), false);
            }
            let inside = Root::from_fd(tree.try_clone()?).open_at(below, OFlags::PATH, Mode::empty())?;
            sys::mount::clone_mount(inside.as_fd(), false)
        }
        Origin::Cgroup(name) => {
            let hierarchy = Path::new(crate::init::CGROUPS).join(name.as_deref().unwrap_or("."));
            crate::init::bind_cgroup(&hierarchy, group, 0)
        }
        Origin::Device(path) => {
            let device: PathBuf = Path::new("/dev").join(path);
            let node = Root::open(Path::new("/dev"))?.open_at(path, OFlags::PATH, Mode::empty())?;
            let stat = rustix::fs::fstat(&node)?;
            if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device() {
                let why = format!("{} is no character device", device.display());
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
            }
            sys::mount::clone_mount(node.as_fd(), false)
        }
        Origin::Nothing => sys::mount::clone_mount(empty.as_fd(), false),
    }
}
