//! Start: tells the first process to become the command, or makes a further one; and learns without waiting whether it did.

use super::create::streams_failed;
use super::dispatch::Outcome;
use super::process::{Freezer, Phase};
use super::reap::Purpose;
use super::streams::Streams;
use super::{Key, Server, logger};
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::message;
use crate::parent::poller::{READ, Token};
use crate::parent::work::execute;
use crate::parent::work::{stage, start_error};
use crate::protocol::{CallError, ErrorCode};
use crate::task::bundle::state_root;
use std::io;
use task::events::{TaskExecStarted, TaskStart};
use task::{StartRequest, StartResponse};

impl Server {
    pub(super) fn start(&mut self, request: StartRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        match self.tasks[index].find(&request.exec_id)? {
            0 => self.start_first(index),
            at => self.start_further(index, at),
        }
    }

    fn start_first(&mut self, index: usize) -> Result<Outcome, CallError> {
        let task = &self.tasks[index];
        let (serial, id) = (task.serial(), task.id.clone());
        if !matches!(task.first().phase, Phase::Created) || task.first().exit.is_some() {
            return Err(task.wrong_state(0, "and cannot be started"));
        }
        let root = state_root(&task.bundle);
        let failed = |cause: io::Error| CallError::new(ErrorCode::StartFailed, format!("task {id}: {cause}"));
        let phase = if task.start_in_helper {
            let id = id.clone();
            self.start_helper(Purpose::Start { task: serial }, Handed::default(), move |_| {
                match runtime::start(&root, &id) {
                    Ok(()) => Report::Done { warnings: Vec::new() },
                    Err(error) => Report::failed(ErrorCode::StartFailed, stage(&error), error),
                }
            })
            .map_err(failed)?;
            Phase::StartingInHelper
        } else {
            let attempt = runtime::begin_start(&root, &id).map_err(|error| start_error(&error))?;
            self.poller.add(&attempt, Token::Start(serial), READ).map_err(|cause| failed(cause.into()))?;
            Phase::Starting(Box::new(attempt))
        };
        self.tasks[index].first_mut().phase = phase;
        Ok(Outcome::Later(Key::Started(serial)))
    }

    /// The outcome of a start may be known.
    pub(super) fn start_readable(&mut self, serial: u32) {
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        let Phase::Starting(attempt) = &mut task.first_mut().phase else {
            return;
        };
        let Some(result) = attempt.try_finish() else {
            return;
        };
        self.stop_waiting_for_start(serial);
        self.started(serial, result.map_err(|error| start_error(&error)));
    }

    /// The first process is dead: a start that was under way ends now, whatever its outcome.
    pub(super) fn resolve_start(&mut self, serial: u32) {
        self.start_readable(serial);
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        if let Phase::Starting(_) = task.first().phase {
            let what = format!("task {} ended before its command ran", task.id);
            self.stop_waiting_for_start(serial);
            self.started(serial, Err(CallError::new(ErrorCode::StartFailed, what)));
        }
    }

    fn stop_waiting_for_start(&mut self, serial: u32) {
        let first = self.tasks.iter().map(|task| task.first()).find(|first| first.serial == serial);
        if let Some(Phase::Starting(attempt)) = first.map(|first| &first.phase) {
            self.poller.remove(&**attempt);
        }
    }

    /// What a helper said that started a task with hooks.
    pub(super) fn started_by_helper(&mut self, serial: u32, report: Report) {
        let result = match report {
            Report::Done { .. } => Ok(()),
            other => Err(other.into_error(ErrorCode::StartFailed)),
        };
        self.started(serial, result);
        self.publish_if_over(serial);
    }

    fn started(&mut self, serial: u32, result: Result<(), CallError>) {
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        let pid = task.first().pid.cast_unsigned();
        let event = TaskStart { container_id: task.id.clone(), pid };
        let first = task.first_mut();
        if matches!(first.phase, Phase::Starting(_) | Phase::StartingInHelper) {
            first.phase = if result.is_ok() { Phase::Running } else { Phase::Created };
        }
        if result.is_ok() {
            self.publisher.tell(&event);
        }
        self.answer(Key::Started(serial), result.and_then(|()| message(&StartResponse { pid })));
    }

    fn start_further(&mut self, index: usize, at: usize) -> Result<Outcome, CallError> {
        let task = &self.tasks[index];
        if !matches!(task.processes[at].phase, Phase::Added) {
            return Err(task.wrong_state(at, "and cannot be started"));
        }
        if !matches!(task.first().phase, Phase::Running) {
            return Err(task.wrong_state(0, "nothing can be executed in it"));
        }
        if task.freezer != Freezer::Thawed {
            // It would be frozen before it ran.
            let what =
                format!("task {} is paused, nothing can be executed in it before it is resumed", task.id);
            return Err(CallError::new(ErrorCode::WrongState, what));
        }
        let (id, root) = (task.id.clone(), state_root(&task.bundle));
        let process = &task.processes[at];
        let (serial, spec, stdio) = (process.serial, process.spec.clone(), process.stdio.clone());
        let what = format!("process {:?} of task {id}", process.exec_id);
        let (mut streams, handed, console) =
            Streams::wire(serial, &stdio, (&id, &self.namespace), &self.poller)
                .map_err(|cause| streams_failed(&what, &cause))?;
        let must_say = streams.must_say_ready;
        let started = self.start_helper(Purpose::Exec { process: serial }, handed, move |mut handed| {
            if let Some(ready) = handed.ready.take()
                && let Err(cause) = logger::wait_until_ready(&ready, must_say)
            {
                return Report::failed(ErrorCode::ExecFailed, "standard streams", cause);
            }
            execute(&id, &spec, &root, handed, stdio.terminal)
        });
        if let Err(cause) = started {
            streams.close(&self.poller);
            return Err(CallError::new(ErrorCode::ExecFailed, format!("{what}: {cause}")));
        }
        let process = &mut self.tasks[index].processes[at];
        // What was asked for before there was a terminal is kept.
        streams.inherit_size(&process.streams);
        (process.streams, process.console) = (streams, console);
        process.spec = Vec::new();
        process.phase = Phase::Making { cancelled: false };
        Ok(Outcome::Later(Key::Started(serial)))
    }

    /// What the helper said.
    pub(super) fn executed(&mut self, serial: u32, report: Report) {
        let result = match report {
            Report::Executed { pid, warnings } => {
                warnings.iter().for_each(|what| warning!("a further process: {what}"));
                if let Some(process) = self.process_of(serial) {
                    process.pid = pid;
                    process.phase = Phase::Running;
                }
                self.take_terminal(serial).map(|()| pid).map_err(|cause| {
                    CallError::new(ErrorCode::ExecFailed, format!("the terminal did not arrive: {cause}"))
                })
            }
            other => Err(other.into_error(ErrorCode::ExecFailed)),
        };
        let Some((task, at)) = self.process(serial) else {
            return;
        };
        let event = result.as_ref().ok().map(|pid| TaskExecStarted {
            container_id: task.id.clone(),
            exec_id: task.processes[at].exec_id.clone(),
            pid: pid.cast_unsigned(),
        });
        if let Err(error) = &result {
            let error = error.clone();
            self.never_ran(serial, error);
        }
        if let Some(event) = event {
            self.publisher.tell(&event);
        }
        let answer = result.and_then(|pid| message(&StartResponse { pid: pid.cast_unsigned() }));
        self.answer(Key::Started(serial), answer);
    }
}
