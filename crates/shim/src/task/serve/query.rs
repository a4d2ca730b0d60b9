//! Calls that ask: the state of a process, its end, the processes of a task and what they have used.

use super::control::Job;
use super::dispatch::Outcome;
use super::process::{Phase, Task, exited_at};
use super::{Key, Server, metrics};
use crate::parent::helper::Report;
use crate::parent::message;
use crate::protocol::{CallError, ErrorCode};
use prost::Message;
use task::options::ProcessDetails;
use task::{
    ConnectRequest, ConnectResponse, PidsRequest, PidsResponse, ProcessInfo, StateRequest, StateResponse,
    StatsRequest, WaitRequest, WaitResponse, pack,
};

impl Server {
    pub(super) fn state(&mut self, request: StateRequest) -> Result<Outcome, CallError> {
        let task = &self.tasks[self.find(&request.id)?];
        let at = task.find(&request.exec_id)?;
        let process = &task.processes[at];
        let exit = process.published_exit();
        let stdio = process.stdio.clone();
        Ok(Outcome::Now(message(&StateResponse {
            id: if at == 0 { task.id.clone() } else { process.exec_id.clone() },
            bundle: task.bundle.display().to_string(),
            pid: process.pid.cast_unsigned(),
            status: task.status(at).into(),
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            terminal: stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.code),
            exited_at: exit.and_then(exited_at),
            exec_id: process.exec_id.clone(),
        })))
    }

    pub(super) fn wait(&mut self, request: WaitRequest) -> Result<Outcome, CallError> {
        let task = &self.tasks[self.find(&request.id)?];
        let process = &task.processes[task.find(&request.exec_id)?];
        Ok(match process.published_exit() {
            Some(exit) => {
                let answer = WaitResponse { exit_status: exit.code, exited_at: exited_at(exit) };
                Outcome::Now(message(&answer))
            }
            None => Outcome::Later(Key::Exited(process.serial)),
        })
    }

    pub(super) fn connect(&mut self, request: ConnectRequest) -> Result<Outcome, CallError> {
        let task_pid = self.find(&request.id).map_or(0, |index| self.tasks[index].first().pid);
        Ok(Outcome::Now(message(&ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: task_pid.cast_unsigned(),
            version: env!("CARGO_PKG_VERSION").into(),
        })))
    }

    pub(super) fn pids(&mut self, request: PidsRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        match self.tasks[index].first().phase {
            Phase::Making { .. } => return Err(self.tasks[index].wrong_state(0, "it has no processes yet")),
            // A containerd that was restarted deletes unseen, with its exit, what answers that it has no processes.
            Phase::Stopped | Phase::Deleting { .. } => {
                return Err(self.tasks[index].wrong_state(0, "it has no processes any more"));
            }
            _ => {}
        }
        self.begin_job(index, Job::Pids, |root, id| match runtime::processes(root, id) {
            Ok(pids) => {
                let processes =
                    pids.into_iter().map(|pid| ProcessInfo { pid: pid.cast_unsigned(), info: None });
                Report::Payload(PidsResponse { processes: processes.collect() }.encode_to_vec())
            }
            Err(error @ runtime::UpdateError::Stopped { .. }) => {
                Report::failed(ErrorCode::WrongState, "", error)
            }
            Err(error @ runtime::UpdateError::Lookup(_)) => Report::failed(ErrorCode::NotFound, "", error),
            Err(error @ runtime::UpdateError::Failed { .. }) => {
                Report::failed(ErrorCode::Internal, "", error)
            }
        })
    }

    pub(super) fn stats(&mut self, request: StatsRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let Some(cgroup) = self.tasks[index].cgroup.clone() else {
            let what = format!("task {} has no control group", request.id);
            return Err(CallError::new(ErrorCode::NotFound, what));
        };
        self.begin_job(index, Job::Stats, move |_, id| match metrics::of(&cgroup) {
            Ok(stats) => Report::Payload(stats.encode_to_vec()),
            Err(error) => {
                let code = match &error {
                    cgroup::CgroupError::NotFound { .. } => ErrorCode::NotFound,
                    _ => ErrorCode::Internal,
                };
                Report::failed(code, "", format!("task {id}: {error}"))
            }
        })
    }
}

impl Task {
    /// Adds to a list of processes which of them were executed here, and under which names.
    pub(super) fn name_processes(&self, payload: &[u8]) -> Vec<u8> {
        let mut response = PidsResponse::decode(payload).unwrap_or_default();
        for info in &mut response.processes {
            let further =
                self.processes[1..].iter().find(|p| p.is_alive() && p.pid.cast_unsigned() == info.pid);
            info.info = further.map(|process| pack(&ProcessDetails { exec_id: process.exec_id.clone() }));
        }
        response.encode_to_vec()
    }
}
