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
use crate::messages::info;
use crate::parent::calls::{Calls, Manners};
use crate::parent::helpers::Helpers;
use crate::parent::poller::{Poller, READ, Token};
use crate::parent::{BUFFER, Serials};
use crate::protocol::CallError;
use process::{Process, Task};
use publisher::Publisher;
use reap::Purpose;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// How containerd is treated, which has one connection for each task of a pod.
const MANNERS: Manners =
    Manners { clients: 2048, outstanding: 4096, own_user: true, timed: false, answer: dispatch::response };

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
    calls: Calls<Key>,
    tasks: Vec<Task>,
    helpers: Helpers<Purpose>,
    publisher: Publisher,
    serials: Serials,
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
        calls: Calls::new(MANNERS),
        tasks: Vec::new(),
        helpers: Helpers::default(),
        publisher: Publisher::new(&events, &flags.namespace),
        serials: Serials::default(),
        ending: None,
    };
    // One thread: nobody else can hold the lock.
    let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
    while !server.has_ended() {
        server.turn(&mut buffer[..])?;
    }
    server.flush(&mut buffer[..]);
    Ok(())
}

impl Server {
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let now = Instant::now();
        let timeout = self.deadline().map(|at| at.saturating_duration_since(now));
        for token in self.poller.wait(timeout)? {
            match token {
                Token::Listener => self.calls.accept(&self.listener, &mut self.serials, &self.poller),
                Token::Children => self.children_changed(buffer),
                Token::Connection(serial) => {
                    self.calls.receive(serial, buffer, &self.poller);
                    self.serve(serial, buffer);
                }
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
        self.flush(buffer);
        self.publisher.go_on(&self.poller, Instant::now());
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let own = [self.calls.deadline(), self.publisher.deadline(), self.ending];
        own.into_iter().flatten().chain(self.processes().filter_map(Process::deadline)).min()
    }

    fn let_time_pass(&mut self) {
        let now = Instant::now();
        self.calls.expire(now);
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
        self.serials.next()
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
        self.calls.answer(key, result);
    }

    /// Sends what waits to be sent. A client that took its answers may have further requests lying here.
    fn flush(&mut self, buffer: &mut [u8]) {
        loop {
            let released = self.calls.flush(&self.poller);
            if released.is_empty() {
                return;
            }
            released.into_iter().for_each(|client| self.serve(client, buffer));
        }
    }
}
