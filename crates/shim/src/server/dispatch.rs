//! From a frame to the call it asks for.

use super::connection::Gone;
use super::pending::{Caller, Key};
use super::{Shim, message, now_ns, response};
use crate::protocol::{
    CallError, DESCRIPTORS_KEY, ErrorCode, FrameKind, InfoResponse, MAX_DESCRIPTORS, Method,
    PROTOCOL_VERSION, Request, Response, SERVICE,
};
use prost::Message;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Calls of one client that may wait for an answer at one time.
const MAX_OUTSTANDING: usize = 1024;

/// How a call goes on.
pub(super) enum Outcome {
    Now(Result<Vec<u8>, CallError>),
    /// Answered when the event happens.
    Later(Key),
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Outcome {
        Outcome::Now(Err(error))
    }
}

pub(super) fn expired() -> Response {
    CallError::new(ErrorCode::DeadlineExceeded, "the time the caller gave is over; the operation goes on")
        .response()
}

/// Decodes a call's message, or says what is wrong with it.
pub(super) fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, CallError> {
    M::decode(payload).map_err(|cause| {
        CallError::new(ErrorCode::InvalidArgument, format!("the request cannot be decoded: {cause}"))
    })
}

impl Shim {
    /// Serves the whole requests a client has sent, until it has to read its answers first.
    pub(super) fn serve_frames(&mut self, index: usize, buffer: &mut [u8]) -> Result<(), Gone> {
        loop {
            let connection = &mut self.connections[index];
            if connection.is_held_back() {
                return Ok(());
            }
            let Some(frame) = connection.decoder.next_frame().map_err(|_| Gone::Garbage)? else {
                connection.decoder.shrink();
                return Ok(());
            };
            let stream = frame.stream;
            if frame.kind != FrameKind::Request {
                return Err(Gone::Garbage);
            }
            let request = Request::decode(frame.payload).map_err(|_| Gone::Garbage)?;
            let descriptors = connection.claim(descriptors_of(&request)?)?;
            let caller = Caller {
                connection: connection.serial,
                stream,
                began_ns: now_ns(),
                deadline: deadline_of(&request),
            };
            let crowded = connection.outstanding >= MAX_OUTSTANDING;
            connection.outstanding += 1;
            let outcome = if crowded {
                let why = format!("this client waits for {MAX_OUTSTANDING} answers already");
                CallError::new(ErrorCode::Exhausted, why).into()
            } else {
                self.call(&request, caller.connection, descriptors, buffer)
            };
            match outcome {
                Outcome::Now(result) => self.reply(caller, response(result)),
                Outcome::Later(key) => self.pending.add(key, caller),
            }
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
            Method::Kill => decode(payload).and_then(|request| self.kill(request)),
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

fn descriptors_of(request: &Request) -> Result<usize, Gone> {
    match request.metadata.iter().find(|line| line.key == DESCRIPTORS_KEY) {
        None => Ok(0),
        Some(line) => line.value.parse().ok().filter(|n| *n <= MAX_DESCRIPTORS).ok_or(Gone::Garbage),
    }
}

fn deadline_of(request: &Request) -> Option<Instant> {
    let nanoseconds = u64::try_from(request.timeout_nano).ok().filter(|n| *n > 0)?;
    Instant::now().checked_add(Duration::from_nanos(nanoseconds))
}
