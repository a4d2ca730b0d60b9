//! What a foreign shim wants of ours: to be begun before a pod's first container and ended after its last, fifos, waits, and an ear for its
//! events.

use super::Shim;
use super::container::{Container, Output, Phase};
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::input::Input;
use super::reap::Purpose;
use crate::config::stream_path;
use crate::foreign::{Ended, Runtime, Target};
use crate::log::Stream;
use crate::messages::{info, warning};
use crate::parent::decode;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::poller::{READ, Token};
use crate::parent::{message, now_ns};
use crate::protocol::{BeginPodRequest, CallError, CreateRequest, Empty, ErrorCode, Exit, Request};
use rustix::fs::{FileType, Mode, OFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use task::events::{Event, FORWARD, ForwardRequest, TaskOom};

const SIGKILL: u32 = 9;

/// Where the foreign part of a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// There is nothing to end.
    NotBegun,
    Beginning,
    Begun,
    Ending,
}

/// What a foreign shim says of itself: the end of it.
#[derive(Debug)]
pub(super) struct Log {
    fifo: OwnedFd,
    end: Vec<u8>,
}

/// So much of it.
const KEPT: usize = 4096;

impl From<Ended> for Report {
    fn from(ended: Ended) -> Report {
        Report::Ended { code: ended.code, exited_at_ns: ended.exited_at_ns, lost: ended.lost }
    }
}

impl Shim {
    pub(super) fn begin_pod(&mut self, request: BeginPodRequest) -> Result<Outcome, CallError> {
        let Some(foreign) = self.foreign.clone().filter(|_| self.foreign_pod == State::NotBegun) else {
            let what = "this pod has no foreign runtime, or it was begun already";
            return Err(CallError::new(ErrorCode::WrongState, what));
        };
        let failed =
            |cause: io::Error| CallError::new(ErrorCode::SetupFailed, cause.to_string()).at("helper");
        self.foreign_log = self.open_log().map(Some).map_err(failed)?;
        self.start_helper(Purpose::BeginPod, Handed::default(), move |mut handed| match handed.wire() {
            Ok(()) => Report::of(foreign.begin_pod(&request.spec_json)),
            Err(cause) => Report::failed(ErrorCode::SetupFailed, "standard streams", cause),
        })
        .map_err(failed)?;
        self.foreign_pod = State::Beginning;
        Ok(Outcome::Later(Key::PodBegun))
    }

    /// What the helper said.
    pub(super) fn pod_begun(&mut self, report: Report) {
        let result = match report {
            Report::Done { .. } => message(&Empty {}),
            other => {
                let mut error = other.into_error(ErrorCode::SetupFailed);
                self.add_foreign_words(&mut error.message);
                Err(error)
            }
        };
        // Half of it may stand also after a failure.
        self.foreign_pod = State::Begun;
        self.answer(Key::PodBegun, result);
    }

    /// Foreign shims write what they say of themselves into a fifo of this name in the folder that they are started in, and wait for a reader.
    fn open_log(&self) -> io::Result<Box<Log>> {
        let config = &self.pod.config;
        let folder = crate::foreign::pause::bundle(&config.pod_dir, &config.pod_id);
        std::fs::create_dir_all(&folder)?;
        // Open for both, so that it never ends.
        let fifo = fifo(&folder, "log", OFlags::RDWR)?;
        self.poller.add(&fifo, Token::ForeignLog, READ)?;
        Ok(Box::new(Log { fifo, end: Vec::new() }))
    }

    pub(super) fn foreign_log_readable(&mut self, buffer: &mut [u8]) {
        let Some(log) = &mut self.foreign_log else { return };
        if let Ok(length) = rustix::io::read(&log.fifo, &mut *buffer) {
            log.end.extend_from_slice(&buffer[..length]);
            let surplus = log.end.len().saturating_sub(KEPT);
            log.end.drain(..surplus);
        }
    }

