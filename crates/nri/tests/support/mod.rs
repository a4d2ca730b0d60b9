//! A plugin for tests, on a wire of its own making: it says what it is told to and remembers what it heard.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nri::api;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use ttrpc::{Decoder, FrameKind, Request, Response, Status};

/// What a plugin does with a call: its method and payload.
pub enum Answer {
    With(Vec<u8>),
    Refuse(i32, &'static str),
    Later(Duration, Vec<u8>),
    Never,
    HangUp,
}

pub fn with(message: &impl Message) -> Answer {
    Answer::With(message.encode_to_vec())
}

pub type Handler = Box<dyn Fn(&str, &[u8]) -> Option<Answer> + Send + Sync>;

/// Calls with their payloads, in order.
pub type Heard = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A connected plugin.
pub struct Plugin {
    pub heard: Heard,
    calls: mpsc::Sender<(String, Vec<u8>, oneshot::Sender<Response>)>,
    task: tokio::task::JoinHandle<()>,
}

fn wrap(channel: u32, bytes: &[u8]) -> Vec<u8> {
    [&channel.to_be_bytes()[..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn frame(channel: u32, stream: u32, kind: FrameKind, message: &impl Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    ttrpc::encode(&mut bytes, stream, kind, message).unwrap();
    wrap(channel, &bytes)
}

impl Plugin {
    /// Connects and registers. `handler` answers calls; what it leaves gets an empty answer.
    pub async fn connect(socket: &Path, index: &str, name: &str, handler: Handler) -> Plugin {
        let stream = UnixStream::connect(socket).await.unwrap();
        let plugin = Plugin::serve(stream, handler);
        let request = api::RegisterPluginRequest {
            plugin_name: name.into(),
            plugin_idx: index.into(),
            nri_version: "test".into(),
        };
        let _ = plugin.ask("RegisterPlugin", &request).await;
        plugin
    }

    pub fn serve(stream: UnixStream, handler: Handler) -> Plugin {
        let heard = Heard::default();
        let (calls, waiting) = mpsc::channel(64);
        let task = tokio::spawn(run(stream, handler, heard.clone(), waiting));
        Plugin { heard, calls, task }
    }

    /// Calls the runtime; nothing where the connection ends first.
    pub async fn ask(&self, method: &str, request: &impl Message) -> Option<Response> {
        let (reply, answer) = oneshot::channel();
        self.calls.send((method.into(), request.encode_to_vec(), reply)).await.ok()?;
        answer.await.ok()
    }

    /// The names of the calls that it heard.
    pub fn methods(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|(method, _)| method.clone()).collect()
    }

    /// Waits until it has heard `method`.
    pub async fn hears(&self, method: &str) {
        eventually(method, || self.methods().iter().any(|heard| heard == method)).await;
    }

    /// Waits until its connection is over.
    pub async fn is_over(&self) {
        eventually("the end of the connection", || self.task.is_finished()).await;
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn eventually(what: &str, happens: impl Fn() -> bool) {
    for _ in 0..1000 {
        if happens() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what} did not come");
}

async fn run(
    stream: UnixStream,
    handler: Handler,
    heard: Heard,
    mut calls: mpsc::Receiver<(String, Vec<u8>, oneshot::Sender<Response>)>,
) {
    let (mut read, mut write) = stream.into_split();
    let (sending, mut to_send) = mpsc::channel::<Vec<u8>>(64);
    let waiting = Mutex::new(std::collections::HashMap::new());
    let (handler, mut next) = (Arc::new(handler), 1);
    let writer = async {
        while let Some(bytes) = to_send.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let caller = async {
        while let Some((method, payload, reply)) = calls.recv().await {
            let service = "nri.pkg.api.v1alpha1.Runtime".into();
            let request = Request { service, method, payload, ..Request::default() };
            waiting.lock().unwrap().insert(next, reply);
            let _ = sending.send(frame(2, next, FrameKind::Request, &request)).await;
            next += 2;
        }
        std::future::pending::<()>().await;
    };
    let reader = async {
        let mut decoders = [Decoder::new(), Decoder::new()];
        loop {
            let mut header = [0; 8];
            if read.read_exact(&mut header).await.is_err() {
                return;
            }
            let [_, _, _, channel, l0, l1, l2, l3] = header;
            let mut bytes = vec![0; u32::from_be_bytes([l0, l1, l2, l3]) as usize];
            if read.read_exact(&mut bytes).await.is_err() {
                return;
            }
            let decoder = &mut decoders[usize::from(channel) - 1];
            decoder.feed(&bytes);
            while let Some(found) = decoder.next_frame().unwrap() {
                if found.kind == FrameKind::Response {
                    let reply = waiting.lock().unwrap().remove(&found.stream);
                    reply.map(|reply: oneshot::Sender<Response>| {
                        reply.send(Response::decode(found.payload).unwrap())
                    });
                    continue;
                }
                let call = Request::decode(found.payload).unwrap();
                heard.lock().unwrap().push((call.method.clone(), call.payload.clone()));
                let answer = handler(&call.method, &call.payload).unwrap_or(Answer::With(Vec::new()));
                let respond = |payload, status| {
                    frame(1, found.stream, FrameKind::Response, &Response { status, payload, served: None })
                };
                match answer {
                    Answer::With(payload) => drop(sending.send(respond(payload, None)).await),
                    Answer::Refuse(code, message) => {
                        let status = Status { code, message: message.into(), details: Vec::new() };
                        drop(sending.send(respond(Vec::new(), Some(status))).await);
                    }
                    Answer::Later(wait, payload) => {
                        let (sending, bytes) = (sending.clone(), respond(payload, None));
                        tokio::spawn(async move {
                            tokio::time::sleep(wait).await;
                            let _ = sending.send(bytes).await;
                        });
                    }
                    Answer::Never => {}
                    Answer::HangUp => return,
                }
            }
        }
    };
    tokio::select! { () = writer => {}, () = caller => {}, () = reader => {} }
}
