//! Calls that act on a running task: signals, freezing, limits, checkpoints, the terminal and the input.

use super::dispatch::Outcome;
use super::process::{Freezer, Phase};
use super::reap::Purpose;
use super::{Key, Server};
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::message;
use crate::parent::work::signal;
use crate::protocol::{CallError, ErrorCode};
use crate::task::bundle::state_root;
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use task::events::{TaskCheckpointed, TaskPaused, TaskResumed};
use task::options::CheckpointOptions;
use task::{
    CheckpointTaskRequest, CloseIoRequest, Empty, KillRequest, PauseRequest, ResizePtyRequest, ResumeRequest,
    UpdateTaskRequest, unpack,
};

/// What a helper does for one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Job {
    Kill,
    Pause,
    Resume,
    Update,
    Pids,
    Stats,
    /// Into that folder.
    Checkpoint(String),
}

impl Server {
    /// Lets a helper do something with a task; its caller is answered when that is done.
    pub(super) fn begin_job(
        &mut self,
        index: usize,
        job: Job,
        work: impl FnOnce(&Path, &str) -> Report,
    ) -> Result<Outcome, CallError> {
        let call = self.serial();
        let task = &self.tasks[index];
        let (root, id, serial) = (state_root(&task.bundle), task.id.clone(), task.serial());
        self.start_helper(Purpose::Job { call, task: serial, job }, Handed::default(), |_| work(&root, &id))
            .map_err(|cause| CallError::new(ErrorCode::Internal, cause.to_string()))?;
        Ok(Outcome::Later(Key::Done(call)))
    }

    /// What the helper said.
    pub(super) fn job_done(&mut self, call: u32, serial: u32, job: &Job, report: Report) {
        let result = match report {
            Report::Done { .. } => message(&Empty {}),
            Report::Payload(payload) => Ok(payload),
            other => Err(other.into_error(ErrorCode::Internal)),
        };
        let done = result.is_ok();
        let Some((task, _)) = self.process(serial) else {
            return self.answer(Key::Done(call), result);
        };
        let container_id = task.id.clone();
        match job {
            Job::Pause => {
                task.freezer = if done { Freezer::Frozen } else { Freezer::Thawed };
                if done {
                    self.publisher.tell(&TaskPaused { container_id });
                }
            }
            Job::Resume if done => {
                task.freezer = Freezer::Thawed;
                self.publisher.tell(&TaskResumed { container_id });
            }
            Job::Checkpoint(checkpoint) if done => {
                let checkpoint = checkpoint.clone();
                self.publisher.tell(&TaskCheckpointed { container_id, checkpoint });
            }
            Job::Pids => {
                let result = result.map(|payload| task.name_processes(&payload));
                return self.answer(Key::Done(call), result);
            }
            Job::Resume | Job::Checkpoint(_) | Job::Kill | Job::Update | Job::Stats => {}
        }
        self.answer(Key::Done(call), result);
        self.publish_if_over(serial);
    }

    pub(super) fn kill(&mut self, request: KillRequest) -> Result<Outcome, CallError> {
        let number = signal(request.signal)?;
        let index = self.find(&request.id)?;
        let at = self.tasks[index].find(&request.exec_id)?;
        let task = &self.tasks[index];
        let process = &task.processes[at];
        match process.phase {
            Phase::Added | Phase::Making { .. } => {
                return Err(task.wrong_state(at, "it has no process that could get a signal"));
            }
            Phase::Ending { .. } | Phase::Stopped | Phase::Deleting { .. } => return Err(finished(&request)),
            Phase::Created | Phase::Starting(_) | Phase::StartingInHelper | Phase::Running => {}
        }
        if at == 0 && (request.all || number == Signal::KILL) {
            let all = request.all;
            return self.begin_job(index, Job::Kill, move |root, id| {
                match runtime::kill(root, id, number.as_raw(), all) {
                    Ok(()) => Report::Done { warnings: Vec::new() },
                    Err(error @ (runtime::KillError::NotRunning { .. } | runtime::KillError::Lookup(_))) => {
                        Report::failed(ErrorCode::NotFound, "", error)
                    }
                    Err(error @ runtime::KillError::Failed { .. }) => {
                        Report::failed(ErrorCode::KillFailed, "", error)
                    }
                }
            });
        }
        // It is our child and not reaped, so the number can mean nobody else.
        let pid = Pid::from_raw(process.pid).ok_or_else(|| finished(&request))?;
        match rustix::process::kill_process(pid, number) {
            Ok(()) => Ok(Outcome::done()),
            Err(rustix::io::Errno::SRCH) => Err(finished(&request)),
            Err(cause) => {
                let what = format!("signal {} was not sent to task {}: {cause}", request.signal, request.id);
                Err(CallError::new(ErrorCode::KillFailed, what))
            }
        }
    }

