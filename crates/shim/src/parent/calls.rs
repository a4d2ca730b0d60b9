//! The calls of a server's clients: taken in their order and answered when there is an answer, within bounds that no client can leave.

use super::connection::{Connection, Gone};
use super::pending::{Caller, Pending};
use super::poller::Poller;
use super::{Serials, now_ns};
use crate::messages::{info, warning};
use crate::protocol::{
    CallError, DESCRIPTORS_KEY, ErrorCode, FrameKind, MAX_DESCRIPTORS, Request, Response, Served,
};
use prost::Message;
use rustix::net::SocketFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How a server treats its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// Clients at one time; further ones are turned away.
    pub(crate) clients: usize,
    /// Calls of one client that may wait for an answer at one time.
    pub(crate) outstanding: usize,
    /// Whether others than root may call, if they are who the server is.
    pub(crate) own_user: bool,
    /// Whether an answer says when the call was served.
    pub(crate) timed: bool,
    /// What an answer looks like on the wire.
    pub(crate) answer: fn(Result<Vec<u8>, CallError>) -> Response,
}

/// All clients, and who of them waits for what.
#[derive(Debug)]
pub(crate) struct Calls<K> {
    manners: Manners,
    connections: Vec<Connection>,
    pending: Pending<K>,
}

/// A call that was taken.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) caller: Caller,
    pub(crate) request: Request,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// How a call goes on.
#[derive(Debug)]
pub(crate) enum Outcome<K> {
    Now(Result<Vec<u8>, CallError>),
    /// Answered when the event happens.
    Later(K),
}

impl<K> Outcome<K> {
    /// Done, and nothing to say.
    pub(crate) fn done() -> Outcome<K> {
        Outcome::Now(Ok(Vec::new()))
    }
}

impl<K> From<CallError> for Outcome<K> {
    fn from(error: CallError) -> Outcome<K> {
        Outcome::Now(Err(error))
    }
}

impl<K: Copy + PartialEq> Calls<K> {
    pub(crate) fn new(manners: Manners) -> Calls<K> {
        Calls { manners, connections: Vec::new(), pending: Pending::default() }
    }

