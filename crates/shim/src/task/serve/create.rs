//! Create: opens the streams, and lets a helper mount the root file system and make the container.

use super::dispatch::Outcome;
use super::process::{Freezer, Phase, Process, Task, WorkPaths};
use super::reap::Purpose;
use super::stdio::Stdio;
use super::streams::Streams;
use super::{Key, Server, logger, memory};
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::{CreatedReport, Report};
use crate::parent::message;
use crate::parent::poller::{READ, Token};
use crate::parent::work::report_of;
use crate::protocol::{CallError, ErrorCode};
use crate::task::{bundle, options, rootfs};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use task::events::{TaskCreate, TaskIo};
use task::options::Options;
use task::{CreateTaskRequest, CreateTaskResponse, Mount};

/// An id is a part of paths.
const MAX_ID: usize = 200;

/// Tasks of one group at one time.
const MAX_TASKS: usize = 1024;

/// What a helper needs to make a container.
struct Plan {
    id: String,
    bundle: PathBuf,
    rootfs: Vec<Mount>,
    has_terminal: bool,
    must_say_ready: bool,
    options: Options,
    checkpoint: String,
    work: WorkPaths,
}

impl Server {
    pub(super) fn create(&mut self, request: CreateTaskRequest) -> Result<Outcome, CallError> {
        let invalid = |why: String| CallError::new(ErrorCode::InvalidArgument, why);
        self.check_create(&request)?;
        let options = options::read(request.options.as_ref()).map_err(invalid)?;
        options::warn_of_useless(&options);
        let serial = self.serial();
        let stdio = Stdio {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let names = (&*request.id, &*self.namespace);
        let (streams, mut handed, console) = Streams::wire(serial, &stdio, names, &self.poller)
            .map_err(|cause| streams_failed(&format!("task {}", request.id), &cause))?;
        let plan = Plan {
            id: request.id.clone(),
            bundle: request.bundle.clone().into(),
            rootfs: request.rootfs.clone(),
            has_terminal: stdio.terminal,
            must_say_ready: streams.must_say_ready,
            checkpoint: request.checkpoint.clone(),
            work: work_paths(&options, &request.bundle),
            options,
        };
        let (watch, theirs) = memory::watch().unzip();
        handed.memory = theirs;
        let first = Process {
            serial,
            exec_id: String::new(),
            phase: Phase::Making { cancelled: false },
            pid: 0,
            exit: None,
            stdio,
            streams,
            console,
            spec: Vec::new(),
        };
        let mut task = Task {
            id: request.id,
            bundle: request.bundle.into(),
            rootfs: request.rootfs,
            checkpoint: request.checkpoint,
            cgroup: None,
            own_pid_namespace: true,
            start_in_helper: false,
            freezer: Freezer::Thawed,
            work: plan.work.clone(),
            memory: watch,
            told_oom_kills: 0,
            processes: vec![first],
        };
        if let Err(cause) =
            self.start_helper(Purpose::Create { task: serial }, handed, move |handed| make(&plan, handed))
        {
            task.first_mut().streams.close(&self.poller);
            let what = format!("task {}: {cause}", task.id);
            return Err(CallError::new(ErrorCode::CreateFailed, what));
        }
        if let Some(watch) = &task.memory {
            let _ = self.poller.add(watch, Token::Memory(serial), READ);
        }
        self.tasks.push(task);
        Ok(Outcome::Later(Key::Created(serial)))
    }

    fn check_create(&self, request: &CreateTaskRequest) -> Result<(), CallError> {
        let invalid = |why: String| Err(CallError::new(ErrorCode::InvalidArgument, why));
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"_+-.".contains(&b);
        let id = &request.id;
        if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.bytes().all(letters) {
            return invalid(
                "id: 1 to 200 letters, digits, '_', '+', '-' or '.', not starting with a dot".into(),
            );
        }
        for (name, path) in [("bundle", &request.bundle), ("checkpoint", &request.checkpoint)] {
            let empty = path.is_empty() && name == "checkpoint";
            if !empty && !Path::new(path).is_absolute() {
                return invalid(format!("{name}: {path:?} is not an absolute path"));
            }
        }
        if !request.parent_checkpoint.is_empty() {
            return invalid("parent_checkpoint: a task is made of one checkpoint, not of a chain".into());
        }
        if self.find(id).is_ok() {
            return Err(CallError::new(ErrorCode::AlreadyExists, format!("task {id} exists already")));
        }
        if self.tasks.len() >= MAX_TASKS {
            let what = format!("this group has {MAX_TASKS} tasks; delete those that have ended");
            return Err(CallError::new(ErrorCode::Exhausted, what));
        }
        Ok(())
    }

    /// What the helper said.
    pub(super) fn created(&mut self, serial: u32, report: Report) {
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        let cancelled = matches!(task.first().phase, Phase::Making { cancelled: true });
        let result = match report {
            Report::Created(report) => Ok(task.came_to_life(report)),
            // A helper that was killed could not take back what it had done.
            other => {
                let unclean = matches!(&other, Report::Failed { stage, .. } if stage == Report::DIED);
                Err((other.into_error(ErrorCode::CreateFailed), unclean))
            }
        };
        let result = result.and_then(|pid| {
            self.take_terminal(serial).map(|()| pid).map_err(|cause| {
                (
                    CallError::new(ErrorCode::CreateFailed, format!("the terminal did not arrive: {cause}")),
                    true,
                )
            })
        });
        match result {
            Ok(pid) if !cancelled => {
                let event = self.process(serial).map(|(task, _)| {
                    task.first_mut().phase = Phase::Created;
                    task.create_event()
                });
                if let Some(event) = event {
                    self.publisher.tell(&event);
                }
                let answer = message(&CreateTaskResponse { pid: pid.cast_unsigned() });
                self.answer(Key::Created(serial), answer);
            }
            Ok(_) => {
                let error = CallError::new(ErrorCode::Cancelled, "the task was deleted meanwhile");
                self.answer(Key::Created(serial), Err(error));
                self.begin_delete(serial, true);
            }
            Err((error, unclean)) => {
                self.answer(Key::Created(serial), Err(error));
                if unclean {
                    self.begin_delete(serial, true);
                } else {
                    self.forget_task(serial);
                }
            }
        }
    }

    /// Receives the master of a process's terminal, if it has one.
    pub(super) fn take_terminal(&mut self, serial: u32) -> io::Result<()> {
        let Some((task, at)) = self.tasks.iter_mut().find_map(|task| {
            let at = task.processes.iter().position(|process| process.serial == serial)?;
            Some((task, at))
        }) else {
            return Ok(());
        };
        let process = &mut task.processes[at];
        let Some(console) = process.console.take() else {
            return Ok(());
        };
        let (_, mut descriptors) = sys::socket::receive(console.as_fd(), &mut [0; 64])?;
        let master: OwnedFd = descriptors.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
        process.streams.take_terminal(master, serial, &self.poller)
    }
}

impl Task {
    fn came_to_life(&mut self, report: CreatedReport) -> i32 {
        for what in &report.warnings {
            warning!("task {}: {what}", self.id);
        }
        self.first_mut().pid = report.pid;
        self.cgroup = report.cgroup;
        self.own_pid_namespace = report.own_pid_namespace;
        self.start_in_helper = report.start_in_helper;
        report.pid
    }

