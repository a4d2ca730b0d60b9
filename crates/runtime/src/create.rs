//! Create: makes a container up to the point where its init waits for start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::Cgroup;
use oci_spec::runtime::{Linux, LinuxIdMapping, Process, Spec};
use sys::mount::{Change, Propagation};
use sys::namespace::kind;
use sys::process::{Child, Cloned};

use crate::cgroups::{Holder, Quota};
use crate::channel::{Channel, Filter, Order, Report};
use crate::console::Console;
use crate::error::{At, CreateError, Failure, Lookup, Stage, Warning};
use crate::idmap::{IdMaps, Users, ranges};
use crate::init;
use crate::namespaces::Namespaces;
use crate::record::{Folder, OCI_VERSION, RECORD, RESTORED, Record, START, Status, check_id, start_name};

const LARGEST_CONFIG: u64 = 16 << 20;

/// What to create.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle: a relative `root.path` is below it, and hooks are told of it.
    pub bundle: &'a Path,
    /// The configuration; `None` reads `config.json` of the bundle.
    pub spec: Option<Spec>,
    /// The state of the container goes to `<state_root>/<id>`, which may exist if it holds no record.
    pub state_root: &'a Path,
    /// The root file system as a detached mount; `None` takes `root.path` of the configuration.
    pub rootfs: Option<OwnedFd>,
    /// Detached mounts for the mounts of type `descriptor`, whose sources are their numbers in this list.
    pub volumes: Vec<OwnedFd>,
    /// Where the terminal goes if `process.terminal` is set.
    pub console: Option<Console>,
    /// A file to write init's pid to.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors from 3 on the command inherits.
    pub preserve_fds: u32,
    /// `cgroupsPath` is `slice:prefix:name` and the cgroup is made by systemd.
    pub systemd_cgroup: bool,
    /// The host's root is no mount that pivot_root(2) takes, as an initramfs is not: its mounts are taken away one by one instead.
    pub no_pivot: bool,
    /// A session keyring of the container's own, which processes that are executed in it join.
    pub keyring: bool,
    /// Where this process may make no cgroup, go on without one, unless the configuration limits something.
    pub cgroup_optional: bool,
    /// This process is in a user namespace: devices are bound from the host, since mknod(2) is forbidden.
    pub bind_devices: bool,
    /// Fail here, and not at start, if there is no such command or the user may not execute it.
    pub check_command: bool,
}

/// A container that waits for start.
#[derive(Debug)]
pub struct Created {
    /// Init's pid in the caller's pid namespace. Init is the caller's child.
    pub pid: i32,
    /// Init's pidfd.
    pub pidfd: OwnedFd,
    /// What was asked for and could not be had in full.
    pub warnings: Vec<Warning>,
}

/// Creates a container whose standard streams are the caller's. The caller must have one thread; see the crate's documentation.
///
/// # Errors
/// The first step that failed; all earlier steps were taken back.
pub fn create(request: CreateRequest<'_>) -> Result<Created, CreateError> {
    all_or_nothing(request.id, request.state_root, |made| make(request, made))
}

/// Makes a container, or takes back what was made of it.
pub(crate) fn all_or_nothing(
    id: &str,
    state_root: &Path,
    make: impl FnOnce(&mut Made) -> Result<Created, Refusal>,
) -> Result<Created, CreateError> {
    check_id(id)?;
    let (id, state_root) = (id.to_string(), state_root.to_path_buf());
    let mut made = Made::default();
    match make(&mut made) {
        Ok(created) => Ok(created),
        Err(Refusal::Exists) => Err(CreateError::Exists { id, state_root }),
        Err(Refusal::Failed(failure)) => {
            let left = made.take_back();
            Err(CreateError::Failed { id, failure, left })
        }
    }
}

/// Why nothing was created, before it is known what could be taken back.
pub(crate) enum Refusal {
    Exists,
    Failed(Box<Failure>),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Failed(Box::new(failure))
    }
}

/// What has been made so far.
#[derive(Default)]
pub(crate) struct Made {
    folder: Option<Folder>,
    /// Whether the state directory is ours to remove.
    new_folder: bool,
    pub(crate) cgroup: Option<Cgroup>,
    rdt: Option<crate::rdt::Group>,
    /// Until the container's init is in the group.
    pub(crate) holder: Option<Holder>,
    child: Option<Child>,
    pid_file: Option<PathBuf>,
}