    /// Adds the last line that the foreign shim has said.
    fn add_foreign_words(&mut self, to: &mut String) {
        let mut buffer = [0; KEPT];
        self.foreign_log_readable(&mut buffer);
        let said = self.foreign_log.as_ref().and_then(|log| crate::foreign::last_words(&log.end));
        if let Some(said) = said {
            to.push_str("; the last that it said: ");
            to.push_str(&said);
        }
    }

    /// Whether nothing of the foreign runtime is left; otherwise its end is begun.
    pub(super) fn has_ended_foreign_pod(&mut self) -> bool {
        let Some(foreign) = self.foreign.clone().filter(|_| self.foreign_pod != State::NotBegun) else {
            return true;
        };
        if self.foreign_pod == State::Begun {
            self.foreign_pod = State::Ending;
            let work = move |_| Report::of(foreign.end_pod());
            if let Err(cause) = self.start_helper(Purpose::EndPod, Handed::default(), work) {
                self.pod_ended(Report::failed(ErrorCode::DeleteFailed, "helper", cause));
            }
        }
        false
    }

    /// What the helper said.
    pub(super) fn pod_ended(&mut self, report: Report) {
        if !matches!(report, Report::Done { .. }) {
            let error = report.into_error(ErrorCode::DeleteFailed);
            warning!("the pod's foreign runtime has not ended in good order: {error}");
        }
        self.foreign_pod = State::NotBegun;
    }

    /// Makes the fifos that are the container's streams.
    pub(super) fn wire_fifos(&self, container: &mut Container, request: &CreateRequest) -> io::Result<()> {
        let bundle = Path::new(&request.bundle);
        let reader = |name: &str| fifo(bundle, name, OFlags::RDONLY);
        let (serial, tty) = (container.serial, request.terminal);
        container.outputs[0] =
            Some(Output::open(reader("stdout")?, serial, Stream::Stdout, tty, &self.poller)?);
        if !tty {
            let stderr = reader("stderr")?;
            container.outputs[1] = Some(Output::open(stderr, serial, Stream::Stderr, false, &self.poller)?);
        }
        if request.stdin {
            // Open for both, so that nobody has to be there yet who reads.
            let stdin = fifo(bundle, "stdin", OFlags::RDWR)?;
            container.stdin = Some(Input::new(stdin, request.stdin_once && !tty));
            container.owes_end_of_input = true;
        }
        Ok(())
    }

    /// Tells the foreign shim of inputs that have ended: it has the fifos open for writing too, so that their end alone is none.
    pub(super) fn tell_ends_of_input(&mut self) {
        let Some(foreign) = self.foreign.clone() else { return };
        let ended: Vec<(u32, Target)> = self
            .containers
            .iter_mut()
            .filter(|container| {
                container.owes_end_of_input && container.stdin.is_none() && container.has_init()
            })
            .map(|container| {
                container.owes_end_of_input = false;
                (container.serial, container.target())
            })
            .collect();
        for (container, target) in ended {
            let foreign = foreign.clone();
            let work = move |_| Report::of(foreign.close_input(&target));
            if let Err(cause) = self.start_helper(Purpose::CloseInput { container }, Handed::default(), work)
            {
                self.input_closed(container, Report::failed(ErrorCode::Internal, "helper", cause));
            }
        }
    }

    /// What the helper said.
    pub(super) fn input_closed(&mut self, serial: u32, report: Report) {
        if let Some(container) = self.container(serial).filter(|container| container.exit.is_none())
            && !matches!(report, Report::Done { .. })
        {
            let id = container.id.clone();
            let error = report.into_error(ErrorCode::Internal);
            warning!("container {id}: the end of its input could not be told: {error}");
        }
    }

    pub(super) fn is_being_made(&mut self, serial: u32) -> bool {
        self.container(serial).is_some_and(|container| matches!(container.phase, Phase::Creating { .. }))
    }

    pub(super) fn is_running(&mut self, serial: u32) -> bool {
        self.container(serial).is_some_and(|container| matches!(container.phase, Phase::Running))
    }

    pub(super) fn has_begun(&mut self, container: u32, exec: u32) -> bool {
        let known = self.container(container).and_then(|container| {
            container.execs.iter().find(|known| known.serial == exec).map(|known| known.pid != 0)
        });
        known.unwrap_or(false)
    }

