//! Exec: further processes of a task, which are told of first and started later.

use super::Server;
use super::dispatch::Outcome;
use super::process::{Phase, Process};
use super::stdio::Stdio;
use super::streams::Streams;
use crate::protocol::{CallError, ErrorCode};
use task::ExecProcessRequest;
use task::events::TaskExecAdded;

/// Further processes of one task at one time, those that have ended and were not deleted included.
const MAX_PROCESSES: usize = 1024;

impl Server {
    pub(super) fn exec(&mut self, request: ExecProcessRequest) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let refuse = |code, why: String| Err(CallError::new(code, why));
        let task = &self.tasks[index];
        if request.exec_id.is_empty() || request.exec_id.len() > 255 {
            return refuse(ErrorCode::InvalidArgument, "exec_id: it has 1 to 255 bytes".into());
        }
        if task.find(&request.exec_id).is_ok() {
            let why = format!("task {} has a process {:?} already", task.id, request.exec_id);
            return refuse(ErrorCode::AlreadyExists, why);
        }
        if !matches!(
            task.first().phase,
            Phase::Created | Phase::Starting(_) | Phase::StartingInHelper | Phase::Running
        ) {
            return Err(task.wrong_state(0, "nothing can be executed in it"));
        }
        if task.processes.len() > MAX_PROCESSES {
            let why = format!(
                "task {} has {MAX_PROCESSES} further processes; delete those that have ended",
                task.id
            );
            return refuse(ErrorCode::Exhausted, why);
        }
        let spec = process_object(&request)?;
        let serial = self.serial();
        let task = &mut self.tasks[index];
        let event = TaskExecAdded { container_id: task.id.clone(), exec_id: request.exec_id.clone() };
        task.processes.push(Process {
            serial,
            exec_id: request.exec_id,
            phase: Phase::Added,
            pid: 0,
            exit: None,
            stdio: Stdio {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
            },
            streams: Streams::default(),
            console: None,
            spec,
        });
        self.publisher.tell(&event);
        Ok(Outcome::done())
    }
}

/// The OCI process object. Whether it has a terminal is what the call says.
fn process_object(request: &ExecProcessRequest) -> Result<Vec<u8>, CallError> {
    let invalid = |why: String| CallError::new(ErrorCode::InvalidArgument, format!("spec: {why}"));
    let spec = request.spec.as_ref().ok_or_else(|| invalid("there is none".into()))?;
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&spec.value)
        .map_err(|cause| invalid(format!("it is no OCI process object: {cause}")))?;
    object.insert("terminal".into(), request.terminal.into());
    serde_json::to_vec(&object).map_err(|cause| invalid(cause.to_string()))
}