impl Made {
    /// The state directory, open and locked.
    pub(crate) fn folder(&self) -> Result<&Folder, Failure> {
        self.folder.as_ref().ok_or_else(|| Failure::new(Stage::State, "state directory", "is gone"))
    }

    /// Takes everything back, newest first, and goes on past what fails. The mounts go with the process's namespace.
    fn take_back(self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(child) = self.child {
            child.kill_and_reap();
        }
        if let Some(path) = self.pid_file {
            let _ = std::fs::remove_file(path);
        }
        if let Some(group) = self.rdt {
            group.remove();
        }
        drop(self.holder);
        if let Some(group) = self.cgroup
            && let Err(failure) = crate::cgroups::delete(&group)
        {
            left.push(failure.to_string());
        }
        if let Some(folder) = self.folder {
            let removed = [START, RESTORED, RECORD, crate::record::SECCOMP].map(|name| folder.remove(name));
            left.extend(
                removed
                    .into_iter()
                    .filter_map(|r| r.err().map(|e| format!("{}: {e}", folder.path.display()))),
            );
            if self.new_folder {
                let _ = rustix::fs::rmdir(&folder.path);
            }
        }
        left
    }
}

fn make(request: CreateRequest<'_>, made: &mut Made) -> Result<Created, Refusal> {
    let mut warnings = Vec::new();
    let bundle = std::path::absolute(request.bundle)
        .at(Stage::Configuration, || request.bundle.display().to_string())?;
    let spec = match request.spec {
        Some(spec) => spec,
        None => load(&bundle.join("config.json"))?,
    };
    let raw_environment = crate::environment::read(&bundle)?;
    let (linux, process) = parts(&spec, request.console.is_some())?;
    open_folder(request.state_root, request.id, made)?;
    let listener = listen_for_start(made)?;
    let namespaces = Namespaces::of(linux)?;
    let (rootfs, rootfs_path) = root_filesystem(request.rootfs, &spec, &bundle)?;
    let maps = maps(linux).filter(|_| namespaces.new & kind::USER != 0);
    let sources = crate::mounts::Sources {
        bundle: &bundle,
        volumes: request.volumes.into_iter().map(Some).collect(),
        id_maps: IdMaps::new(match (maps, namespaces.joined(kind::USER)) {
            (Some((uids, gids)), _) => Users::New(uids, gids),
            (None, Some(namespace)) => Users::Joined(namespace),
            (None, None) => Users::Host,
        }),
    };
    let mounts = crate::mounts::prepare(spec.mounts().as_deref().unwrap_or_default(), sources)?;
    let bind_devices = request.bind_devices || namespaces.has_user();
    let devices = init::prepare_devices(linux, &mounts, bind_devices)?;
    let console = request.console.map(Console::connect).transpose()?;
    let notify = linux.seccomp().as_ref().and_then(|seccomp| seccomp.listener_path().as_deref());
    let seccomp_listener = notify
        .map(|path| {
            sys::socket::connect(path).at(Stage::Seccomp, || format!("listenerPath {}", path.display()))
        })
        .transpose()?;
    let driver = crate::cgroups::driver(request.systemd_cgroup);
    let cgroup_path = crate::cgroups::path_of(linux, request.id, driver)?;
    (made.cgroup, made.holder) = if request.cgroup_optional {
        crate::cgroups::create_if_allowed(&cgroup_path, driver, linux, &mut warnings)?
    } else {
        let (group, holder) =
            crate::cgroups::create(&cgroup_path, driver, linux, Quota::Later, &mut warnings)?;
        (Some(group), holder)
    };
    let view = crate::cgroups::view(&cgroup_path)?;
    let mut record = new_record(request.id, &spec, bundle, &namespaces);
    record.rootfs = rootfs_path;
    record.cgroup = made.cgroup.is_some().then(|| cgroup_path.clone());
    record.keyring = request.keyring;
    if let Some(rdt) = linux.intel_rdt() {
        let group = crate::rdt::make(&crate::rdt::mounted()?, rdt, request.id)?;
        made.rdt = Some(group.clone());
        record.rdt = Some(group);
    }
    // Nobody in the container may look into this process or the copy that becomes its init.
    sys::process::set_dumpable(false).at(Stage::Process, || "not dumpable")?;
    let between = namespaces.joins(kind::USER);
    // Somebody in the group already may be all that its limit on processes allows to be born there.
    let elsewhere = between || made.holder.is_some();
    let into_cgroup = made.cgroup.as_ref().and_then(|group| group.birthplace()).filter(|_| !elsewhere);
    let entrance = crate::cgroups::entrance(made.cgroup.as_ref(), into_cgroup.is_some())?;
    let (channel, theirs) = Channel::pair()?;
    let child = match namespaces.clone(into_cgroup)? {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            drop(channel);
            // The lock on the state directory lasts as long as any copy of the descriptor: init must not hold one.
            drop(made.folder.take());
            // What else is open is closed at once when all is made; who waits for that would wait for each.
            std::mem::forget(made.cgroup.take());
            // It is its maker's to end.
            std::mem::forget(made.holder.take());
            init::run(init::Plan {
                spec: &spec,
                linux,
                process,
                namespaces: &namespaces,
                rootfs,
                mounts,
                devices,
                cgroup: view,
                channel: theirs,
                listener,
                console,
                seccomp_listener,
                state: record,
                preserve_fds: request.preserve_fds,
                raw_environment,
                entrance,
                no_pivot: request.no_pivot,
                check_command: request.check_command,
            })
        }
    };
    drop((theirs, listener, console, seccomp_listener, rootfs, mounts, devices, entrance));
    let pid = child.pid;
    made.child = Some(child);
    record.pid = pid;
    record.start_time = sys::process::start_time(pid).at(Stage::State, || format!("process {pid}"))?;
    if let Some(group) = &record.rdt {
        group.add(pid)?;
    }
    if let Some((uids, gids)) = maps {
        sys::users::write_maps(pid, &ranges(uids), &ranges(gids)).at(Stage::Namespaces, || "id maps")?;
        channel.order(&Order::Go)?;
    }
    crate::net_devices::apply(linux, &namespaces, pid)?;
    if namespaces.has_user() {
        crate::process::give_streams(pid, process).at(Stage::Process, || "owner of the standard streams")?;
    }
    if let Some(adjustment) = process.oom_score_adj() {
        set_oom_score_adj(pid, adjustment, &mut warnings)?;
    }
    // Compiled here while the child makes its mounts.
    let filter = match linux.seccomp() {
        Some(profile) => Some(crate::seccomp_filter::compile(profile, &mut warnings)?),
        None => None,
    };
    record.seccomp_flags = filter.as_ref().map(|filter| filter.flags);
    listen(&channel, &spec, &record, &mut warnings)?;
    if let Some(group) = &made.cgroup {
        crate::cgroups::ration(group, driver, linux)?;
    }
    commit(&channel, made, &record, filter, request.pid_file)?;
    let Some(child) = made.child.take() else {
        return Err(Failure::new(Stage::State, "init", "is gone").into());
    };
    Ok(Created { pid, pidfd: child.pidfd, warnings })
}

