//! A plugin's socket: calls to the plugin and calls of the plugin, many at once, each way in its own ttrpc connection.
//!
//! Whatever comes over the socket is bounded: frames by their length, calls of the plugin by a queue, answers by who waits for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use ttrpc::{Decoder, FrameKind, Request, Response, Status};

use crate::mux::{self, Channel};

/// The service that a plugin serves.
const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service that the runtime serves.
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

/// Calls on their way to the plugin before callers wait.
const QUEUE: usize = 64;
/// Calls of the plugin that wait to be handled; further ones are refused.
const ASKED: usize = 16;
/// How long a plugin may leave its refusals unread.
const DEAF: Duration = Duration::from_secs(5);

/// gRPC's numbers of the codes that are used here.
pub(crate) mod code {
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const UNIMPLEMENTED: i32 = 12;
}

/// Why a call has no answer, or one that refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{message}")]
    Refused { code: i32, message: String },
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("its connection ended")]
    Closed,
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the request has {0} bytes, more than a message may have")]
    TooLong(usize),
}

/// A call of the plugin. Dropped unanswered, the plugin waits for nothing.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) payload: Vec<u8>,
    answer: Answering,
}

#[derive(Debug)]
struct Answering {
    stream: u32,
    outgoing: mpsc::Sender<Vec<u8>>,
}

impl Asked {
    /// Answers the call.
    pub(crate) async fn answer(self, answer: Result<Vec<u8>, (i32, String)>) {
        let response = match answer {
            Ok(payload) => Response { payload, ..Response::default() },
            Err((code, message)) => refusal(code, message),
        };
        self.answer.send(&response).await;
    }
}

impl Answering {
    async fn send(&self, response: &Response) {
        if let Some(bytes) = frame(Channel::Runtime, self.stream, FrameKind::Response, response) {
            let _ = self.outgoing.send(bytes).await;
        }
    }
}

fn refusal(code: i32, message: String) -> Response {
    Response { status: Some(Status { code, message, details: Vec::new() }), ..Response::default() }
}

fn frame(channel: Channel, stream: u32, kind: FrameKind, message: &impl Message) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    ttrpc::encode(&mut bytes, stream, kind, message).ok()?;
    Some(mux::wrap(channel, &bytes))
}

/// Who waits for answers, by stream; odd numbers are those of a ttrpc client.
#[derive(Debug, Default)]
struct Waiting {
    next: u32,
    answers: HashMap<u32, oneshot::Sender<Response>>,
}

/// The handle on a plugin's socket, which is closed when this is dropped or by [`Connection::close`].
#[derive(Debug)]
pub(crate) struct Connection {
    outgoing: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    closed: watch::Sender<bool>,
}

impl Connection {
    /// Serves `socket` in the current tokio runtime. The calls of the plugin come out of the receiver.
    pub(crate) fn open(socket: UnixStream) -> (Connection, mpsc::Receiver<Asked>) {
        let (read, write) = socket.into_split();
        let (outgoing, to_send) = mpsc::channel(QUEUE);
        let (asking, asked) = mpsc::channel(ASKED);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let closed = watch::Sender::new(false);
        let reader = Reader { waiting: waiting.clone(), asking, outgoing: outgoing.downgrade() };
        let (ending, end) = (closed.clone(), closed.subscribe());
        tokio::spawn(async move {
            let mut end = end;
            tokio::select! {
                () = reader.run(read) => {}
                () = send(write, to_send) => {}
                _ = end.wait_for(|closed| *closed) => {}
            }
            ending.send_replace(true);
        });
        (Connection { outgoing, waiting, closed }, asked)
    }

