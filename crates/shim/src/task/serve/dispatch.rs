//! From a frame to the call it asks for.

use super::{Key, Server};
use crate::protocol::{CallError, ErrorCode, FrameKind, Request, Response, Status};
use crate::server::connection::Gone;
use crate::server::pending::Caller;
use crate::server::{message, now_ns};
use prost::Message;
use std::time::{Duration, Instant};
use task::{Empty, Method, SERVICE_V2, SERVICE_V3};

/// Calls of one client that may wait for an answer at one time.
const MAX_OUTSTANDING: usize = 4096;

/// How a call goes on.
pub(super) enum Outcome {
    Now(Result<Vec<u8>, CallError>),
    /// Answered when the event happens.
    Later(Key),
}

impl Outcome {
    /// Done, and nothing to say.
    pub(super) fn done() -> Outcome {
        Outcome::Now(message(&Empty {}))
    }
}

pub(super) fn expired() -> Response {
    let why = "the time the caller gave is over; the operation goes on";
    response(Err(CallError::new(ErrorCode::DeadlineExceeded, why)))
}

/// The answer on the wire. Our own detail is left out: containerd looks at the code alone.
pub(super) fn response(result: Result<Vec<u8>, CallError>) -> Response {
    match result {
        Ok(payload) => Response { payload, ..Response::default() },
        Err(error) => Response {
            status: Some(Status { code: error.code.grpc(), message: error.message, details: Vec::new() }),
            ..Response::default()
        },
    }
}

fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, CallError> {
    M::decode(payload).map_err(|cause| {
        CallError::new(ErrorCode::InvalidArgument, format!("the request cannot be decoded: {cause}"))
    })
}

impl Server {
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
            if frame.kind != FrameKind::Request {
                return Err(Gone::Garbage);
            }
            let request = Request::decode(frame.payload).map_err(|_| Gone::Garbage)?;
            let caller = Caller {
                connection: connection.serial,
                stream: frame.stream,
                began_ns: now_ns(),
                deadline: deadline_of(&request),
            };
            let crowded = connection.outstanding >= MAX_OUTSTANDING;
            connection.outstanding += 1;
            let outcome = if crowded {
                let why = format!("this client waits for {MAX_OUTSTANDING} answers already");
                Outcome::Now(Err(CallError::new(ErrorCode::Exhausted, why)))
            } else {
                self.call(&request, buffer).unwrap_or_else(|error| Outcome::Now(Err(error)))
            };
            match outcome {
                Outcome::Now(result) => self.reply(caller, response(result)),
                Outcome::Later(key) => self.pending.add(key, caller),
            }
        }
    }

    fn call(&mut self, request: &Request, buffer: &mut [u8]) -> Result<Outcome, CallError> {
        let known = [SERVICE_V2, SERVICE_V3].contains(&&*request.service);
        let Some(method) = Some(&request.method).filter(|_| known).and_then(|name| Method::parse(name))
        else {
            let what = format!("this shim does not know {}/{}", request.service, request.method);
            return Err(CallError::new(ErrorCode::Unimplemented, what));
        };
        if self.ending.is_some() && !matches!(method, Method::Shutdown | Method::Connect) {
            return Err(CallError::new(ErrorCode::ShuttingDown, "this shim is ending"));
        }
        let payload = &request.payload[..];
        match method {
            Method::State => self.state(decode(payload)?),
            Method::Create => self.create(decode(payload)?),
            Method::Start => self.start(decode(payload)?),
            Method::Delete => self.delete(decode(payload)?, buffer),
            Method::Pids => self.pids(decode(payload)?),
            Method::Pause => self.pause(decode(payload)?),
            Method::Resume => self.resume(decode(payload)?),
            Method::Checkpoint => self.checkpoint(decode(payload)?),
            Method::Kill => self.kill(decode(payload)?),
            Method::Exec => self.exec(decode(payload)?),
            Method::ResizePty => self.resize(decode(payload)?),
            Method::CloseIo => self.close_io(decode(payload)?),
            Method::Update => self.update(decode(payload)?),
            Method::Wait => self.wait(decode(payload)?),
            Method::Stats => self.stats(decode(payload)?),
            Method::Connect => self.connect(decode(payload)?),
            Method::Shutdown => {
                let _: task::ShutdownRequest = decode(payload)?;
                self.shut_down();
                Ok(Outcome::done())
            }
        }
    }

    /// The place of a task in the list, or the error that there is none.
    pub(super) fn find(&self, id: &str) -> Result<usize, CallError> {
        self.tasks.iter().position(|task| task.id == id).ok_or_else(|| {
            let id: String = id.chars().take(80).collect();
            CallError::new(ErrorCode::NotFound, format!("this shim has no task {id:?}"))
        })
    }
}

fn deadline_of(request: &Request) -> Option<Instant> {
    let nanoseconds = u64::try_from(request.timeout_nano).ok().filter(|n| *n > 0)?;
    Instant::now().checked_add(Duration::from_nanos(nanoseconds))
}