/// Reads `config.json`.
pub(crate) fn load(path: &Path) -> Result<Spec, Failure> {
    let object = || path.display().to_string();
    let file = std::fs::File::open(path).at(Stage::Configuration, object)?;
    let bytes = sys::file::read_from(file, LARGEST_CONFIG + 1).at(Stage::Configuration, object)?;
    if bytes.len() as u64 > LARGEST_CONFIG {
        return Err(Failure::new(Stage::Configuration, object(), "is larger than 16 MiB"));
    }
    crate::json_place::parse_with_process(&bytes, "/process")
        .map_err(|cause| Failure::new(Stage::Configuration, object(), cause))
}

/// The parts that a Linux container must have, and refusals of what is not supported.
pub(crate) fn parts(spec: &Spec, has_console: bool) -> Result<(&Linux, &Process), Failure> {
    let fail = |object: &str, cause: &str| Err(Failure::new(Stage::Configuration, object, cause));
    if !spec.version().starts_with("1.") {
        return fail("ociVersion", &format!("{:?} is not a version 1 of the runtime-spec", spec.version()));
    }
    let Some(linux) = spec.linux() else {
        return fail("linux", "is missing: only Linux containers are supported");
    };
    let Some(process) = spec.process() else { return fail("process", "is missing: there is nothing to run") };
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return fail("process.args", "is empty: there is nothing to run");
    }
    crate::rules::check(spec, linux, process)?;
    crate::process::check_ids(process)?;
    let terminal = process.terminal().unwrap_or(false);
    if terminal != has_console {
        return fail(
            "process.terminal",
            if terminal {
                "is set, but there is no console socket"
            } else {
                "is not set, but there is a console socket"
            },
        );
    }
    Ok((linux, process))
}