    /// Lets in who knocks and may.
    pub(crate) fn accept(&mut self, listener: impl AsFd, serials: &mut Serials, poller: &Poller) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&listener, flags) {
            let own = self.manners.own_user.then(rustix::process::geteuid);
            let may = rustix::net::sockopt::socket_peercred(&socket)
                .is_ok_and(|peer| peer.uid.is_root() || Some(peer.uid) == own);
            if !may {
                warning!("somebody else's process was turned away");
            } else if self.connections.len() >= self.manners.clients {
                warning!("the {} connections are taken, one more was turned away", self.manners.clients);
            } else {
                self.admit(socket, serials.next(), poller);
            }
        }
    }

    /// Lets a client in. Its socket must not block.
    pub(crate) fn admit(&mut self, socket: OwnedFd, serial: u32, poller: &Poller) {
        match Connection::open(socket, serial, poller) {
            Ok(connection) => self.connections.push(connection),
            Err(cause) => warning!("a connection cannot be served: {cause}"),
        }
    }

    /// Whether that client is still there.
    pub(crate) fn has_client(&self, serial: u32) -> bool {
        self.connections.iter().any(|connection| connection.serial == serial)
    }

    /// Reads what a client has sent.
    pub(crate) fn receive(&mut self, client: u32, buffer: &mut [u8], poller: &Poller) {
        if let Some(index) = self.place(client)
            && !self.connections[index].is_held_back()
            && let Err(gone) = self.connections[index].receive(buffer)
        {
            self.let_go(index, gone, poller);
        }
    }

    /// The next whole call of a client, unless it has to read its answers first.
    pub(crate) fn next(&mut self, client: u32, poller: &Poller) -> Option<Call> {
        loop {
            let index = self.place(client)?;
            let connection = &mut self.connections[index];
            if connection.is_held_back() {
                return None;
            }
            let call = match take(connection) {
                Ok(Some(call)) => call,
                Ok(None) => {
                    connection.decoder.shrink();
                    return None;
                }
                Err(gone) => {
                    self.let_go(index, gone, poller);
                    return None;
                }
            };
            connection.outstanding += 1;
            let most = self.manners.outstanding;
            if connection.outstanding <= most {
                return Some(call);
            }
            let why = format!("this client waits for {most} answers already");
            self.reply(call.caller, Err(CallError::new(ErrorCode::Exhausted, why)));
        }
    }

    /// Answers a call, or lets it wait.
    pub(crate) fn settle(&mut self, caller: Caller, outcome: Outcome<K>) {
        match outcome {
            Outcome::Now(result) => self.reply(caller, result),
            Outcome::Later(key) => self.pending.add(key, caller),
        }
    }

    /// Whether anybody waits for `key`.
    pub(crate) fn has(&self, key: K) -> bool {
        self.pending.has(key)
    }

    /// Answers everybody who waits for `key`.
    pub(crate) fn answer(&mut self, key: K, result: Result<Vec<u8>, CallError>) {
        let callers = self.pending.take(key);
        if callers.is_empty() {
            return;
        }
        let response = (self.manners.answer)(result);
        for caller in callers {
            self.send(caller, response.clone());
        }
    }

    /// When the first of those who wait does so no longer.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.pending.deadline()
    }

    /// Answers those whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        if self.pending.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        for caller in self.pending.take_expired(now) {
            let why = "the time the caller gave is over; the operation goes on";
            self.reply(caller, Err(CallError::new(ErrorCode::DeadlineExceeded, why)));
        }
    }

    /// Sends what waits to be sent. Returns the clients that were held back and are not any longer: they may have sent further calls.
    pub(crate) fn flush(&mut self, poller: &Poller) -> Vec<u32> {
        let mut released = Vec::new();
        let mut index = 0;
        while let Some(connection) = self.connections.get_mut(index) {
            if !connection.has_output() {
                index += 1;
                continue;
            }
            let held_back = connection.is_held_back();
            match connection.flush(poller) {
                Ok(()) => {
                    released.extend((held_back && !connection.is_held_back()).then_some(connection.serial));
                    index += 1;
                }
                Err(gone) => self.let_go(index, gone, poller),
            }
        }
        released
    }

    fn place(&self, client: u32) -> Option<usize> {
        self.connections.iter().position(|connection| connection.serial == client)
    }

    fn reply(&mut self, caller: Caller, result: Result<Vec<u8>, CallError>) {
        self.send(caller, (self.manners.answer)(result));
    }

    fn send(&mut self, caller: Caller, mut response: Response) {
        if self.manners.timed {
            response.served = Some(Served { began_ns: caller.began_ns, ended_ns: now_ns() });
        }
        if let Some(index) = self.place(caller.connection) {
            let connection = &mut self.connections[index];
            connection.outstanding = connection.outstanding.saturating_sub(1);
            connection.push(caller.stream, &response);
        }
    }

    fn let_go(&mut self, index: usize, gone: Gone, poller: &Poller) {
        let connection = self.connections.swap_remove(index);
        match gone {
            Gone::Closed => info!("client {} left", connection.serial),
            Gone::Garbage | Gone::Slow => warning!("client {} was let go: {gone}", connection.serial),
        }
        self.pending.forget(connection.serial);
        connection.close(poller);
    }
}

/// The next whole call that was read.
fn take(connection: &mut Connection) -> Result<Option<Call>, Gone> {
    let Some(frame) = connection.decoder.next_frame().map_err(|_| Gone::Garbage)? else {
        return Ok(None);
    };
    if frame.kind != FrameKind::Request {
        return Err(Gone::Garbage);
    }
    let stream = frame.stream;
    let request = Request::decode(frame.payload).map_err(|_| Gone::Garbage)?;
    let descriptors = connection.claim(descriptors_of(&request)?)?;
    let deadline = deadline_of(&request);
    let caller = Caller { connection: connection.serial, stream, began_ns: now_ns(), deadline };
    Ok(Some(Call { caller, request, descriptors }))
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
