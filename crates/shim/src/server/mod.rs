//! The loop: one thread waits for clients, outputs, helpers and ends of children, and never for any single one of them.

mod attach;
mod attached;
mod checkpoint;
pub(crate) mod connection;
mod container;
pub(crate) mod create;
pub(crate) mod delete;
mod dispatch;
pub(crate) mod exec;
pub(crate) mod exit;
mod foreign_pod;
pub(crate) mod helper;
mod input;
pub(crate) mod kill;
pub(crate) mod memory;
pub(crate) mod pending;
pub(crate) mod poller;
pub(crate) mod reap;
mod shutdown;
pub(crate) mod start;
mod update;

use crate::foreign;
use crate::messages::{info, warning};
use crate::protocol::{CallError, Response, Served};
use crate::setup::{Pod, SetupError};
use connection::{Connection, Gone};
use container::Container;
pub(crate) use delete::remove_cgroup;
use helper::Helper;
use pending::{Caller, Key, Pending};
use poller::{Poller, READ, Token};
use prost::Message;
use rustix::net::SocketFlags;
use shutdown::Ending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Clients at one time; further ones are turned away.
const MAX_CONNECTIONS: usize = 64;

/// All reading is done into this one buffer. It is part of the program's zeroed memory, so that only what is used of it takes up room.
pub(crate) static BUFFER: Mutex<[u8; 32 << 10]> = Mutex::new([0; 32 << 10]);

/// A pod's shim at work.
struct Shim {
    pod: Pod,
    runtime_root: PathBuf,
    /// Runs the containers, where that is not this program's own runtime.
    foreign: Option<Rc<foreign::Runtime>>,
    foreign_pod: foreign_pod::State,
    foreign_log: Option<Box<foreign_pod::Log>>,
    poller: Poller,
    children: OwnedFd,
    connections: Vec<Connection>,
    containers: Vec<Container>,
    memory: memory::SliceMemory,
    helpers: Vec<Helper>,
    pending: Pending,
    pause: Option<checkpoint::Pause>,
    next_serial: u32,
    ending: Option<Ending>,
}

/// Serves until somebody shuts the pod down.
///
/// # Errors
/// A system call failed without which nothing goes on.
pub(crate) fn serve(pod: Pod, first: OwnedFd) -> io::Result<()> {
    let children = sys::parent::child_events()?;
    let poller = Poller::new()?;
    poller.add(&pod.listener, Token::Listener, READ)?;
    poller.add(&children, Token::Children, READ)?;
    let runtime_root = crate::config::runtime_state_root(&pod.config.pod_dir);
    let runtime = |foreign| foreign::Runtime::new(foreign, &pod.config).map(Rc::new);
    let foreign = pod.config.foreign.clone().map(runtime).transpose()?;
    let mut shim = Shim {
        pod,
        runtime_root,
        foreign,
        foreign_pod: foreign_pod::State::NotBegun,
        foreign_log: None,
        poller,
        children,
        connections: Vec::new(),
        containers: Vec::new(),
        memory: memory::SliceMemory::default(),
        helpers: Vec::new(),
        pending: Pending::default(),
        pause: None,
        next_serial: 1,
        ending: None,
    };
    shim.admit(first);
    // One thread: nobody else can hold the lock.
    let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    while !shim.has_ended() {
        shim.turn(&mut buffer[..])?;
    }
    Ok(())
}

/// Answers the first request of `first` with what went wrong.
pub(crate) fn refuse(first: OwnedFd, error: &SetupError) -> io::Result<()> {
    use crate::protocol::{Decoder, FrameKind, encode};
    rustix::io::ioctl_fionbio(&first, false)?;
    let wait = rustix::net::sockopt::Timeout::Recv;
    rustix::net::sockopt::set_socket_timeout(&first, wait, Some(std::time::Duration::from_secs(10)))?;
    let mut decoder = Decoder::new();
    let mut buffer = [0; 1024];
    let stream = loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            break frame.stream;
        }
        match rustix::io::read(&first, &mut buffer)? {
            0 => return Ok(()),
            length => decoder.feed(&buffer[..length]),
        }
    };
    let answer = CallError::new(error.code, error.to_string()).at(&*error.stage).response();
    let mut out = Vec::new();
    encode(&mut out, stream, FrameKind::Response, &answer).map_err(io::Error::other)?;
    sys::socket::send(first.as_fd(), &out, &[])
}

