//! A terminal for a further process of a foreign shim, which knows only fifos: what is typed into its master goes to one, what comes from the
//! other is shown, and a change of its size is passed on, for as long as the process lives.

use super::super::Target;
use super::client::{Client, TaskError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use task::{Method, ResizePtyRequest, WaitRequest, WaitResponse};

/// How often its size is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// The slave of a terminal whose master somebody else has, and the pipes that a foreign shim takes for the process's streams.
#[derive(Debug)]
pub(crate) struct Terminal {
    slave: OwnedFd,
    /// What was typed: the end that the shim reads, and ours.
    input: (OwnedFd, Option<OwnedFd>),
    /// What is shown: the end that the shim writes, and ours.
    output: (Option<OwnedFd>, OwnedFd),
}

impl Terminal {
    /// Makes one and sends its master over `console`.
    pub(crate) fn open(console: &OwnedFd) -> io::Result<Terminal> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        // The process has a terminal of its own, which echoes and edits lines; this one only passes on.
        let mut plain = tcgetattr(&slave)?;
        plain.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &plain)?;
        let (input, typed) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (shown, output) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        sys::socket::send(console.as_fd(), b"pts", &[master.as_fd()])?;
        for fd in [&slave, &typed, &shown] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Terminal { slave, input: (input, Some(typed)), output: (Some(output), shown) })
    }

    /// What the shim reads.
    pub(super) fn input(&self) -> &OwnedFd {
        &self.input.0
    }

    /// What the shim writes to.
    pub(super) fn output(&self) -> &OwnedFd {
        self.output.0.as_ref().unwrap_or(&self.output.1)
    }

    /// Waits for the end of the process, and passes on meanwhile.
    pub(super) fn serve(
        mut self,
        client: &mut Client,
        target: &Target,
        exec_id: &str,
        request: &WaitRequest,
    ) -> Result<WaitResponse, TaskError> {
        // From now on the shim alone has the other end: its closing is the end of what is shown.
        self.output.0 = None;
        let waiting = client.begin(Method::Wait, request)?;
        let mut size = None;
        loop {
            if let Some(ended) = client.answer::<WaitResponse>(Method::Wait, waiting)? {
                self.show();
                return Ok(ended);
            }
            self.pass_size(client, target, exec_id, &mut size)?;
            let mut set =
                vec![PollFd::new(&*client, PollFlags::IN), PollFd::new(&self.output.1, PollFlags::IN)];
            if self.input.1.is_some() {
                set.push(PollFd::new(&self.slave, PollFlags::IN));
            }
            let ready = poll(&mut set, Some(&LOOK));
            let answered = ready.is_ok() && !set[0].revents().is_empty();
            drop(set);
            if answered {
                client.receive(Method::Wait)?;
            }
            self.show();
            self.type_in();
        }
    }

    fn pass_size(
        &self,
        client: &mut Client,
        target: &Target,
        exec_id: &str,
        known: &mut Option<(u16, u16)>,
    ) -> Result<(), TaskError> {
        let Ok(Winsize { ws_row, ws_col, .. }) = tcgetwinsize(&self.slave) else { return Ok(()) };
        if ws_row == 0 || ws_col == 0 || *known == Some((ws_row, ws_col)) {
            return Ok(());
        }
        *known = Some((ws_row, ws_col));
        let request = ResizePtyRequest {
            id: target.id.clone(),
            exec_id: exec_id.into(),
            width: ws_col.into(),
            height: ws_row.into(),
        };
        // Its answer is passed over; a process that has ended has no size.
        client.begin(Method::ResizePty, &request).map(drop)
    }

    /// Passes on what the process has written. What nobody reads at the master is lost, as with any terminal that is not looked at.
    fn show(&self) {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = rustix::io::read(&self.output.1, &mut buffer) {
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                match rustix::io::write(&self.slave, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        let mut set = [PollFd::new(&self.slave, PollFlags::OUT)];
                        if !matches!(poll(&mut set, Some(&LOOK)), Ok(1..)) {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
        }
    }

    /// Passes on what was typed. Once nobody has the master any more, the process's input ends.
    fn type_in(&mut self) {
        let Some(to) = &self.input.1 else { return };
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.slave, &mut buffer) {
            Ok(length @ 1..) => {
                let _ = rustix::io::write(to, &buffer[..length]);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.input.1 = None,
        }
    }
}
