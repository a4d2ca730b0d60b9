//! The streams of a further process of a foreign shim, which opens pipes by their paths, for both directions, so that neither end notices when
//! the other is closed. So it gets pipes of the helper's own, and the helper passes on for as long as the process lives: bytes, the end of the
//! input, a reader that has left, and the size of a terminal.

use super::super::Target;
use super::client::{Client, TaskError};
use super::relay::{Relay, Turn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use task::{
    CloseIoRequest, DeleteRequest, DeleteResponse, KillRequest, Method, ResizePtyRequest, WaitRequest,
    WaitResponse,
};

/// How often the size of a terminal is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Nothing comes any more from a process that has ended if nothing came for so long.
const QUIET: Duration = Duration::from_millis(100);

/// What a process has left behind may write on and on: no longer than this is listened to it.
const LAST_WORDS: Duration = Duration::from_secs(60);

/// Sent where a process of this machine would get it from the kernel.
const SIGHUP: u32 = 1;
const SIGPIPE: u32 = 13;

/// Standard input, output and error of a process, or its terminal.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// The ends that the foreign shim opens. Nobody looks at whether it has, so that the one which it reads from stays.
    theirs: [Option<OwnedFd>; 3],
    relays: [Option<Relay>; 3],
    /// The slave of a terminal whose master somebody else has.
    terminal: Option<OwnedFd>,
    size: Option<(u16, u16)>,
}

impl Streams {
    /// Streams that are passed on to and from these.
    pub(crate) fn of(ours: [Option<OwnedFd>; 3]) -> io::Result<Streams> {
        let mut streams = Streams::default();
        for (index, ours) in ours.into_iter().enumerate() {
            if let Some(ours) = ours {
                streams.add(index, ours)?;
            }
        }
        Ok(streams)
    }

