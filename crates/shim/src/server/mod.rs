//! The loop: one thread waits for clients, outputs, helpers and ends of children, and never for any single one of them.

mod attach;
mod attached;
mod checkpoint;
mod container;
mod create;
mod delete;
mod dispatch;
mod exec;
mod exit;
mod foreign_pod;
mod input;
mod kill;
mod memory;
mod reap;
mod shutdown;
mod start;
mod update;

use crate::foreign;
use crate::parent::calls::{Calls, Manners};
use crate::parent::helpers::Helpers;
use crate::parent::poller::{Poller, READ, Token};
use crate::parent::{BUFFER, Serials};
use crate::protocol::{CallError, Response};
use crate::setup::{Pod, SetupError};
use container::Container;
use dispatch::Key;
use reap::Purpose;
use shutdown::Ending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::Instant;

/// How the daemon and whoever else is root are treated.
const MANNERS: Manners =
    Manners { clients: 64, outstanding: 1024, own_user: false, timed: true, answer: response };

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
    calls: Calls<Key>,
    containers: Vec<Container>,
    memory: memory::SliceMemory,
    helpers: Helpers<Purpose>,
    pause: Option<checkpoint::Pause>,
    serials: Serials,
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
        calls: Calls::new(MANNERS),
        containers: Vec::new(),
        memory: memory::SliceMemory::default(),
        helpers: Helpers::default(),
        pause: None,
        serials: Serials::default(),
        ending: None,
    };
    let serial = shim.serial();
    shim.calls.admit(first, serial, &shim.poller);
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
                Token::Listener => self.calls.accept(&self.pod.listener, &mut self.serials, &self.poller),
                Token::Children => self.children_changed(buffer),
                Token::Connection(serial) => {
                    self.calls.receive(serial, buffer, &self.poller);
                    self.serve(serial, buffer);
                }
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
        self.flush(buffer);
        self.end_pause_of_gone();
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().and_then(Ending::deadline);
        [self.calls.deadline(), self.drain_deadline(), self.pause_deadline(), ending]
            .into_iter()
            .flatten()
            .min()
    }

    fn let_time_pass(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        self.calls.expire(now);
        self.tell_ends_of_input();
        self.publish_drained(now, buffer);
        self.end_overdue_pause(now);
        self.go_on_ending(now);
    }

    fn serial(&mut self) -> u32 {
        self.serials.next()
    }

    fn container(&mut self, serial: u32) -> Option<&mut Container> {
        self.containers.iter_mut().find(|container| container.serial == serial)
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

fn response(result: Result<Vec<u8>, CallError>) -> Response {
    match result {
        Ok(payload) => Response { payload, ..Response::default() },
        Err(error) => error.response(),
    }
}
