//! Exec: further processes in a container. Their streams go straight through; the shim never touches a byte of them.

use super::Shim;
use super::container::{Exec, Phase};
use super::dispatch::Key;
use super::dispatch::Outcome;
use super::reap::Purpose;
use crate::foreign::{self, Streams};
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::{Report, Speaker};
use crate::parent::work::{execute, signal};
use crate::parent::{message, now_ns};
use crate::protocol::{
    CallError, Empty, ErrorCode, ExecRequest, ExecResponse, Exit, KillExecRequest, WaitExecRequest,
    WaitResponse,
};
use rustix::process::Pid;
use std::os::fd::OwnedFd;

/// Exits of a container's further processes that are kept after somebody was told of them.
const KEPT: usize = 64;

/// Further processes of one container at one time.
const MAX_RUNNING: usize = 1024;

impl Shim {
    pub(super) fn exec(
        &mut self,
        request: ExecRequest,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Outcome, CallError> {
        let handed = hand(&request, descriptors)?;
        let index = self.find(&request.container_id)?;
        let container = &self.containers[index];
        let refuse = |code, why: String| Err(CallError::new(code, why));
        if !matches!(container.phase, Phase::Running) {
            let state = container.phase_name();
            let why = format!("container {} is {state}, nothing can be executed in it", request.container_id);
            return refuse(ErrorCode::WrongState, why);
        }
        if container.execs.iter().any(|exec| exec.id == request.exec_id) {
            let why = format!("container {} has an exec {:?} already", request.container_id, request.exec_id);
            return refuse(ErrorCode::AlreadyExists, why);
        }
        if container.execs.iter().filter(|exec| exec.exit.is_none()).count() >= MAX_RUNNING {
            let why =
                format!("container {} has {MAX_RUNNING} further processes already", request.container_id);
            return refuse(ErrorCode::Exhausted, why);
        }
        let (container, exec) = (container.serial, self.serial());
        let state_root = self.runtime_root.clone();
        let (target, process) = (self.containers[index].target(), request.process_json);
        let what = format!("container {}, exec {}", target.id, request.exec_id);
        let (has_terminal, foreign) = (request.terminal, self.foreign.clone());
        let waits = foreign.as_ref().is_some_and(|foreign| foreign.parents());
        let purpose = Purpose::Exec { container, exec };
        self.start_speaking_helper(purpose, handed, waits, move |handed, speaker| match foreign {
            Some(foreign) => execute_foreign(&foreign, &target, exec, &process, handed, speaker),
            None => execute(&target.id, &process, &state_root, handed, has_terminal),
        })
        .map_err(|cause| CallError::new(ErrorCode::ExecFailed, format!("{what}: {cause}")).at("helper"))?;
        self.containers[index].execs.push(Exec {
            serial: exec,
            id: request.exec_id,
            pid: 0,
            started_at_ns: 0,
            exit: None,
            told: false,
        });
        Ok(Outcome::Later(Key::ExecStarted(exec)))
    }

    /// What the helper said.
    pub(super) fn executed(&mut self, container: u32, exec: u32, report: Report) {
        let now = now_ns();
        let Some(container) = self.container(container) else {
            return;
        };
        let result = match report {
            Report::Executed { pid, warnings } => {
                for what in warnings {
                    warning!("exec in container {}: {what}", container.id);
                }
                if let Some(exec) = container.execs.iter_mut().find(|known| known.serial == exec) {
                    exec.pid = pid;
                    exec.started_at_ns = now;
                }
                message(&ExecResponse { pid: pid.cast_unsigned() })
            }
            other => {
                container.execs.retain(|known| known.serial != exec);
                Err(other.into_error(ErrorCode::ExecFailed))
            }
        };
        if let Err(error) = &result {
            self.answer(Key::ExecExited(exec), Err(error.clone()));
        }
        self.answer(Key::ExecStarted(exec), result);
    }

    /// A further process was reaped.
    pub(super) fn exec_ended(&mut self, container: u32, exec: u32, mut exit: Exit) {
        let Some(known) = self
            .container(container)
            .and_then(|container| container.execs.iter_mut().find(|known| known.serial == exec))
        else {
            return;
        };
        exit.started_at_ns = known.started_at_ns;
        known.exit = Some(exit.clone());
        let waiting = self.calls.has(Key::ExecExited(exec));
        self.answer(Key::ExecExited(exec), message(&WaitResponse { exit: Some(exit) }));
        if let Some(container) = self.container(container) {
            if let Some(known) = container.execs.iter_mut().find(|known| known.serial == exec) {
                known.told = waiting;
            }
            forget_old(&mut container.execs);
        }
    }

    pub(super) fn wait_exec(&mut self, request: WaitExecRequest) -> Result<Outcome, CallError> {
        let exec = self.find_exec(&request.container_id, &request.exec_id)?;
        let Some(exit) = exec.exit.clone() else { return Ok(Outcome::Later(Key::ExecExited(exec.serial))) };
        exec.told = true;
        let index = self.find(&request.container_id)?;
        forget_old(&mut self.containers[index].execs);
        Ok(Outcome::Now(message(&WaitResponse { exit: Some(exit) })))
    }

    pub(super) fn kill_exec(&mut self, request: KillExecRequest) -> Result<Outcome, CallError> {
        let number = signal(request.signal)?;
        let foreign = self.foreign.clone().filter(|foreign| foreign.waits());
        let exec = self.find_exec(&request.container_id, &request.exec_id)?;
        let failed = |why: String| {
            let what = format!(
                "signal {} was not sent to exec {:?} of container {}: {why}",
                request.signal, request.exec_id, request.container_id
            );
            CallError::new(ErrorCode::KillFailed, what)
        };
        if exec.exit.is_none() && foreign.is_some() {
            let (exec_id, pid) = (exec.serial.to_string(), exec.pid);
            if pid == 0 {
                return Err(failed("it is still being started".into()));
            }
            let call = self.kill_exec_by_helper(&request.container_id, exec_id, number.as_raw());
            return call
                .map(|call| Outcome::Later(Key::Killed(call)))
                .map_err(|cause| failed(cause.to_string()));
        }
        if exec.exit.is_none() {
            // It is our child and not reaped, so the number can mean nobody else.
            let pid = Pid::from_raw(exec.pid).ok_or_else(|| failed("it is still being started".into()))?;
            rustix::process::kill_process(pid, number).map_err(|cause| failed(cause.to_string()))?;
        }
        Ok(Outcome::Now(message(&Empty {})))
    }

    fn find_exec(&mut self, container_id: &str, exec_id: &str) -> Result<&mut Exec, CallError> {
        let index = self.find(container_id)?;
        self.containers[index].execs.iter_mut().find(|exec| exec.id == exec_id).ok_or_else(|| {
            let exec_id: String = exec_id.chars().take(80).collect();
            let what = format!("container {container_id} has no exec {exec_id:?}");
            CallError::new(ErrorCode::NotFound, what)
        })
    }
}

/// Keeps the latest exits that somebody was told of, and of those that nobody asked for yet as many as processes may run: each of these
/// is somebody's answer still.
fn forget_old(execs: &mut Vec<Exec>) {
    for (told, kept) in [(true, KEPT), (false, MAX_RUNNING)] {
        let exited = |exec: &Exec| exec.exit.is_some() && exec.told == told;
        let mut surplus = execs.iter().filter(|exec| exited(exec)).count().saturating_sub(kept);
        execs.retain(|exec| {
            let goes = surplus > 0 && exited(exec);
            surplus -= usize::from(goes);
            !goes
        });
    }
}

fn hand(request: &ExecRequest, descriptors: Vec<OwnedFd>) -> Result<Handed, CallError> {
    let streams = [request.has_stdin, request.has_stdout, request.has_stderr];
    let expected = if request.terminal { 1 } else { streams.iter().filter(|has| **has).count() };
    if descriptors.len() != expected || (request.terminal && streams.contains(&true)) {
        let why =
            "terminal, has_stdin, has_stdout, has_stderr: they do not agree with the number of descriptors";
        return Err(CallError::new(ErrorCode::InvalidArgument, why));
    }
    let mut descriptors = descriptors.into_iter();
    if request.terminal {
        return Ok(Handed { console: descriptors.next(), ..Handed::default() });
    }
    let mut next = |has: bool| if has { descriptors.next() } else { None };
    let (stdin, stdout, stderr) = (next(streams[0]), next(streams[1]), next(streams[2]));
    Ok(Handed { stdin, stdout, stderr, ..Handed::default() })
}

/// Runs in the helper.
fn execute_foreign(
    foreign: &foreign::Runtime,
    target: &foreign::Target,
    exec: u32,
    process: &[u8],
    mut handed: Handed,
    speaker: Speaker<'_>,
) -> Report {
    let console = handed.console.take();
    let streams = match &console {
        _ if !foreign.parents() => Ok(Streams::default()),
        Some(console) => Streams::terminal(console),
        None => Streams::of([handed.stdin.take(), handed.stdout.take(), handed.stderr.take()]),
    };
    let streams = match streams.and_then(|streams| handed.wire().map(|()| streams)) {
        Ok(streams) => streams,
        Err(cause) => return Report::failed(ErrorCode::ExecFailed, "standard streams", cause),
    };
    let exec_id = exec.to_string();
    let io = foreign::ExecIo { console: console.as_ref(), streams: &streams };
    let pid = match foreign.exec(target, &exec_id, process, io) {
        Ok(pid) => pid,
        Err(error) => return error.into(),
    };
    drop(console);
    let executed = Report::Executed { pid, warnings: Vec::new() };
    if !foreign.parents() || speaker.say(&executed).is_err() {
        return executed;
    }
    foreign.wait(target, Some((&exec_id, streams))).into()
}
