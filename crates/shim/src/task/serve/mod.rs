//! The server: one thread that parents the tasks of a group and answers containerd, and waits for none of them.

mod control;
mod create;
mod delete;
mod dispatch;
mod exec;
mod exit;
mod logger;
mod memory;
mod metrics;
mod process;
mod publisher;
mod pump;
mod query;
mod reap;
mod start;
mod stdio;
mod streams;

use super::flags::Flags;
use crate::messages::{info, warning};
use crate::protocol::{CallError, Response};
use crate::server::BUFFER;
use crate::server::connection::{Connection, Gone};
use crate::server::helper::Helper;
use crate::server::pending::{Caller, Pending};
use crate::server::poller::{Poller, READ, Token};
use process::{Process, Task};
use publisher::Publisher;
use reap::Purpose;
use rustix::net::SocketFlags;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Clients at one time: containerd has one connection for each task of a pod.
const MAX_CONNECTIONS: usize = 2048;

/// How long the last events may take to be delivered once the server was asked to end.
const PARTING: Duration = Duration::from_secs(3);

/// An event that answers calls. The numbers are serials of processes and of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Created(u32),
    Started(u32),
    Exited(u32),
    Deleted(u32),
    Done(u32),
}

struct Server {
    namespace: String,
    socket: Option<PathBuf>,
    listener: OwnedFd,
    poller: Poller,
    children: OwnedFd,
    connections: Vec<Connection>,
    tasks: Vec<Task>,
    helpers: Vec<Helper<Purpose>>,
    pending: Pending<Key>,
    publisher: Publisher,
    next_serial: u32,
    /// It was asked to end, and does so then or when everything is said.
    ending: Option<Instant>,
}

/// Serves until containerd wants it no longer. Descriptor 3 is a listening socket.
pub(super) fn main(flags: &Flags) -> io::Result<()> {
    let listener = sys::parent::inherited(3).map_err(|cause| {
        io::Error::new(
            cause.kind(),
            format!("descriptor 3 is no socket: {cause}; a server is started by `start`"),
        )
    })?;
    sys::parent::close_all_except(&[listener.as_fd()])?;
    rustix::net::sockopt::socket_type(&listener)?;
    let _ = rustix::thread::set_name(c"pintle-task");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    sys::process::set_dumpable(false)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // The bundle of the first task goes away before the last.
    rustix::process::chdir("/")?;
    rustix::io::ioctl_fionbio(&listener, true)?;
    let children = sys::parent::child_events()?;
    let poller = Poller::new()?;
    poller.add(&listener, Token::Listener, READ)?;
    poller.add(&children, Token::Children, READ)?;
    let events = flags.events.clone().or_else(|| std::env::var("TTRPC_ADDRESS").ok()).unwrap_or_default();
    let mut server = Server {
        namespace: flags.namespace.clone(),
        socket: flags.socket.clone(),
        listener,
        poller,
        children,
        connections: Vec::new(),
        tasks: Vec::new(),
        helpers: Vec::new(),
        pending: Pending::default(),
        publisher: Publisher::new(&events, &flags.namespace),
        next_serial: 1,
        ending: None,
    };
    // One thread: nobody else can hold the lock.
    let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    while !server.has_ended() {
        server.turn(&mut buffer[..])?;
    }
    server.flush_connections(&mut buffer[..]);
    Ok(())
}

impl Server {
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
                Token::Sink(serial, index) => self.sink_writable(serial, index.into()),
                Token::Source(serial) => self.source_readable(serial),
                Token::Input(serial) => self.input_writable(serial),
                Token::Publisher => self.publisher.ready(&self.poller, buffer),
                Token::Memory(serial) => self.memory_ran_out(serial),
                // Only a pod's shim drives foreign ones.
                Token::ForeignLog => {}
            }
        }
        self.let_time_pass();
        self.flush_connections(buffer);
        self.publisher.go_on(&self.poller, Instant::now());
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.pending.deadline(), self.publisher.deadline(), self.ending];
        own.into_iter().flatten().chain(self.processes().filter_map(Process::deadline)).min()
    }

    fn let_time_pass(&mut self) {
        let now = Instant::now();
        if self.pending.deadline().is_some_and(|deadline| deadline <= now) {
            for caller in self.pending.take_expired(now) {
                self.reply(caller, dispatch::expired());
            }
        }
        self.end_of_patience(now);
    }

    /// Whether everything is said and done, or the time for that is over.
    fn has_ended(&self) -> bool {
        let Some(until) = self.ending else {
            return false;
        };
        let idle = self.publisher.is_idle() && self.helpers.is_empty();
        self.tasks.is_empty() && (idle || Instant::now() >= until)
    }

    /// Ends the server, unless there are tasks: containerd asks for it after each one.
    fn shut_down(&mut self) {
        if !self.tasks.is_empty() || self.ending.is_some() {
            return;
        }
        info!("the last task is gone, the server ends");
        self.ending = Some(Instant::now() + PARTING);
        // Nobody is to find the way to a server that ends; the next task gets a new one.
        self.poller.remove(&self.listener);
        if let Some(socket) = &self.socket {
            let _ = rustix::fs::unlink(socket);
        }
    }

    fn serial(&mut self) -> u32 {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1).max(1);
        serial
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.tasks.iter().flat_map(Task::processes)
    }

    /// The process of that serial, with its task.
    fn process(&mut self, serial: u32) -> Option<(&mut Task, usize)> {
        self.tasks.iter_mut().find_map(|task| {
            let at = task.processes.iter().position(|process| process.serial == serial)?;
            Some((task, at))
        })
    }

    fn process_of(&mut self, serial: u32) -> Option<&mut Process> {
        self.process(serial).map(|(task, at)| &mut task.processes[at])
    }

    /// Answers everybody who waits for `key`.
    fn answer(&mut self, key: Key, result: Result<Vec<u8>, CallError>) {
        let callers = self.pending.take(key);
        if callers.is_empty() {
            return;
        }
        let response = dispatch::response(result);
        for caller in callers {
            self.reply(caller, response.clone());
        }
    }

    fn reply(&mut self, caller: Caller, response: Response) {
        if let Some(connection) = self.connections.iter_mut().find(|c| c.serial == caller.connection) {
            connection.outstanding = connection.outstanding.saturating_sub(1);
            connection.push(caller.stream, &response);
        }
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.listener, flags) {
            let own = rustix::process::geteuid();
            let allowed = rustix::net::sockopt::socket_peercred(&socket)
                .is_ok_and(|peer| peer.uid.is_root() || peer.uid == own);
            if !allowed {
                warning!("somebody else's process was turned away");
                continue;
            }
            if self.connections.len() >= MAX_CONNECTIONS {
                warning!("the {MAX_CONNECTIONS} connections are taken, one more was turned away");
                continue;
            }
            let serial = self.serial();
            match Connection::open(socket, serial, &self.poller) {
                Ok(connection) => self.connections.push(connection),
                Err(cause) => warning!("a connection cannot be served: {cause}"),
            }
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
