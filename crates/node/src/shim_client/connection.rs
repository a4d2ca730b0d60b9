//! One connection to a shim: many calls at once, descriptors beside them, served by a task of its own.

use prost::Message;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use shim::protocol::{
    DESCRIPTORS_KEY, Decoder, FrameKind, KeyValue, MAX_DESCRIPTORS, MAX_PAYLOAD, Method, Request, Response,
    SERVICE, encode,
};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// Calls that may wait to be sent before callers are held back.
const QUEUE: usize = 64;

/// A handle on the task; the connection ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    calls: mpsc::Sender<Call>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum Broken {
    TooLong,
    Gone,
}

#[derive(Debug)]
struct Call {
    request: Request,
    descriptors: Vec<OwnedFd>,
    reply: oneshot::Sender<Response>,
}

impl Connection {
    /// Starts serving `socket` in the current tokio runtime.
    pub(super) fn open(socket: OwnedFd) -> io::Result<Connection> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let socket = UnixStream::from_std(socket.into())?;
        let (calls, incoming) = mpsc::channel(QUEUE);
        tokio::spawn(serve(socket, incoming));
        Ok(Connection { calls })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.calls.is_closed()
    }

    pub(super) async fn call(
        &self,
        method: Method,
        payload: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Response, Broken> {
        let metadata = match descriptors.len() {
            0 => Vec::new(),
            number => vec![KeyValue { key: DESCRIPTORS_KEY.into(), value: number.to_string() }],
        };
        let request = Request {
            service: SERVICE.into(),
            method: method.name().into(),
            payload,
            timeout_nano: 0,
            metadata,
        };
        if request.encoded_len() > MAX_PAYLOAD || descriptors.len() > MAX_DESCRIPTORS {
            return Err(Broken::TooLong);
        }
        let (reply, answer) = oneshot::channel();
        self.calls.send(Call { request, descriptors, reply }).await.map_err(|_| Broken::Gone)?;
        answer.await.map_err(|_| Broken::Gone)
    }
}

/// A frame on its way out.
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

enum Event {
    Call(Option<Call>),
    Readable(io::Result<usize>),
    Written(io::Result<()>),
}

async fn serve(socket: UnixStream, mut incoming: mpsc::Receiver<Call>) {
    let mut waiting: HashMap<u32, oneshot::Sender<Response>> = HashMap::new();
    let mut out: VecDeque<Outgoing> = VecDeque::new();
    let mut decoder = Decoder::new();
    let mut buffer = [0; 8192];
    // ttrpc: streams of a client are odd.
    let mut next_stream: u32 = 1;
    let mut handles_left = true;
    while handles_left || !waiting.is_empty() {
        let event = tokio::select! {
            call = incoming.recv(), if handles_left && out.len() < QUEUE => Event::Call(call),
            read = receive(&socket, &mut buffer) => Event::Readable(read),
            written = transmit(&socket, &mut out), if !out.is_empty() => Event::Written(written),
        };
        match event {
            Event::Call(None) => handles_left = false,
            Event::Call(Some(call)) => {
                // A caller that left is forgotten only when its answer comes; its stream id must not be given to another.
                while waiting.contains_key(&next_stream) {
                    next_stream = next_stream.wrapping_add(2);
                }
                let mut bytes = Vec::new();
                if encode(&mut bytes, next_stream, FrameKind::Request, &call.request).is_err() {
                    continue;
                }
                waiting.insert(next_stream, call.reply);
                next_stream = next_stream.wrapping_add(2);
                out.push_back(Outgoing { bytes, sent: 0, descriptors: call.descriptors });
            }
            Event::Readable(Ok(0)) => return,
            Event::Readable(Ok(length)) => {
                decoder.feed(&buffer[..length]);
                if deliver(&mut decoder, &mut waiting).is_err() {
                    return;
                }
            }
            Event::Written(Ok(())) => {}
            Event::Readable(Err(_)) | Event::Written(Err(_)) => return,
        }
    }
}

/// Hands every whole answer to its caller; bytes that are none end the connection.
fn deliver(decoder: &mut Decoder, waiting: &mut HashMap<u32, oneshot::Sender<Response>>) -> Result<(), ()> {
    while let Some(frame) = decoder.next_frame().map_err(|_| ())? {
        let response = Response::decode(frame.payload).map_err(|_| ())?;
        if let (FrameKind::Response, Some(reply)) = (frame.kind, waiting.remove(&frame.stream)) {
            let _ = reply.send(response);
        }
    }
    decoder.shrink();
    Ok(())
}

async fn receive(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    socket
        .async_io(Interest::READABLE, || {
            let (length, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::empty())?;
            Ok(length)
        })
        .await
}

/// Sends what the socket takes of the first frame. Its descriptors go with its first byte. Cancel safe: nothing happens before the
/// socket is writable, and nothing is awaited after.
async fn transmit(socket: &UnixStream, out: &mut VecDeque<Outgoing>) -> io::Result<()> {
    let Some(frame) = out.front_mut() else {
        return Ok(());
    };
    socket
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<_> = frame.descriptors.iter().map(AsFd::as_fd).collect();
            if !descriptors.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let rest = [IoSlice::new(&frame.bytes[frame.sent..])];
            let sent = rustix::net::sendmsg(socket, &rest, &mut ancillary, SendFlags::NOSIGNAL)?;
            frame.sent += sent;
            frame.descriptors.clear();
            Ok(())
        })
        .await?;
    if frame.sent == frame.bytes.len() {
        out.pop_front();
    }
    Ok(())
}
