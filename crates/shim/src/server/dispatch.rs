//! From a frame to the call it asks for.

use super::Shim;
use crate::parent::{calls, decode, message};
use crate::protocol::{CallError, ErrorCode, InfoResponse, Method, PROTOCOL_VERSION, Request, SERVICE};
use std::os::fd::{AsRawFd, OwnedFd};

/// An event that answers calls. The numbers are serials of containers, execs and calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Created(u32),
    Started(u32),
    Exited(u32),
    Deleted(u32),
    Killed(u32),
    Updated(u32),
    Resized(u32),
    PodBegun,
    ExecStarted(u32),
    ExecExited(u32),
    Paused,
    Resumed,
    Checkpointed(u32),
    ShutDown,
}

/// How a call goes on.
pub(super) type Outcome = calls::Outcome<Key>;

impl Shim {
    /// Serves the whole requests a client has sent, until it has to read its answers first.
    pub(super) fn serve(&mut self, client: u32, buffer: &mut [u8]) {
        while let Some(call) = self.calls.next(client, &self.poller) {
            let outcome = self.call(&call.request, client, call.descriptors, buffer);
            self.calls.settle(call.caller, outcome);
        }
    }

    fn call(
        &mut self,
        request: &Request,
        connection: u32,
        descriptors: Vec<OwnedFd>,
        buffer: &mut [u8],
    ) -> Outcome {
        if request.service == task::events::SERVICE && self.foreign.is_some() {
            return self.take_event(request);
        }
        let known = Some(&request.method).filter(|_| request.service == SERVICE);
        let Some(method) = known.and_then(|name| Method::parse(name)) else {
            let what = format!("this shim does not know {}/{}", request.service, request.method);
            return CallError::new(ErrorCode::Unimplemented, what).into();
        };
        if self.ending.is_some()
            && !matches!(method, Method::Info | Method::Wait | Method::WaitExec | Method::Shutdown)
        {
            return CallError::new(ErrorCode::ShuttingDown, "this pod's shim is ending").into();
        }
        let payload = &request.payload[..];
        let outcome = match method {
            Method::Info => Ok(Outcome::Now(self.info())),
            Method::Create => decode(payload).and_then(|request| self.create(request, descriptors)),
            Method::Start => decode(payload).and_then(|request| self.start(request)),
            Method::Kill => decode(payload).and_then(|request| self.kill(request, buffer)),
            Method::Wait => decode(payload).and_then(|request| self.wait(request)),
            Method::Delete => decode(payload).and_then(|request| self.delete(request, buffer)),
            Method::Exec => decode(payload).and_then(|request| self.exec(request, descriptors)),
            Method::WaitExec => decode(payload).and_then(|request| self.wait_exec(request)),
            Method::KillExec => decode(payload).and_then(|request| self.kill_exec(request)),
            Method::Attach => decode(payload).and_then(|request| self.attach(request, descriptors)),
            Method::Resize => decode(payload).and_then(|request| self.resize(request)),
            Method::ReopenLog => decode(payload).and_then(|request| self.reopen_log(request)),
            Method::Pause => decode(payload).and_then(|request| self.pause(request, connection)),
            Method::Resume => decode(payload).and_then(|request| self.resume(request)),
            Method::Checkpoint => decode(payload).and_then(|request| self.checkpoint(request)),
            Method::Update => decode(payload).and_then(|request| self.update(request)),
            Method::BeginPod => decode(payload).and_then(|request| self.begin_pod(request)),
            Method::Shutdown => decode(payload).map(|request| self.shutdown(request)),
        };
        outcome.unwrap_or_else(Outcome::from)
    }

    fn info(&self) -> Result<Vec<u8>, CallError> {
        let pid_init = self.pod.pid_init.as_ref().map_or(0, |init| init.pid);
        message(&InfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            protocol_version: PROTOCOL_VERSION,
            pod_id: self.pod.config.pod_id.clone(),
            pid: std::process::id(),
            containers: self.containers.iter().map(|container| container.info()).collect(),
            pid_namespace_init: pid_init.cast_unsigned(),
            user_namespace: self.pod.users.as_ref().map_or(0, |users| users.as_raw_fd().cast_unsigned()),
        })
    }

    /// The place of a container in the list, or the error that there is none.
    pub(super) fn find(&self, id: &str) -> Result<usize, CallError> {
        self.containers.iter().position(|container| container.id == id).ok_or_else(|| {
            let id: String = id.chars().take(80).collect();
            CallError::new(
                ErrorCode::NotFound,
                format!("pod {} has no container {id:?}", self.pod.config.pod_id),
            )
        })
    }
}