impl Shim {
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let now = Instant::now();
        let timeout = self.deadline().map(|at| at.saturating_duration_since(now));
        for token in self.poller.wait(timeout)? {
            match token {
                Token::Listener => self.accept(),
                Token::Children => self.children_changed(buffer),
                Token::Connection(serial) => self.serve_connection(serial, buffer),
                Token::Helper(serial) => self.helper_readable(serial, buffer),
                Token::Start(serial) => self.start_readable(serial),
                Token::Output(serial, index) => self.output_readable(serial, index.into(), buffer),
                Token::Sink(serial, index) => self.sink_ready(serial, index.into()),
                Token::Source(serial) => self.source_readable(serial),
                Token::Input(serial) => self.input_writable(serial),
                // These are only waited for below containerd.
                Token::Publisher | Token::Memory(_) => {}
                Token::ForeignLog => self.foreign_log_readable(buffer),
            }
        }
        self.let_time_pass(buffer);
        self.flush_connections(buffer);
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().and_then(Ending::deadline);
        [self.pending.deadline(), self.drain_deadline(), self.pause_deadline(), ending]
            .into_iter()
            .flatten()
            .min()
    }

    fn let_time_pass(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        if self.pending.deadline().is_some_and(|deadline| deadline <= now) {
            for caller in self.pending.take_expired(now) {
                self.reply(caller, dispatch::expired());
            }
        }
        self.tell_ends_of_input();
        self.publish_drained(now, buffer);
        self.end_overdue_pause(now);
        self.go_on_ending(now);
    }

    fn serial(&mut self) -> u32 {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1).max(1);
        serial
    }

    fn container(&mut self, serial: u32) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.serial == serial)
    }

    /// Answers everybody who waits for `key`.
    fn answer(&mut self, key: Key, result: Result<Vec<u8>, CallError>) {
        let callers = self.pending.take(key);
        if callers.is_empty() {
            return;
        }
        let response = response(result);
        for caller in callers {
            self.reply(caller, response.clone());
        }
    }

    fn reply(&mut self, caller: Caller, mut response: Response) {
        response.served = Some(Served { began_ns: caller.began_ns, ended_ns: now_ns() });
        if let Some(connection) = self.connections.iter_mut().find(|c| c.serial == caller.connection) {
            connection.outstanding = connection.outstanding.saturating_sub(1);
            connection.push(caller.stream, &response);
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.pod.listener, flags) {
            let root = rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid.is_root());
            if !root {
                warning!("somebody who is not root was turned away");
            } else if self.connections.len() >= MAX_CONNECTIONS {
                warning!("the {MAX_CONNECTIONS} connections are taken, one more was turned away");
            } else {
                self.admit(socket);
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        let serial = self.serial();
        match Connection::open(socket, serial, &self.poller) {
            Ok(connection) => self.connections.push(connection),
            Err(cause) => warning!("a connection cannot be served: {cause}"),
        }
    }

    fn serve_connection(&mut self, serial: u32, buffer: &mut [u8]) {
        let Some(index) = self.connections.iter().position(|c| c.serial == serial) else {
            return;
        };
        let connection = &mut self.connections[index];
        if connection.is_held_back() {
            return;
        }
        let outcome = connection.receive(buffer).and_then(|_| self.serve_frames(index, buffer));
        if let Err(gone) = outcome {
            self.drop_connection(index, gone);
        }
    }

    fn drop_connection(&mut self, index: usize, gone: Gone) {
        let connection = self.connections.swap_remove(index);
        match gone {
            Gone::Closed => info!("client {} left", connection.serial),
            Gone::Garbage | Gone::Slow => warning!("client {} was let go: {gone}", connection.serial),
        }
        self.pending.forget(connection.serial);
        self.end_pause_of(connection.serial);
        connection.close(&self.poller);
    }

    /// Sends what waits to be sent. A client that took its answers may have further requests lying here.
    fn flush_connections(&mut self, buffer: &mut [u8]) {
        let mut index = 0;
        while index < self.connections.len() {
            let mut outcome = Ok(());
            while outcome.is_ok() && self.connections[index].has_output() {
                let held_back = self.connections[index].is_held_back();
                outcome = self.connections[index].flush(&self.poller);
                if outcome.is_err() || !held_back || self.connections[index].is_held_back() {
                    break;
                }
                outcome = self.serve_frames(index, buffer);
            }
            match outcome {
                Ok(()) => index += 1,
                Err(gone) => self.drop_connection(index, gone),
            }
        }
    }
}

fn response(result: Result<Vec<u8>, CallError>) -> Response {
    match result {
        Ok(payload) => Response { payload, ..Response::default() },
        Err(error) => error.response(),
    }
}

pub(crate) fn message(message: &impl Message) -> Result<Vec<u8>, CallError> {
    Ok(message.encode_to_vec())
}

/// The time now, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}