    /// Ends the connection; every call under way ends with it.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until it is closed, by whomever.
    pub(crate) async fn ended(&self) {
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Calls `method` of the plugin and waits for its answer, at most `patience`.
    pub(crate) async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &str,
        request: &Q,
        patience: Duration,
    ) -> Result<R, CallError> {
        let mut closed = self.closed.subscribe();
        let (stream, answer) = self.expect_answer();
        let _forget = Forget { stream, waiting: &self.waiting };
        let envelope = Request {
            service: PLUGIN_SERVICE.into(),
            method: method.into(),
            payload: request.encode_to_vec(),
            timeout_nano: i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX),
            metadata: Vec::new(),
        };
        let length = envelope.encoded_len();
        let bytes = frame(Channel::Plugin, stream, FrameKind::Request, &envelope)
            .ok_or(CallError::TooLong(length))?;
        let talk = async {
            self.outgoing.send(bytes).await.map_err(|_| CallError::Closed)?;
            answer.await.map_err(|_| CallError::Closed)
        };
        let response = tokio::select! {
            done = tokio::time::timeout(patience, talk) => done.map_err(|_| CallError::TimedOut(patience))??,
            _ = closed.wait_for(|closed| *closed) => return Err(CallError::Closed),
        };
        match response.status {
            Some(Status { code, message, .. }) if code != 0 => Err(CallError::Refused { code, message }),
            _ => R::decode(&response.payload[..]).map_err(|why| CallError::Unreadable(why.to_string())),
        }
    }

    fn expect_answer(&self) -> (u32, oneshot::Receiver<Response>) {
        let (reply, answer) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let stream = waiting.next | 1;
            waiting.next = stream.wrapping_add(2);
            if let std::collections::hash_map::Entry::Vacant(free) = waiting.answers.entry(stream) {
                free.insert(reply);
                return (stream, answer);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes a call off the list of those that wait, however it ended.
struct Forget<'a> {
    stream: u32,
    waiting: &'a Mutex<Waiting>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).answers.remove(&self.stream);
    }
}

async fn send(mut socket: OwnedWriteHalf, mut messages: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = messages.recv().await {
        if socket.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

struct Reader {
    waiting: Arc<Mutex<Waiting>>,
    asking: mpsc::Sender<Asked>,
    /// Weak: the sending half must not outlive the connection because of the receiving one.
    outgoing: mpsc::WeakSender<Vec<u8>>,
}

impl Reader {
    /// Reads until the socket ends or says what cannot be understood.
    async fn run(self, mut socket: OwnedReadHalf) {
        let (mut answers, mut calls) = (Decoder::new(), Decoder::new());
        let mut buffer = vec![0; 16 << 10];
        loop {
            let mut header = [0; mux::HEADER_BYTES];
            if socket.read_exact(&mut header).await.is_err() {
                return;
            }
            let Ok((channel, mut left)) = mux::parse(header) else { return };
            while left > 0 {
                let room = left.min(buffer.len());
                let length = match socket.read(&mut buffer[..room]).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => length,
                };
                left -= length;
                let understood = match channel {
                    Channel::Plugin => self.answered(&mut answers, &buffer[..length]),
                    Channel::Runtime => self.called(&mut calls, &buffer[..length]).await,
                    Channel::Other => Some(()),
                };
                if understood.is_none() {
                    return;
                }
            }
        }
    }

    /// Hands answers to those who wait for them. `None`: these bytes are no answers.
    fn answered(&self, decoder: &mut Decoder, bytes: &[u8]) -> Option<()> {
        decoder.feed(bytes);
        while let Some(frame) = decoder.next_frame().ok()? {
            if frame.kind != FrameKind::Response {
                return None;
            }
            let response = Response::decode(frame.payload).ok()?;
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(reply) = waiting.answers.remove(&frame.stream) {
                let _ = reply.send(response);
            }
        }
        decoder.shrink();
        Some(())
    }

    /// Passes calls of the plugin on. `None`: these bytes are no calls, or nobody is there to take them.
    async fn called(&self, decoder: &mut Decoder, bytes: &[u8]) -> Option<()> {
        decoder.feed(bytes);
        while let Some(frame) = decoder.next_frame().ok()? {
            if frame.kind != FrameKind::Request {
                return None;
            }
            let request = Request::decode(frame.payload).ok()?;
            let outgoing = self.outgoing.upgrade()?;
            let answer = Answering { stream: frame.stream, outgoing: outgoing.clone() };
            let refused = if request.service != RUNTIME_SERVICE {
                Some(refusal(code::UNIMPLEMENTED, format!("there is no service {:?} here", request.service)))
            } else {
                let asked = Asked { method: request.method, payload: request.payload, answer };
                match self.asking.try_send(asked) {
                    Ok(()) => None,
                    Err(mpsc::error::TrySendError::Closed(_)) => return None,
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        let why = format!("{ASKED} calls of this plugin wait already");
                        Some(refusal(code::RESOURCE_EXHAUSTED, why))
                    }
                }
            };
            // One that asks and asks is not read from while its refusals wait, and one that reads none of them is given up.
            if let Some(response) = refused {
                let bytes = self::frame(Channel::Runtime, frame.stream, FrameKind::Response, &response)?;
                tokio::time::timeout(DEAF, outgoing.send(bytes)).await.ok()?.ok()?;
            }
        }
        decoder.shrink();
        Some(())
    }
}
