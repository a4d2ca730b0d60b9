//! Create: wires the standard streams and lets a helper make the container.

use super::Shim;
use super::container::{Container, Output, Phase};
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::input::Input;
use super::reap::Purpose;
use crate::foreign::{self, Target};
use crate::log::{LogFile, Stream};
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::{CreatedReport, Report, Speaker};
use crate::parent::memory::at_first;
use crate::parent::message;
use crate::parent::work::report_of;
use crate::protocol::{CallError, CreateRequest, CreateResponse, ErrorCode, Restore};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// An exit record is named after its container, and a file name has 255 bytes.
const MAX_ID: usize = 200;

/// Containers of one pod at one time, those that have exited and were not deleted included.
const MAX_CONTAINERS: usize = 1024;

impl Shim {
    pub(super) fn create(
        &mut self,
        request: CreateRequest,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, CallError> {
        let (rootfs, volumes) = self.check_create(&request, descriptors)?;
        let mut log = if request.log_path.is_empty() {
            LogFile::discard()
        } else {
            LogFile::open(Path::new(&request.log_path), request.log_max_bytes)
                .map_err(|cause| CallError::new(ErrorCode::LogFailed, cause.to_string()))?
        };
        let serial = self.serial();
        let failed = |cause: io::Error| {
            let what = format!("container {}: {cause}", request.id);
            CallError::new(ErrorCode::CreateFailed, what).at("standard streams")
        };
        let (mut container, mut handed) =
            self.wire(serial, &request).inspect_err(|_| log.take_back()).map_err(failed)?;
        (handed.rootfs, handed.volumes) = (rootfs, volumes);
        container.log = log;
        if let Err(cause) = self.start_create(serial, &request, handed) {
            container.close_outputs(crate::parent::now_ns(), &self.poller);
            container.log.take_back();
            let what = format!("container {}: {cause}", request.id);
            return Err(CallError::new(ErrorCode::CreateFailed, what).at("helper"));
        }
        self.containers.push(container);
        Ok(Outcome::Later(Key::Created(serial)))
    }

    fn check_create(
        &self,
        request: &CreateRequest,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(Option<OwnedFd>, Vec<OwnedFd>), CallError> {
        let invalid = |why: &str| CallError::new(ErrorCode::InvalidArgument, why);
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
        let id = &request.id;
        if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.bytes().all(letters) {
            return Err(invalid(
                "id: 1 to 200 letters, digits, '_', '+', '-' or '.', not starting with a dot",
            ));
        }
        if !Path::new(&request.bundle).is_absolute() {
            return Err(invalid("bundle: it must be an absolute path"));
        }
        if descriptors.len() != usize::from(request.has_rootfs) + request.volumes as usize {
            return Err(invalid("has_rootfs, volumes: they do not agree with the number of descriptors"));
        }
        if self.foreign.is_some() && request.restore.is_some() {
            let what = "the pod's runtime is another program; it is not asked to restore containers";
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        if self.find(id).is_ok() {
            let what = format!("container {id} exists already");
            return Err(CallError::new(ErrorCode::AlreadyExists, what));
        }
        if self.containers.len() >= MAX_CONTAINERS {
            let what = format!("the pod has {MAX_CONTAINERS} containers; delete those that have exited");
            return Err(CallError::new(ErrorCode::Exhausted, what));
        }
        let volumes = descriptors.split_off(usize::from(request.has_rootfs));
        Ok((descriptors.pop(), volumes))
    }

    /// The container, which has no log yet, and the far ends of its streams.
    fn wire(&mut self, serial: u32, request: &CreateRequest) -> io::Result<(Container, Handed)> {
        let mut handed = Handed::default();
        let mut container = Container {
            serial,
            id: request.id.clone(),
            phase: Phase::Creating { cancelled: false },
            pid: 0,
            started_at_ns: 0,
            exit: None,
            outputs: [None, None],
            log: LogFile::discard(),
            stdin: None,
            attached: Vec::new(),
            has_terminal: request.terminal,
            wants_input: request.stdin,
            owes_end_of_input: false,
            console: None,
            bundle: request.bundle.clone().into(),
            cgroup: None,
            own_pid_namespace: true,
            start_in_helper: false,
            at_start: Handed::default(),
            oom_told: false,
            execs: Vec::new(),
        };
        if self.foreign.as_ref().is_some_and(|foreign| foreign.parents()) {
            self.wire_fifos(&mut container, request)?;
            return Ok((container, handed));
        }
        if request.terminal {
            let kind = SocketType::STREAM;
            let (ours, theirs) =
                rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            container.console = Some(ours);
            handed.console = Some(theirs);
            return Ok((container, handed));
        }
        if request.stdin {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            handed.stdin = Some(reader);
            container.stdin = Some(Input::new(writer, request.stdin_once));
        }
        let (stdout, stdout_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        handed.stdout = Some(stdout_writer);
        handed.stderr = Some(stderr_writer);
        if self.foreign.as_ref().is_some_and(|foreign| foreign.is_shared()) {
            container.at_start = std::mem::take(&mut handed);
        }
        container.outputs[0] = Some(Output::open(stdout, serial, Stream::Stdout, false, &self.poller)?);
        container.outputs[1] = Some(Output::open(stderr, serial, Stream::Stderr, false, &self.poller)?);
        Ok((container, handed))
    }

    fn start_create(&mut self, container: u32, request: &CreateRequest, handed: Handed) -> io::Result<()> {
        let state_root = self.runtime_root.clone();
        let target = Target { id: request.id.clone(), bundle: PathBuf::from(&request.bundle) };
        let (has_terminal, restore) = (request.terminal, request.restore.clone());
        let systemd_cgroup = request.systemd_cgroup;
        let foreign = self.foreign.clone();
        let waits = foreign.as_ref().is_some_and(|foreign| foreign.parents());
        let purpose = Purpose::Create { container };
        self.start_speaking_helper(purpose, handed, waits, move |handed, speaker| match foreign {
            Some(foreign) => make_foreign(&foreign, &target, handed, speaker),
            None => {
                let (id, bundle) = (&target.id, &target.bundle);
                make(id, bundle, &state_root, handed, has_terminal, systemd_cgroup, restore.as_ref())
            }
        })
    }

    /// What the helper said.
    pub(super) fn created(&mut self, serial: u32, report: Report, buffer: &mut [u8]) {
        let Some(container) = self.container(serial) else {
            return;
        };
        let cancelled = matches!(container.phase, Phase::Creating { cancelled: true });
        let count = if let Report::Created(report) = &report { report.slice_oom_kills } else { None };
        let result = match report {
            Report::Created(report) => container.came_to_life(report),
            // A helper that was killed could not take back what it had done.
            other => {
                let unclean = matches!(&other, Report::Failed { stage, .. } if stage == Report::DIED);
                Err((other.into_error(ErrorCode::CreateFailed), unclean))
            }
        };
        self.memory.begin(count);
        let Some(container) = self.container(serial) else {
            return;
        };
        let terminal = container.console.take().filter(|_| result.is_ok());
        let result = result.and_then(|pid| match terminal {
            None => Ok(pid),
            Some(console) => self.take_terminal(serial, console).map(|()| pid).map_err(|cause| {
                let what = format!("the terminal did not arrive: {cause}");
                (CallError::new(ErrorCode::CreateFailed, what).at("console"), true)
            }),
        });
        match result {
            Ok(pid) if !cancelled => {
                if let Some(container) = self.container(serial) {
                    container.phase = Phase::Created;
                }
                self.answer(Key::Created(serial), message(&CreateResponse { pid: pid.cast_unsigned() }));
            }
            Ok(_) => {
                let error = CallError::new(ErrorCode::Cancelled, "the container was deleted meanwhile");
                self.answer(Key::Created(serial), Err(error));
                self.begin_delete(serial, true);
            }
            Err((mut error, unclean)) => {
                if self.foreign.is_some() {
                    self.add_last_words(serial, &mut error, buffer);
                }
                if let Some(container) = self.container(serial) {
                    container.log.take_back();
                }
                let error = if cancelled { CallError { code: ErrorCode::Cancelled, ..error } } else { error };
                self.answer(Key::Created(serial), Err(error));
                if unclean {
                    self.begin_delete(serial, true);
                } else {
                    self.forget(serial);
                }
            }
        }
    }

    /// A runtime that is another program has the container's streams for its own: what it said there is why it failed, if it has no better
    /// place to say it.
    fn add_last_words(&mut self, serial: u32, error: &mut CallError, buffer: &mut [u8]) {
        let Some(container) = self.containers.iter_mut().find(|container| container.serial == serial) else {
            return;
        };
        container.drain(buffer, &self.poller);
        container.close_outputs(crate::parent::now_ns(), &self.poller);
        if let Some(words) = container.log.last_words()
            && !error.message.contains(&words)
        {
            error.message.push_str("; it printed: ");
            error.message.push_str(&words);
        }
    }

    /// Receives the master of the container's terminal, which is its output and its input.
    fn take_terminal(&mut self, serial: u32, console: OwnedFd) -> io::Result<()> {
        let (_, mut descriptors) = sys::socket::receive(console.as_fd(), &mut [0; 64])?;
        let master = descriptors.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
        let input = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
        let output = Output::open(master, serial, Stream::Stdout, true, &self.poller)?;
        if let Some(container) = self.container(serial) {
            container.outputs[0] = Some(output);
            container.stdin = Some(Input::new(input, false)).filter(|_| container.wants_input);
        }
        Ok(())
    }
}

impl Container {
    fn came_to_life(&mut self, report: CreatedReport) -> Result<i32, (CallError, bool)> {
        for what in &report.warnings {
            warning!("container {}: {what}", self.id);
        }
        self.pid = report.pid;
        self.cgroup = report.cgroup;
        self.own_pid_namespace = report.own_pid_namespace;
        self.start_in_helper = report.start_in_helper;
        Ok(report.pid)
    }
}

/// Runs in the helper.
fn make_foreign(
    foreign: &foreign::Runtime,
    target: &Target,
    mut handed: Handed,
    speaker: Speaker<'_>,
) -> Report {
    if let Err(cause) = handed.wire() {
        return Report::failed(ErrorCode::CreateFailed, "standard streams", cause);
    }
    let making = foreign::Making {
        rootfs: handed.rootfs.take(),
        volumes: std::mem::take(&mut handed.volumes),
        console: handed.console.take(),
    };
    let made = match foreign.create(target, &making) {
        Ok(made) => made,
        Err(error) => return error.into(),
    };
    let created = Report::Created(CreatedReport {
        pid: made.pid,
        slice_oom_kills: made.cgroup.as_deref().and_then(at_first),
        cgroup: made.cgroup,
        own_pid_namespace: made.own_pid_namespace,
        start_in_helper: true,
        warnings: Vec::new(),
    });
    drop(making);
    if !foreign.parents() || speaker.say(&created).is_err() {
        return created;
    }
    foreign.wait(target, None).into()
}

/// Runs in the helper.
fn make(
    id: &str,
    bundle: &Path,
    state_root: &Path,
    mut handed: Handed,
    has_terminal: bool,
    systemd_cgroup: bool,
    restore: Option<&Restore>,
) -> Report {
    if let Err(cause) = handed.wire() {
        return Report::failed(ErrorCode::CreateFailed, "standard streams", cause);
    }
    let request = runtime::CreateRequest {
        id,
        bundle,
        spec: None,
        state_root,
        rootfs: handed.rootfs.take(),
        volumes: std::mem::take(&mut handed.volumes),
        console: handed.console.take().filter(|_| has_terminal).map(runtime::Console::Socket),
        pid_file: None,
        preserve_fds: 0,
        systemd_cgroup,
        no_pivot: false,
        keyring: true,
        cgroup_optional: false,
        bind_devices: false,
        check_command: false,
    };
    let made = match restore {
        None => runtime::create(request),
        Some(from) => runtime::restore(runtime::RestoreRequest {
            create: request,
            criu: Path::new(&from.criu),
            images: Path::new(&from.images),
            work: Path::new(&from.work),
            wait_for_start: true,
            tcp_established: false,
            external_unix: false,
            file_locks: true,
            shell_job: has_terminal,
            more: runtime::CriuOptions::default(),
            deadline: None,
        }),
    };
    report_of(made, state_root, id, restore.is_some())
}