    /// A terminal, whose master is sent over `console`.
    pub(crate) fn terminal(console: &OwnedFd) -> io::Result<Streams> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        // The process has a terminal of its own, which echoes and edits lines; this one only passes on.
        let mut plain = tcgetattr(&slave)?;
        plain.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &plain)?;
        sys::socket::send(console.as_fd(), b"pts", &[master.as_fd()])?;
        let mut streams = Streams::of([Some(slave.try_clone()?), Some(slave.try_clone()?), None])?;
        streams.terminal = Some(slave);
        Ok(streams)
    }

    fn add(&mut self, index: usize, ours: OwnedFd) -> io::Result<()> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let (theirs, relay) = if index == 0 {
            (reader, Relay::new(ours, writer)?)
        } else {
            (writer, Relay::new(reader, ours)?)
        };
        (self.theirs[index], self.relays[index]) = (Some(theirs), Some(relay));
        Ok(())
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// What the shim opens; empty for what there is not.
    pub(super) fn paths(&self) -> [String; 3] {
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        self.theirs.each_ref().map(|fd| fd.as_ref().map(path).unwrap_or_default())
    }

    /// Waits for the end of the process, passes on meanwhile, and removes it with its last words told.
    pub(super) fn serve(
        mut self,
        client: &mut Client,
        target: &Target,
        exec_id: &str,
        deadline: Duration,
    ) -> Result<WaitResponse, TaskError> {
        // From now on the shim alone has the other ends: its closing is the end of what is said.
        (self.theirs[1], self.theirs[2]) = (None, None);
        let of = Of { target, exec_id };
        let waiting = client.begin(Method::Wait, &of.wait())?;
        let ended: WaitResponse = loop {
            if let Some(ended) = client.answer(Method::Wait, waiting)? {
                break ended;
            }
            let longest = self.terminal.as_ref().map(|_| LOOK);
            self.turn(client, of, longest)?;
        };
        self.relays[0] = None;
        let told = Instant::now();
        // Before it is removed: of what is held then, some shims let go.
        self.listen(client, of, told)?;
        let deleting = client.begin(Method::Delete, &of.delete())?;
        let begun = Instant::now();
        while client.answer::<DeleteResponse>(Method::Delete, deleting).is_ok_and(|answer| answer.is_none())
            && begun.elapsed() < deadline
        {
            self.turn(client, of, Some(QUIET))?;
        }
        self.listen(client, of, told)?;
        Ok(ended)
    }

    /// Passes on until nothing more comes.
    fn listen(&mut self, client: &mut Client, of: Of<'_>, since: Instant) -> Result<(), TaskError> {
        while self.relays.iter().any(Option::is_some)
            && since.elapsed() < LAST_WORDS
            && (self.turn(client, of, Some(QUIET))? || self.relays.iter().flatten().any(Relay::holds))
        {
        }
        Ok(())
    }

    /// Waits until something can be passed on, and does so. Whether there was.
    fn turn(
        &mut self,
        client: &mut Client,
        of: Of<'_>,
        longest: Option<Duration>,
    ) -> Result<bool, TaskError> {
        self.pass_size(client, of)?;
        let present: Vec<usize> = (0..3).filter(|index| self.relays[*index].is_some()).collect();
        let mut set = vec![PollFd::new(&*client, PollFlags::IN)];
        set.extend(self.relays.iter().flatten().map(Relay::waits_for));
        let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
        let ready = poll(&mut set, longest.as_ref()).is_ok_and(|ready| ready > 0);
        let awake: Vec<bool> = set.iter().map(|fd| ready && !fd.revents().is_empty()).collect();
        drop(set);
        if awake[0] {
            client.receive(Method::Wait)?;
        }
        let mut moved = false;
        for (index, _) in present.into_iter().zip(&awake[1..]).filter(|(_, awake)| **awake) {
            moved |= self.relay(index, client, of)?;
        }
        Ok(moved)
    }

    fn relay(&mut self, index: usize, client: &mut Client, of: Of<'_>) -> Result<bool, TaskError> {
        let Some(relay) = &mut self.relays[index] else { return Ok(false) };
        match (relay.turn(), index) {
            (Turn::Moved, _) => return Ok(true),
            (Turn::Still, _) => {}
            (Turn::Ended, 0) => {
                self.relays[0] = None;
                // Nobody has the master any more. The process has another terminal, which does not hang up.
                if self.is_terminal() {
                    client.begin(Method::Kill, &of.kill(SIGHUP))?;
                }
                client.begin(Method::CloseIo, &of.close_input())?;
            }
            (Turn::Ended, _) => self.relays[index] = None,
            (Turn::Unread, 0) => {}
            (Turn::Unread, _) if self.is_terminal() => {}
            (Turn::Unread, _) => drop(client.begin(Method::Kill, &of.kill(SIGPIPE))?),
        }
        Ok(false)
    }

    fn pass_size(&mut self, client: &mut Client, of: Of<'_>) -> Result<(), TaskError> {
        let Some(Ok(Winsize { ws_row, ws_col, .. })) = self.terminal.as_ref().map(tcgetwinsize) else {
            return Ok(());
        };
        if ws_row == 0 || ws_col == 0 || self.size == Some((ws_row, ws_col)) {
            return Ok(());
        }
        self.size = Some((ws_row, ws_col));
        client.begin(Method::ResizePty, &of.resize(ws_col, ws_row)).map(drop)
    }
}

/// Which process the calls are about. The answers to those that only pass something on are passed over: the process may just have ended.
#[derive(Debug, Clone, Copy)]
struct Of<'a> {
    target: &'a Target,
    exec_id: &'a str,
}

impl Of<'_> {
    fn ids(self) -> (String, String) {
        (self.target.id.clone(), self.exec_id.to_owned())
    }

    fn wait(self) -> WaitRequest {
        let (id, exec_id) = self.ids();
        WaitRequest { id, exec_id }
    }

    fn delete(self) -> DeleteRequest {
        let (id, exec_id) = self.ids();
        DeleteRequest { id, exec_id }
    }

    fn kill(self, signal: u32) -> KillRequest {
        let (id, exec_id) = self.ids();
        KillRequest { id, exec_id, signal, all: false }
    }

    fn close_input(self) -> CloseIoRequest {
        let (id, exec_id) = self.ids();
        CloseIoRequest { id, exec_id, stdin: true }
    }

    fn resize(self, columns: u16, rows: u16) -> ResizePtyRequest {
        let (id, exec_id) = self.ids();
        ResizePtyRequest { id, exec_id, width: columns.into(), height: rows.into() }
    }
}