fn maps(linux: &Linux) -> Option<(&[LinuxIdMapping], &[LinuxIdMapping])> {
    Some((linux.uid_mappings().as_deref()?, linux.gid_mappings().as_deref()?))
}

/// Opens the state directory, made if it is missing, and locks it. What an interrupted create left there is removed.
pub(crate) fn open_folder(state_root: &Path, id: &str, made: &mut Made) -> Result<(), Refusal> {
    use std::os::unix::fs::DirBuilderExt;
    let path = state_root.join(id);
    let object = || path.display().to_string();
    let builder = |recursive| {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700).recursive(recursive);
        builder
    };
    match builder(false).create(&path) {
        Ok(()) => made.new_folder = true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            builder(true).create(&path).at(Stage::State, object)?;
            made.new_folder = true;
        }
        Err(error) => return Err(Failure::io(Stage::State, object(), &error).into()),
    }
    let folder =
        Folder::open(state_root, id).map_err(|error: Lookup| Failure::new(Stage::State, object(), error))?;
    match folder.try_lock() {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err(Refusal::Exists),
        other => other.at(Stage::State, object)?,
    }
    if folder.has(RECORD) {
        return Err(Refusal::Exists);
    }
    folder.remove(START).and_then(|()| folder.remove(RESTORED)).at(Stage::State, object)?;
    made.folder = Some(folder);
    Ok(())
}

/// The socket on which init waits for start, named in the state directory.
fn listen_for_start(made: &Made) -> Result<OwnedFd, Failure> {
    let folder = made.folder()?;
    sys::socket::listen_in(folder.fd.as_fd(), start_name(), 1)
        .at(Stage::State, || folder.path.join(START).display().to_string())
}

/// The root file system as a detached mount of its own, and its path on the host if it has one.
pub(crate) fn root_filesystem(
    given: Option<OwnedFd>,
    spec: &Spec,
    bundle: &Path,
) -> Result<(OwnedFd, Option<PathBuf>), Failure> {
    let (tree, path) = match given {
        Some(mount) => (mount, None),
        None => bundle_root(spec, bundle).map(|(tree, path)| (tree, Some(path)))?,
    };
    // A copy of a shared mount, as all are on a host with systemd, is one of its peers, and pivot_root(2) takes no shared mount. A
    // wish for a shared root is fulfilled after it.
    let propagation = match spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()) {
        Some("slave" | "rslave") => Propagation::Slave,
        _ => Propagation::Private,
    };
    let change = Change { propagation: Some(propagation), ..Change::default() };
    let object = || path.as_ref().map_or("the mount given".into(), |path| path.display().to_string());
    sys::mount::set_attributes(tree.as_fd(), true, &change).at(Stage::Rootfs, object)?;
    Ok((tree, path))
}

/// A detached copy of the folder that the configuration names.
fn bundle_root(spec: &Spec, bundle: &Path) -> Result<(OwnedFd, PathBuf), Failure> {
    let root =
        spec.root().as_ref().ok_or_else(|| Failure::new(Stage::Configuration, "root", "is missing"))?;
    let path = bundle.join(root.path());
    let object = || path.display().to_string();
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
        .map_err(|_| Failure::new(Stage::Rootfs, object(), "holds a NUL byte"))?;
    let tree = sys::mount::clone_mount_at(rustix::fs::CWD, &name, true).at(Stage::Rootfs, object)?;
    let stat = rustix::fs::fstat(&tree).at(Stage::Rootfs, object)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(Failure::new(Stage::Rootfs, object(), "is not a directory"));
    }
    Ok((tree, path))
}

