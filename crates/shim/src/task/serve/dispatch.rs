//! From a frame to the call it asks for.

use super::{Key, Server};
use crate::parent::{calls, decode};
use crate::protocol::{CallError, ErrorCode, Request, Response, Status};
use task::{Method, SERVICE_V2, SERVICE_V3};

/// How a call goes on.
pub(super) type Outcome = calls::Outcome<Key>;

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

impl Server {
    /// Serves the whole requests a client has sent, until it has to read its answers first.
    pub(super) fn serve(&mut self, client: u32, buffer: &mut [u8]) {
        while let Some(call) = self.calls.next(client, &self.poller) {
            let outcome = self.call(&call.request, buffer).unwrap_or_else(Outcome::from);
            self.calls.settle(call.caller, outcome);
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
