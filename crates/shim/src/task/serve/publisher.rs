//! Events, told to containerd in the order in which they happened, one after the other.
//!
//! containerd may be away for a while or hang: events wait then, and nothing else does. There is a bound; over it the oldest are lost.

use crate::messages::warning;
use crate::parent::now_ns;
use crate::parent::poller::{Poller, READ, READ_AND_WRITE, Token};
use prost::Message;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use task::events::{Envelope, Event, FORWARD, ForwardRequest, SERVICE};
use task::{Timestamp, pack};
use ttrpc::{Decoder, FrameKind, KeyValue, Request, Response, encode};

/// Events that wait at one time.
const MOST: usize = 4096;

/// How long containerd may take to answer one.
const ANSWER: Duration = Duration::from_secs(5);

/// Attempts are this far apart, and further from one to the next.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// How often containerd may say that it does not take an event before it is given up.
const REFUSALS: u32 = 3;

#[derive(Debug)]
pub(super) struct Publisher {
    /// The socket; none: nobody wants events.
    path: Option<PathBuf>,
    namespace: String,
    queue: VecDeque<ForwardRequest>,
    link: Link,
    pause: Duration,
    /// How often the first of the queue was refused.
    refused: u32,
}

#[derive(Debug)]
enum Link {
    /// Nobody is connected, and it is not tried before that time.
    Down {
        until: Option<Instant>,
    },
    Up(Box<Connection>),
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    next_stream: u32,
    /// The stream of the event that is under way, and when its time is over.
    under_way: Option<(u32, Instant)>,
    out: Vec<u8>,
    sent: usize,
    writing: bool,
}

/// The connection is of no use any more.
#[derive(Debug)]
struct Broken;

impl Publisher {
    /// Publishes events of tasks in `namespace` at the socket `address`; if that is empty, nowhere.
    pub(super) fn new(address: &str, namespace: &str) -> Publisher {
        let path = address.strip_prefix("unix://").unwrap_or(address);
        Publisher {
            path: Some(path).filter(|path| !path.is_empty()).map(PathBuf::from),
            namespace: namespace.into(),
            queue: VecDeque::new(),
            link: Link::Down { until: None },
            pause: SHORTEST_PAUSE,
            refused: 0,
        }
    }

    /// Queues an event.
    pub(super) fn tell<E: Event>(&mut self, event: &E) {
        if self.path.is_none() {
            return;
        }
        if self.queue.len() >= MOST {
            // The first may be under way.
            let lost = self.queue.remove(1).and_then(|lost| lost.envelope);
            warning!("an event was lost, {MOST} wait: {}", lost.map_or(String::new(), |lost| lost.topic));
        }
        self.queue.push_back(ForwardRequest {
            envelope: Some(Envelope {
                timestamp: Some(Timestamp::from_ns(now_ns())),
                namespace: self.namespace.clone(),
                topic: E::TOPIC.into(),
                event: Some(pack(event)),
            }),
        });
    }

    /// Whether everything was told.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// When to go on even if nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.link {
            _ if self.queue.is_empty() => None,
            Link::Down { until } => Some(until.unwrap_or_else(Instant::now)),
            Link::Up(connection) => connection.under_way.map(|(_, until)| until),
        }
    }

    /// The socket is ready for something.
    pub(super) fn ready(&mut self, poller: &Poller, buffer: &mut [u8]) {
        let Link::Up(connection) = &mut self.link else {
            return;
        };
        match connection.receive(buffer) {
            Ok(None) => {}
            Ok(Some(response)) => self.answered(&response),
            Err(Broken) => self.down(poller),
        }
    }

    /// Does what can be done now: connects, sends the next event, sees that the time of one is over.
    pub(super) fn go_on(&mut self, poller: &Poller, now: Instant) {
        if self.queue.is_empty() {
            return;
        }
        if let Link::Down { until } = &self.link {
            if until.is_some_and(|until| until > now) {
                return;
            }
            self.connect(poller);
        }
        let Link::Up(connection) = &mut self.link else {
            return;
        };
        let done = match connection.under_way {
            Some((_, until)) if until <= now => Err(Broken),
            Some(_) => connection.flush(poller),
            None => match self.queue.front() {
                Some(request) => connection.begin(request, now).and_then(|()| connection.flush(poller)),
                None => Ok(()),
            },
        };
        if done.is_err() {
            self.down(poller);
        }
    }

    fn connect(&mut self, poller: &Poller) {
        let Some(path) = &self.path else {
            return self.queue.clear();
        };
        let connected = sys::socket::connect_at_once(path)
            .and_then(|socket| Ok(poller.add(&socket, Token::Publisher, READ).map(|()| socket)?));
        match connected {
            Ok(socket) => {
                self.link = Link::Up(Box::new(Connection {
                    socket,
                    decoder: Decoder::new(),
                    next_stream: 1,
                    under_way: None,
                    out: Vec::new(),
                    sent: 0,
                    writing: false,
                }));
            }
            Err(_) => self.down(poller),
        }
    }

    fn answered(&mut self, response: &Response) {
        self.pause = SHORTEST_PAUSE;
        let refusal = response.status.as_ref().filter(|status| status.code != 0);
        if let Some(status) = refusal {
            self.refused += 1;
            if self.refused < REFUSALS {
                return;
            }
            warning!("containerd does not take an event: {}", status.message);
        }
        self.refused = 0;
        self.queue.pop_front();
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
    }

    fn down(&mut self, poller: &Poller) {
        if let Link::Up(connection) = &self.link {
            poller.remove(&connection.socket);
        }
        self.link = Link::Down { until: Some(Instant::now() + self.pause) };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

impl Connection {
    fn begin(&mut self, request: &ForwardRequest, now: Instant) -> Result<(), Broken> {
        let namespace =
            request.envelope.as_ref().map_or(String::new(), |envelope| envelope.namespace.clone());
        let call = Request {
            service: SERVICE.into(),
            method: FORWARD.into(),
            payload: request.encode_to_vec(),
            timeout_nano: ANSWER.as_nanos() as i64,
            metadata: vec![KeyValue { key: "containerd-namespace-ttrpc".into(), value: namespace }],
        };
        // A client's streams have odd numbers.
        let stream = self.next_stream;
        self.next_stream = self.next_stream.checked_add(2).ok_or(Broken)?;
        encode(&mut self.out, stream, FrameKind::Request, &call).map_err(|_| Broken)?;
        self.under_way = Some((stream, now + ANSWER));
        Ok(())
    }

    fn flush(&mut self, poller: &Poller) -> Result<(), Broken> {
        while self.sent < self.out.len() {
            match rustix::net::send(
                &self.socket,
                &self.out[self.sent..],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Broken),
            }
        }
        let writing = self.sent < self.out.len();
        if !writing {
            self.sent = 0;
            self.out = Vec::new();
        }
        if writing != self.writing {
            self.writing = writing;
            poller.change(&self.socket, Token::Publisher, if writing { READ_AND_WRITE } else { READ });
        }
        Ok(())
    }

    /// The answer to what is under way, if it has come.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Response>, Broken> {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(Broken),
            Ok((length, _)) => self.decoder.feed(&buffer[..length]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(_) => return Err(Broken),
        }
        let mut answer = None;
        while let Some(frame) = self.decoder.next_frame().map_err(|_| Broken)? {
            let expected = self.under_way.map(|(stream, _)| stream);
            if frame.kind == FrameKind::Response && Some(frame.stream) == expected {
                answer = Some(Response::decode(frame.payload).map_err(|_| Broken)?);
                self.under_way = None;
            }
        }
        self.decoder.shrink();
        Ok(answer)
    }
}