    pub(super) fn pause(&mut self, request: PauseRequest) -> Result<Outcome, CallError> {
        let index = self.running(&request.id, "and cannot be paused")?;
        if self.tasks[index].freezer != Freezer::Thawed {
            let what = format!("task {} is paused already", request.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        let outcome = self.begin_job(index, Job::Pause, |root, id| updated(runtime::pause(root, id)))?;
        self.tasks[index].freezer = Freezer::Freezing;
        Ok(outcome)
    }

    pub(super) fn resume(&mut self, request: ResumeRequest) -> Result<Outcome, CallError> {
        let index = self.running(&request.id, "and cannot be resumed")?;
        if self.tasks[index].freezer != Freezer::Frozen {
            let what = format!("task {} is not paused", request.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        self.begin_job(index, Job::Resume, |root, id| updated(runtime::resume(root, id)))
    }

    pub(super) fn update(&mut self, request: UpdateTaskRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let invalid = |why: String| CallError::new(ErrorCode::InvalidArgument, format!("resources: {why}"));
        let resources = request.resources.ok_or_else(|| invalid("there are none".into()))?;
        let resources: runtime::oci_spec::runtime::LinuxResources = serde_json::from_slice(&resources.value)
            .map_err(|cause| invalid(format!("they are no OCI resources: {cause}")))?;
        self.begin_job(index, Job::Update, move |root, id| {
            updated(runtime::update(root, id, &resources).map(drop))
        })
    }

    pub(super) fn checkpoint(&mut self, request: CheckpointTaskRequest) -> Result<Outcome, CallError> {
        let index = self.running(&request.id, "and cannot be checkpointed")?;
        let options = match &request.options {
            None => CheckpointOptions::default(),
            Some(any) if any.type_url.is_empty() => CheckpointOptions::default(),
            Some(any) => unpack(any).ok().flatten().ok_or_else(|| {
                let what = format!("options: {} are not understood", any.type_url);
                CallError::new(ErrorCode::InvalidArgument, what)
            })?,
        };
        let images = Some(options.image_path.clone()).filter(|path| !path.is_empty()).unwrap_or(request.path);
        if !Path::new(&images).is_absolute() {
            let what = format!("path: {images:?} is not an absolute path");
            return Err(CallError::new(ErrorCode::InvalidArgument, what));
        }
        let task = &self.tasks[index];
        let saving = |job: &Job| matches!(job, Job::Checkpoint(_));
        let busy = |purpose: &Purpose| matches!(purpose, Purpose::Job { task: serial, job, .. } if *serial == task.serial() && saving(job));
        if self.helpers.is_busy(busy) {
            let what = format!("task {} is being checkpointed already", task.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        let save = Save {
            criu: if task.work.criu.is_empty() { "criu".into() } else { task.work.criu.clone().into() },
            work: Some(&options.work_path).filter(|path| !path.is_empty()).unwrap_or(&task.work.work).into(),
            pipes: task.first().streams.pipes(),
            has_terminal: task.first().stdio.terminal,
            images: images.clone().into(),
            options,
        };
        self.begin_job(index, Job::Checkpoint(images), move |root, id| save.run(root, id))
    }

    pub(super) fn resize(&mut self, request: ResizePtyRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let at = self.tasks[index].find(&request.exec_id)?;
        let process = &mut self.tasks[index].processes[at];
        let failed = |code, why: &str| {
            let what = format!("the terminal of {:?} of task {}: {why}", request.exec_id, request.id);
            CallError::new(code, what)
        };
        if !process.stdio.terminal {
            return Err(failed(ErrorCode::WrongState, "it has none"));
        }
        let side = |length: u32| u16::try_from(length).ok();
        let (Some(columns), Some(rows)) = (side(request.width), side(request.height)) else {
            return Err(failed(ErrorCode::InvalidArgument, "width, height: each is 0 to 65535 characters"));
        };
        process
            .streams
            .resize(rows, columns)
            .map_err(|cause| failed(ErrorCode::Internal, &cause.to_string()))?;
        Ok(Outcome::done())
    }

    pub(super) fn close_io(&mut self, request: CloseIoRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let at = self.tasks[index].find(&request.exec_id)?;
        if request.stdin {
            self.tasks[index].processes[at].streams.end_input();
        }
        Ok(Outcome::done())
    }

    fn running(&self, id: &str, what: &str) -> Result<usize, CallError> {
        let index = self.find(id)?;
        let task = &self.tasks[index];
        if matches!(task.first().phase, Phase::Running) { Ok(index) } else { Err(task.wrong_state(0, what)) }
    }
}

/// containerd takes this for the sign that a process has ended.
fn finished(request: &KillRequest) -> CallError {
    let what = match &*request.exec_id {
        "" => format!("task {}: process already finished", request.id),
        exec_id => format!("process {exec_id:?} of task {}: process already finished", request.id),
    };
    CallError::new(ErrorCode::NotFound, what)
}

/// What a helper reports of a change of a cgroup.
fn updated(result: Result<(), runtime::UpdateError>) -> Report {
    match result {
        Ok(()) => Report::Done { warnings: Vec::new() },
        Err(error) => {
            let code = match &error {
                runtime::UpdateError::Lookup(_) => ErrorCode::NotFound,
                runtime::UpdateError::Stopped { .. } => ErrorCode::WrongState,
                runtime::UpdateError::Failed { .. } => ErrorCode::Internal,
            };
            Report::failed(code, "", error)
        }
    }
}

/// A checkpoint as it was asked for.
struct Save {
    criu: PathBuf,
    work: PathBuf,
    images: PathBuf,
    pipes: [Option<u64>; 3],
    has_terminal: bool,
    options: CheckpointOptions,
}

impl Save {
    /// Runs in the helper.
    fn run(&self, root: &Path, id: &str) -> Report {
        for folder in [&self.work, &self.images] {
            if let Err(cause) = std::fs::create_dir_all(folder) {
                let why = format!("task {id}: {}: {cause}", folder.display());
                return Report::failed(ErrorCode::CheckpointFailed, "folders", why);
            }
        }
        let saved = runtime::checkpoint(&runtime::CheckpointRequest {
            id,
            state_root: root,
            criu: &runtime::locate_criu(&self.criu),
            images: &self.images,
            work: &self.work,
            pipes: Some(self.pipes),
            leave_running: !self.options.exit,
            tcp_established: self.options.open_tcp,
            external_unix: self.options.external_unix_sockets,
            file_locks: self.options.file_locks,
            shell_job: self.options.terminal || self.has_terminal,
            more: runtime::CriuOptions {
                parent: Some(&*self.options.parent_path).filter(|parent| !parent.is_empty()),
                empty_network: self.options.empty_namespaces.iter().any(|kind| kind == "network"),
                ..Default::default()
            },
            deadline: None,
        });
        match saved {
            Ok(()) => Report::Done { warnings: Vec::new() },
            Err(error @ runtime::CheckpointError::NotRunning { .. }) => {
                Report::failed(ErrorCode::WrongState, "", error)
            }
            Err(error) => Report::failed(ErrorCode::CheckpointFailed, "", error),
        }
    }
}
