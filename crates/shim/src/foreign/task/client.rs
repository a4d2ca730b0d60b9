//! Calls to a foreign shim: ttrpc over its socket, one connection for a helper, one call at a time.

use crate::protocol::{Decoder, FrameKind, Request, Response, encode};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use task::{Code, Method, SERVICE_V2, SERVICE_V3};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TaskError {
    #[error("its socket {address} cannot be reached: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("it went away during {call}: {source}")]
    Gone { call: &'static str, source: io::Error },
    #[error("it did not answer {call} within {} s", .after.as_secs())]
    Hung { call: &'static str, after: Duration },
    #[error("it answered {call} with bytes that are no such answer: {why}")]
    Garbled { call: &'static str, why: String },
    #[error("{call}: {message}")]
    Refused { call: &'static str, code: Code, message: String },
}

impl TaskError {
    /// The task, or the whole shim, is not there any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            TaskError::Unreachable { .. } | TaskError::Gone { .. } => true,
            TaskError::Refused { code, .. } => *code == Code::NotFound,
            TaskError::Hung { .. } | TaskError::Garbled { .. } => false,
        }
    }
}

/// A connection to a foreign shim.
#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    decoder: Decoder,
    /// ttrpc: what a client begins has odd numbers.
    stream: u32,
    service: &'static str,
    deadline: Duration,
}

impl Client {
    /// Connects to `address`, which is `unix://` and a path, or the path alone. `version` is that of the Task service.
    pub(super) fn connect(address: &str, version: i32, deadline: Duration) -> Result<Client, TaskError> {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        let socket = sys::socket::connect(Path::new(path))
            .map_err(|source| TaskError::Unreachable { address: address.into(), source })?;
        let service = if version >= 3 { SERVICE_V3 } else { SERVICE_V2 };
        Ok(Client { socket, decoder: Decoder::new(), stream: 1, service, deadline })
    }

    /// One call of the Task service.
    pub(super) fn call<R: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<R, TaskError> {
        self.call_within(method, request, Some(self.deadline))
    }

    /// The same without a deadline: for what takes as long as a process lives.
    pub(super) fn wait<R: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
    ) -> Result<R, TaskError> {
        self.call_within(method, request, None)
    }

    fn call_within<R: Message + Default>(
        &mut self,
        method: Method,
        request: &impl Message,
        deadline: Option<Duration>,
    ) -> Result<R, TaskError> {
        let stream = self.begin(method, request)?;
        let until = deadline.map(|after| Instant::now() + after);
        loop {
            if let Some(answer) = self.answer(method, stream)? {
                return Ok(answer);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(TaskError::Hung { call: method.name(), after: deadline.unwrap_or_default() });
            }
            let gone = |source| TaskError::Gone { call: method.name(), source };
            if self.wait_readable(left).map_err(gone)? {
                self.receive(method)?;
            }
        }
    }

    /// Sends a request; the number by which its answer is known.
    pub(super) fn begin(&mut self, method: Method, request: &impl Message) -> Result<u32, TaskError> {
        let stream = self.stream;
        self.stream += 2;
        let request = Request {
            service: self.service.into(),
            method: method.name().into(),
            payload: request.encode_to_vec(),
            ..Request::default()
        };
        let gone = |source| TaskError::Gone { call: method.name(), source };
        let mut bytes = Vec::new();
        encode(&mut bytes, stream, FrameKind::Request, &request)
            .map_err(|cause| gone(io::Error::other(cause)))?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match rustix::net::send(&self.socket, rest, rustix::net::SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(gone(cause.into())),
            }
        }
        Ok(stream)
    }

    /// The answer to a request, if what was received has it.
    pub(super) fn answer<R: Message + Default>(
        &mut self,
        method: Method,
        stream: u32,
    ) -> Result<Option<R>, TaskError> {
        let call = method.name();
        let garbled = |why: String| TaskError::Garbled { call, why };
        while let Some(frame) = self.decoder.next_frame().map_err(|cause| garbled(cause.to_string()))? {
            if frame.stream != stream || frame.kind != FrameKind::Response {
                continue;
            }
            let response = Response::decode(frame.payload).map_err(|cause| garbled(cause.to_string()))?;
            if let Some(status) = response.status.filter(|status| status.code != 0) {
                let code = Code::from_number(status.code);
                let message = status.message.chars().take(1000).collect();
                return Err(TaskError::Refused { call, code, message });
            }
            return R::decode(&response.payload[..]).map(Some).map_err(|cause| garbled(cause.to_string()));
        }
        Ok(None)
    }

    /// Takes in what is there. Waits if nothing is.
    pub(super) fn receive(&mut self, method: Method) -> Result<(), TaskError> {
        let mut buffer = [0; 4096];
        let gone = |source| TaskError::Gone { call: method.name(), source };
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => Err(gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(length) => {
                self.decoder.feed(&buffer[..length]);
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(cause) => Err(gone(cause.into())),
        }
    }

    fn wait_readable(&self, left: Option<Duration>) -> io::Result<bool> {
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().min(86_400) as i64,
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut set = [PollFd::new(&self.socket, PollFlags::IN)];
        match poll(&mut set, left.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(cause) => Err(cause.into()),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