    fn create_event(&self) -> TaskCreate {
        let Stdio { stdin, stdout, stderr, terminal } = self.first().stdio.clone();
        TaskCreate {
            container_id: self.id.clone(),
            bundle: self.bundle.display().to_string(),
            rootfs: self.rootfs.clone(),
            io: Some(TaskIo { stdin, stdout, stderr, terminal }),
            checkpoint: self.checkpoint.clone(),
            pid: self.first().pid.cast_unsigned(),
        }
    }
}

/// The error that standard streams cannot be had.
pub(super) fn streams_failed(what: &str, cause: &io::Error) -> CallError {
    let code = match cause.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => ErrorCode::InvalidArgument,
        _ => ErrorCode::CreateFailed,
    };
    CallError::new(code, format!("{what}: standard streams: {cause}"))
}

fn work_paths(options: &Options, bundle: &str) -> WorkPaths {
    let given = Some(options.criu_work_path.clone()).filter(|path| !path.is_empty());
    WorkPaths {
        criu: options.criu_path.clone(),
        work: given.unwrap_or_else(|| Path::new(bundle).join("work").display().to_string()),
    }
}

/// Runs in the helper.
fn make(plan: &Plan, mut handed: Handed) -> Report {
    let failed = |stage: &str, cause: io::Error| {
        Report::failed(ErrorCode::CreateFailed, stage, format!("task {}: {cause}", plan.id))
    };
    if let Some(ready) = handed.ready.take()
        && let Err(cause) = logger::wait_until_ready(&ready, plan.must_say_ready)
    {
        return failed("standard streams", cause);
    }
    let memory = handed.memory.take();
    if let Err(cause) = handed.wire() {
        return failed("standard streams", cause);
    }
    let target = plan.bundle.join(bundle::ROOTFS);
    if let Err(cause) = rootfs::mount(&plan.rootfs, &target) {
        return failed("root file system", cause);
    }
    let report = make_container(plan, handed.console.take());
    match &report {
        Report::Created(created) => {
            if let (Some(memory), Some(cgroup)) = (memory, &created.cgroup) {
                memory::begin(memory.as_fd(), cgroup);
            }
        }
        _ if !plan.rootfs.is_empty() => {
            let _ = rootfs::unmount(&target);
        }
        _ => {}
    }
    report
}

fn make_container(plan: &Plan, console: Option<OwnedFd>) -> Report {
    let state_root = bundle::state_root(&plan.bundle);
    let request = runtime::CreateRequest {
        id: &plan.id,
        bundle: &plan.bundle,
        spec: None,
        state_root: &state_root,
        rootfs: None,
        volumes: Vec::new(),
        console: console.filter(|_| plan.has_terminal).map(runtime::Console::Socket),
        pid_file: None,
        preserve_fds: 0,
        systemd_cgroup: plan.options.systemd_cgroup,
        no_pivot: plan.options.no_pivot_root,
        keyring: !plan.options.no_new_keyring,
        cgroup_optional: false,
        bind_devices: false,
        // `Create` is expected to fail if nothing could be started.
        check_command: true,
    };
    let made = if plan.checkpoint.is_empty() {
        runtime::create(request)
    } else {
        let _ = std::fs::create_dir_all(&plan.work.work);
        let criu = if plan.work.criu.is_empty() { "criu" } else { &plan.work.criu };
        runtime::restore(runtime::RestoreRequest {
            create: request,
            criu: &runtime::locate_criu(Path::new(criu)),
            images: Path::new(&plan.checkpoint),
            work: Path::new(&plan.work.work),
            wait_for_start: true,
            tcp_established: false,
            external_unix: false,
            file_locks: true,
            shell_job: plan.has_terminal,
            more: runtime::CriuOptions::default(),
            deadline: None,
        })
    };
    report_of(made, &state_root, &plan.id, !plan.checkpoint.is_empty())
}
