//! A containerd shim v2 (the Task service) that runs a pod's containers: what helpers ask of it.
//!
//! One such shim serves a pod. It parents the processes, so that their ends are learned by waiting for them in helpers of their own.

mod bootstrap;
mod client;
mod relay;
mod streams;

use super::{Ended, Made, Target, made, pause};
use crate::config::{TaskOptions, TaskShim, stream_path};
use crate::protocol::{CallError, ErrorCode};
use bootstrap::{BootstrapError, Start};
use client::{Client, TaskError};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use task::options::{GenericOptions, Options};
use task::{
    Any, CloseIoRequest, CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, Empty,
    ExecProcessRequest, KillRequest, Method, OCI_PROCESS, OCI_RESOURCES, ResizePtyRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, Status, UpdateTaskRequest, WaitRequest,
    WaitResponse, pack, pack_json,
};

pub(crate) use streams::Streams;

/// How long something that was killed may take to end.
const DYING: Duration = Duration::from_secs(5);

const SIGKILL: u32 = 9;

/// The shim, and the pod that it serves.
pub(super) struct Task<'a> {
    shim: &'a TaskShim,
    pod_dir: &'a Path,
    pod_id: &'a str,
    events: &'a str,
}

fn error(code: ErrorCode, what: &str, cause: &dyn std::fmt::Display) -> CallError {
    CallError::new(code, format!("{what}: {cause}")).at("runtime")
}