    /// What was said of the end of a container's first process, which was somebody else's child.
    pub(super) fn ended_elsewhere(&mut self, serial: u32, report: Report, buffer: &mut [u8]) {
        let Some(container) = self.container(serial).filter(|container| container.exit.is_none()) else {
            return;
        };
        let (id, mut exit) = (container.id.clone(), exit_of(report, container.pid));
        if !exit.lost.is_empty() {
            self.add_foreign_words(&mut exit.lost);
            warning!("container {id}: {}", exit.lost);
        }
        self.container_ended(serial, exit, buffer);
    }

    /// The same of a further process.
    pub(super) fn exec_ended_elsewhere(&mut self, container: u32, exec: u32, report: Report) {
        let pid = self
            .container(container)
            .and_then(|container| container.execs.iter().find(|known| known.serial == exec))
            .filter(|known| known.exit.is_none())
            .map(|known| known.pid);
        if let Some(pid) = pid {
            self.exec_ended(container, exec, exit_of(report, pid));
        }
    }

    pub(super) fn resize_foreign(
        &mut self,
        foreign: Rc<Runtime>,
        target: Target,
        columns: u16,
        rows: u16,
    ) -> Result<Outcome, CallError> {
        let call = self.serial();
        self.start_helper(Purpose::Resize { call }, Handed::default(), move |_| {
            Report::of(foreign.resize(&target, columns, rows))
        })
        .map_err(|cause| CallError::new(ErrorCode::Internal, cause.to_string()).at("helper"))?;
        Ok(Outcome::Later(Key::Resized(call)))
    }

    /// What the helper said.
    pub(super) fn resized(&mut self, call: u32, report: Report) {
        let result = match report {
            Report::Done { .. } => message(&Empty {}),
            other => Err(other.into_error(ErrorCode::Internal)),
        };
        self.answer(Key::Resized(call), result);
    }

    /// An event of the foreign shim. That memory ran out is told in no other way where the container's cgroup is not on this host.
    pub(super) fn take_event(&mut self, request: &Request) -> Outcome {
        if request.method != FORWARD {
            let what = format!("this shim does not know {}/{}", request.service, request.method);
            return CallError::new(ErrorCode::Unimplemented, what).into();
        }
        let forwarded: ForwardRequest = match decode(&request.payload) {
            Ok(forwarded) => forwarded,
            Err(error) => return error.into(),
        };
        let envelope = forwarded.envelope.unwrap_or_default();
        info!("the foreign shim says {}", envelope.topic);
        if envelope.topic == TaskOom::TOPIC
            && let Some(Ok(Some(oom))) = envelope.event.as_ref().map(task::unpack::<TaskOom>)
            && let Ok(index) = self.find(&oom.container_id)
        {
            self.containers[index].oom_told = true;
        }
        Outcome::Now(message(&Empty {}))
    }
}

/// The exit that a report is; one that tells of none is the loss of it.
fn exit_of(report: Report, pid: i32) -> Exit {
    let (code, exited_at_ns, lost) = match report {
        Report::Ended { code, exited_at_ns, lost } => (code, exited_at_ns, lost.unwrap_or_default()),
        // The one that waited for a further process ends with the container.
        Report::Failed { stage, .. } if stage == Report::DIED => (128 + SIGKILL, 0, String::new()),
        other => (255, 0, other.into_error(ErrorCode::Internal).message),
    };
    let signal =
        if lost.is_empty() { code.checked_sub(128).filter(|signal| (1..=64).contains(signal)) } else { None };
    Exit {
        code,
        signal: signal.unwrap_or(0),
        pid: pid.cast_unsigned(),
        exited_at_ns: if exited_at_ns > 0 { exited_at_ns } else { now_ns() },
        lost,
        ..Exit::default()
    }
}

/// Makes a fifo, and opens it without waiting for anybody.
fn fifo(bundle: &Path, name: &str, access: OFlags) -> io::Result<OwnedFd> {
    let path = stream_path(bundle, name);
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    Ok(rustix::fs::open(&path, access | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}