pub(crate) fn new_record(id: &str, spec: &Spec, bundle: PathBuf, namespaces: &Namespaces) -> Record {
    let hooks = spec.hooks().clone().unwrap_or_default();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Record {
        record_version: Record::VERSION,
        oci_version: OCI_VERSION.into(),
        id: id.into(),
        pid: 0,
        start_time: 0,
        created_secs: now.as_secs(),
        bundle,
        rootfs: None,
        cgroup: None,
        own_pid_namespace: namespaces.new & kind::PID != 0,
        seccomp_flags: None,
        poststart: hooks.poststart().clone().unwrap_or_default(),
        poststop: hooks.poststop().clone().unwrap_or_default(),
        keyring: false,
        memory_policy: spec.linux().as_ref().and_then(|linux| linux.memory_policy().clone()),
        personality: spec.linux().as_ref().and_then(|linux| linux.personality().clone()),
        rdt: None,
        annotations: spec.annotations().clone().unwrap_or_default(),
    }
}

/// Follows the child until it is ready, and runs the hooks that are the runtime's.
fn listen(
    channel: &Channel,
    spec: &Spec,
    record: &Record,
    warnings: &mut Vec<Warning>,
) -> Result<(), Failure> {
    loop {
        match channel.next_report()? {
            Some(Report::Warning(warning)) => warnings.push(warning),
            Some(Report::Ready) => return Ok(()),
            Some(Report::Failed(failure)) => return Err(failure),
            Some(Report::Hooks) => {
                let mut state = record.oci_state(Status::Created);
                state["status"] = "creating".into();
                if let Some(hooks) = spec.hooks() {
                    crate::hooks::run(hooks.prestart().as_deref().unwrap_or_default(), "prestart", &state)?;
                    let create_runtime = hooks.create_runtime().as_deref().unwrap_or_default();
                    crate::hooks::run(create_runtime, "createRuntime", &state)?;
                }
                channel.order(&Order::Go)?;
            }
            None => {
                return Err(Failure::new(Stage::Process, "the container's process", "ended without a word")
                    .remedy("it may have been killed, for example for want of memory in its cgroup"));
            }
        }
    }
}

/// Makes the container one that exists, then gives init its go-ahead to wait for start.
fn commit(
    channel: &Channel,
    made: &mut Made,
    record: &Record,
    filter: Option<Filter>,
    pid_file: Option<&Path>,
) -> Result<(), Failure> {
    keep(made, record, filter.as_ref(), pid_file)?;
    channel.order(&Order::Commit(filter))
}

/// Makes the container one that exists: its filter, its pid file, then its record.
pub(crate) fn keep(
    made: &mut Made,
    record: &Record,
    filter: Option<&Filter>,
    pid_file: Option<&Path>,
) -> Result<(), Failure> {
    let folder = made.folder()?;
    let object = || folder.path.display().to_string();
    if let Some(filter) = filter {
        crate::seccomp_filter::save(folder, filter).at(Stage::State, object)?;
    }
    if let Some(path) = pid_file {
        write_pid_file(path, record.pid)?;
    }
    let kept = folder.write(record).at(Stage::State, object);
    made.pid_file = pid_file.map(Path::to_path_buf);
    kept
}

pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    sys::file::write_atomic(path, pid.to_string().as_bytes(), 0o644, sys::file::Durability::Process)
        .at(Stage::State, || format!("pid file {}", path.display()))
}

/// Sets oom_score_adj of a child. Going below the present value takes CAP_SYS_RESOURCE; without it the value stays, with a warning.
pub(crate) fn set_oom_score_adj(pid: i32, wanted: i32, warnings: &mut Vec<Warning>) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let error = match std::fs::write(&path, wanted.to_string()) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    let present = present.trim();
    if error.kind() == std::io::ErrorKind::PermissionDenied
        && present.parse().is_ok_and(|now: i32| wanted < now)
    {
        let message = format!("oomScoreAdj {wanted} needs CAP_SYS_RESOURCE, it is {present}");
        warnings.push(Warning { stage: Stage::Process, message });
        return Ok(());
    }
    Err(Failure::io(Stage::Process, format!("oomScoreAdj {wanted}"), &error))
}