impl<'a> Task<'a> {
    /// `events` is the path of the socket that takes the shim's events.
    pub(super) fn new(shim: &'a TaskShim, pod_dir: &'a Path, pod_id: &'a str, events: &'a str) -> Task<'a> {
        Task { shim, pod_dir, pod_id, events }
    }

    /// Starts the shim, and in it the container that stands for the pod where it wants one.
    pub(super) fn begin_pod(&self, spec: &[u8]) -> Result<(), CallError> {
        let made = self.make_pod(spec);
        if made.is_err() {
            let _ = self.end_pod();
            super::program::end_all_children();
        }
        made.map_err(|cause| error(ErrorCode::SetupFailed, "the pod's runtime", &cause))
    }

    fn make_pod(&self, spec: &[u8]) -> Result<(), BootstrapError> {
        let bundle = pause::bundle(self.pod_dir, self.pod_id);
        pause::write(self.pod_dir, self.pod_id, spec)
            .map_err(|source| BootstrapError::File { path: bundle.clone(), source })?;
        bootstrap::start(&self.start_of(self.pod_id, &bundle))?;
        if !self.shim.pause {
            return Ok(());
        }
        let mut client = self.client()?;
        let call = |source| self.failed(source);
        let request = self.create_request(self.pod_id, &bundle);
        let created: CreateTaskResponse = client.call(Method::Create, &request).map_err(call)?;
        // One that cannot be seen here, as in a virtual machine, needs no record.
        let _ = pause::record(self.pod_dir, created.pid.cast_signed());
        let request = StartRequest { id: self.pod_id.into(), exec_id: String::new() };
        let _: StartResponse = client.call(Method::Start, &request).map_err(call)?;
        Ok(())
    }

    /// Ends the container that stands for the pod, and the shim. What is not there is ended.
    pub(super) fn end_pod(&self) -> Result<(), CallError> {
        let bundle = pause::bundle(self.pod_dir, self.pod_id);
        let target = Target { id: self.pod_id.into(), bundle };
        let removed =
            if self.shim.pause { self.delete(&target).and(super::remove_cgroup(&target)) } else { Ok(()) };
        if let Ok(mut client) = self.client() {
            let request = ShutdownRequest { id: self.pod_id.into(), now: true };
            let _: Result<Empty, _> = client.call(Method::Shutdown, &request);
        }
        self.end_shim(Duration::from_secs(1));
        let _ = std::fs::remove_file(crate::config::task_record_path(self.pod_dir));
        pause::forget(self.pod_dir);
        removed
    }

    /// Kills the shim if it does not end by itself for so long. What it parents is lost with it, and whoever waits for that is told.
    fn end_shim(&self, patience: Duration) {
        let Ok(record) = bootstrap::find(self.pod_dir) else { return };
        let Ok(pidfd) = sys::process::open_pidfd(record.pid.cast_signed(), record.start_time) else { return };
        let ends_within = |limit: Duration| {
            sys::process::wait_for_end(pidfd.as_fd(), u64::try_from(limit.as_millis()).unwrap_or(0))
        };
        if !ends_within(patience) {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            ends_within(DYING);
        }
    }

    /// Makes a container; its streams are the fifos that are in its bundle already.
    pub(super) fn create(&self, target: &Target) -> Result<Made, CallError> {
        let attempt = || {
            let request = self.create_request(&target.id, &target.bundle);
            let created: CreateTaskResponse =
                self.client()?.call(Method::Create, &request).map_err(|source| self.failed(source))?;
            let pid = i32::try_from(created.pid).unwrap_or(0);
            if pid <= 0 || !Path::new(&format!("/proc/{pid}")).exists() {
                let why = format!("it answered Create with process {}, which there is not", created.pid);
                return Err(BootstrapError::Answer { path: self.shim.path.clone(), why });
            }
            Ok(made(self.pod_dir, target, pid))
        };
        attempt().map_err(|cause| self.error(ErrorCode::CreateFailed, target, &cause))
    }

    pub(super) fn start(&self, target: &Target) -> Result<(), CallError> {
        let request = StartRequest { id: target.id.clone(), exec_id: String::new() };
        self.one::<StartResponse>(Method::Start, &request)
            .map(drop)
            .map_err(|cause| self.error(ErrorCode::StartFailed, target, &cause))
    }

    /// Starts a further process; its pid.
    pub(super) fn exec(
        &self,
        target: &Target,
        exec_id: &str,
        process: &[u8],
        streams: &Streams,
    ) -> Result<i32, CallError> {
        let [stdin, stdout, stderr] = streams.paths();
        let request = ExecProcessRequest {
            id: target.id.clone(),
            exec_id: exec_id.into(),
            terminal: streams.is_terminal(),
            stdin,
            stdout,
            stderr,
            spec: Some(pack_json(OCI_PROCESS, process.to_vec())),
        };
        let attempt = || {
            let mut client = self.client()?;
            let call = |source| self.failed(source);
            let _: Empty = client.call(Method::Exec, &request).map_err(call)?;
            let begin = StartRequest { id: target.id.clone(), exec_id: exec_id.into() };
            let started: Result<StartResponse, _> = client.call(Method::Start, &begin);
            match started {
                Ok(started) => Ok(i32::try_from(started.pid).unwrap_or(0)),
                Err(source) => {
                    let gone = DeleteRequest { id: target.id.clone(), exec_id: exec_id.into() };
                    let _: Result<DeleteResponse, _> = client.call(Method::Delete, &gone);
                    Err(self.failed(source))
                }
            }
        };
        attempt().map_err(|cause| self.error(ErrorCode::ExecFailed, target, &cause))
    }

    /// Waits for the end of a container, or of a further process of it, which is removed then and whose streams are served meanwhile.
    pub(super) fn wait(&self, target: &Target, exec: Option<(&str, Streams)>) -> Ended {
        let attempt = || -> Result<WaitResponse, BootstrapError> {
            let mut client = self.client()?;
            let waited = match exec {
                None => {
                    let request = WaitRequest { id: target.id.clone(), exec_id: String::new() };
                    client.wait(Method::Wait, &request)
                }
                Some((exec_id, streams)) => streams.serve(&mut client, target, exec_id, self.shim.deadline()),
            };
            waited.map_err(|source| self.failed(source))
        };
        match attempt() {
            Ok(waited) => Ended {
                code: waited.exit_status,
                exited_at_ns: waited.exited_at.map_or(0, |at| at.as_ns()),
                lost: None,
            },
            Err(cause) => Ended { code: 255, exited_at_ns: 0, lost: Some(cause.to_string()) },
        }
    }

    pub(super) fn kill(
        &self,
        target: &Target,
        exec_id: Option<&str>,
        signal: i32,
        all: bool,
    ) -> Result<(), CallError> {
        let request = KillRequest {
            id: target.id.clone(),
            exec_id: exec_id.unwrap_or_default().into(),
            signal: signal.cast_unsigned(),
            all,
        };
        match self.one::<Empty>(Method::Kill, &request) {
            Ok(Empty {}) => Ok(()),
            // The container is to end, and nobody else can end it.
            Err(BootstrapError::Call { source: TaskError::Hung { .. }, .. }) if exec_id.is_none() => {
                self.end_shim(Duration::ZERO);
                Ok(())
            }
            Err(_) if exec_id.is_none() && self.has_ended(target) == Some(true) => Ok(()),
            Err(BootstrapError::Call { source, .. }) if source.is_gone() => Ok(()),
            Err(cause) => Err(self.error(ErrorCode::KillFailed, target, &cause)),
        }
    }

    /// Removes a task, whatever state it is in; by the program itself where its shim does not answer any more.
    pub(super) fn delete(&self, target: &Target) -> Result<(), CallError> {
        let kill = KillRequest { id: target.id.clone(), exec_id: String::new(), signal: SIGKILL, all: true };
        let until = Instant::now() + DYING;
        while Instant::now() < until {
            match self.has_ended(target) {
                Some(true) => break,
                Some(false) => drop(self.one::<Empty>(Method::Kill, &kill)),
                None => self.end_shim(Duration::ZERO),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let request = DeleteRequest { id: target.id.clone(), exec_id: String::new() };
        match self.one::<DeleteResponse>(Method::Delete, &request) {
            Ok(_) => Ok(()),
            Err(BootstrapError::Call {
                source: TaskError::Refused { code: task::Code::NotFound, .. },
                ..
            }) => Ok(()),
            Err(BootstrapError::NotStarted) => Ok(()),
            Err(_) => bootstrap::clean_up(&self.start_of(&target.id, &target.bundle))
                .map_err(|cause| self.error(ErrorCode::DeleteFailed, target, &cause)),
        }
    }

    pub(super) fn update(&self, target: &Target, resources: &[u8]) -> Result<(), CallError> {
        let resources = Some(pack_json(OCI_RESOURCES, resources.to_vec()));
        let request = UpdateTaskRequest { id: target.id.clone(), resources, ..UpdateTaskRequest::default() };
        self.one::<Empty>(Method::Update, &request)
            .map(drop)
            .map_err(|cause| self.error(ErrorCode::UpdateFailed, target, &cause))
    }

    pub(super) fn resize(&self, target: &Target, width: u16, height: u16) -> Result<(), CallError> {
        let (width, height) = (width.into(), height.into());
        let request = ResizePtyRequest { id: target.id.clone(), exec_id: String::new(), width, height };
        self.one::<Empty>(Method::ResizePty, &request)
            .map(drop)
            .map_err(|cause| self.error(ErrorCode::Internal, target, &cause))
    }

    pub(super) fn close_input(&self, target: &Target) -> Result<(), CallError> {
        let request = CloseIoRequest { id: target.id.clone(), exec_id: String::new(), stdin: true };
        self.one::<Empty>(Method::CloseIo, &request)
            .map(drop)
            .map_err(|cause| self.error(ErrorCode::Internal, target, &cause))
    }

    /// Whether its processes are gone; `None` where the shim does not answer in time.
    fn has_ended(&self, target: &Target) -> Option<bool> {
        let request = StateRequest { id: target.id.clone(), exec_id: String::new() };
        match self.one::<StateResponse>(Method::State, &request) {
            Ok(state) => Some(state.status() == Status::Stopped),
            Err(BootstrapError::Call { source: TaskError::Hung { .. }, .. }) => None,
            Err(BootstrapError::Call { source, .. }) => Some(source.is_gone()),
            Err(_) => Some(true),
        }
    }

    fn one<R: prost::Message + Default>(
        &self,
        method: Method,
        request: &impl prost::Message,
    ) -> Result<R, BootstrapError> {
        self.client()?.call(method, request).map_err(|source| self.failed(source))
    }

    fn client(&self) -> Result<Client, BootstrapError> {
        let record = bootstrap::find(self.pod_dir)?;
        Client::connect(&record.address, record.version, self.shim.deadline())
            .map_err(|source| self.failed(source))
    }

    fn failed(&self, source: TaskError) -> BootstrapError {
        BootstrapError::Call { path: self.shim.path.clone(), source }
    }

    fn error(&self, code: ErrorCode, target: &Target, cause: &BootstrapError) -> CallError {
        error(code, &format!("container {}", target.id), cause)
    }

    fn start_of<'b>(&'b self, id: &'b str, bundle: &'b Path) -> Start<'b> {
        Start {
            shim: self.shim,
            pod_dir: self.pod_dir,
            events: self.events,
            bundle,
            id,
            options: self.options(),
        }
    }

    fn create_request(&self, id: &str, bundle: &Path) -> CreateTaskRequest {
        let stream = |name: &str| {
            let path = stream_path(bundle, name);
            if path.exists() { path.to_string_lossy().into_owned() } else { String::new() }
        };
        let terminal = stream_path(bundle, "stdout").exists() && !stream_path(bundle, "stderr").exists();
        CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_string_lossy().into_owned(),
            terminal,
            stdin: stream("stdin"),
            stdout: stream("stdout"),
            stderr: stream("stderr"),
            options: self.options(),
            ..CreateTaskRequest::default()
        }
    }

    fn options(&self) -> Option<Any> {
        let text = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
        };
        match &self.shim.options {
            TaskOptions::None => None,
            TaskOptions::Runc { binary, root, systemd_cgroup } => Some(pack(&Options {
                binary_name: text(binary),
                root: root.to_string_lossy().into_owned(),
                systemd_cgroup: *systemd_cgroup,
                ..Options::default()
            })),
            TaskOptions::Generic { type_url, config_path } => Some(pack(&GenericOptions {
                type_url: type_url.clone(),
                config_path: config_path.to_string_lossy().into_owned(),
                ..GenericOptions::default()
            })),
        }
    }
}
