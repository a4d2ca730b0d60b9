//! A command that stays until the container's process ends: signals are passed on to it, and a terminal is joined with the caller's.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Process;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use sys::signal::Arrivals;

use super::Problem;
use crate::Console;

/// What is made before the process, so that nothing that arrives meanwhile is lost.
pub(super) struct Foreground {
    arrivals: Arrivals,
    /// Where the terminal's master end arrives, if the process gets a terminal of ours.
    socket: Option<OwnedFd>,
    terminal: Option<Terminal>,
}

impl Foreground {
    /// Prepares to stay. With a terminal, what the process is to be created with comes along.
    pub(super) fn prepare(terminal: bool) -> Result<(Foreground, Option<Console>), Problem> {
        let arrivals = Arrivals::watch()?;
        if !terminal {
            return Ok((Foreground { arrivals, socket: None, terminal: None }, None));
        }
        let (ours, theirs) = sys::socket::packet_pair()?;
        Ok((Foreground { arrivals, socket: Some(ours), terminal: None }, Some(Console::Socket(theirs))))
    }

    /// Gives a process that gets a terminal the size of the caller's, if it has one.
    pub(super) fn size(process: &mut Process) {
        let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) else { return };
        let same = oci_spec::runtime::BoxBuilder::default().height(size.ws_row).width(size.ws_col).build();
        if process.console_size().is_none() {
            process.set_console_size(same.ok());
        }
    }

    /// Joins the terminal with the caller's, once there is one.
    pub(super) fn join(&mut self) -> Result<(), Problem> {
        if let Some(socket) = self.socket.take() {
            self.terminal = Some(Terminal::receive(&socket)?);
        }
        Ok(())
    }

    /// Stays until the process has ended; its exit code, 128 + number for a signal.
    pub(super) fn attend(mut self, process: BorrowedFd<'_>) -> Result<u8, Problem> {
        self.join()?;
        let mut terminal = self.terminal.take();
        while !self.step(process, terminal.as_mut())? {}
        if let Some(terminal) = &mut terminal {
            while terminal.show()? {}
        }
        drop(terminal);
        let code = sys::process::wait_child(process)?;
        Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
    }

    /// Waits for something and does what it takes; whether the process has ended.
    fn step(&self, process: BorrowedFd<'_>, mut terminal: Option<&mut Terminal>) -> Result<bool, Problem> {
        let stdin = rustix::stdio::stdin();
        let mut watched = vec![
            PollFd::from_borrowed_fd(process, PollFlags::IN),
            PollFd::from_borrowed_fd(self.arrivals.as_fd(), PollFlags::IN),
        ];
        if let Some(terminal) = &terminal {
            let (master, input) = terminal.interests();
            watched.push(PollFd::from_borrowed_fd(terminal.master.as_fd(), master));
            watched.push(PollFd::from_borrowed_fd(stdin, input));
        }
        match poll(&mut watched, None) {
            Err(Errno::INTR) => return Ok(false),
            other => other?,
        };
        let happened: Vec<PollFlags> = watched.iter().map(PollFd::revents).collect();
        drop(watched);
        while let Some(number) = self.arrivals.take() {
            pass_on(number, process, terminal.as_deref());
        }
        if let (Some(terminal), [_, _, master, input]) = (&mut terminal, &happened[..]) {
            if master.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                terminal.open = terminal.show()?;
            }
            if input.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                terminal.read(stdin);
            }
            terminal.type_in();
        }
        Ok(happened[0].contains(PollFlags::IN))
    }
}

fn pass_on(number: i32, process: BorrowedFd<'_>, terminal: Option<&Terminal>) {
    if number == Signal::CHILD.as_raw() {
        return;
    }
    match terminal {
        Some(terminal) if number == Signal::WINCH.as_raw() => terminal.take_size(),
        _ => {
            if let Some(signal) = crate::kill::named(number) {
                // It may have ended just now.
                let _ = pidfd_send_signal(process, signal);
            }
        }
    }
}

/// The container's terminal, and the caller's, whose keys go through as they are until this is dropped.
struct Terminal {
    master: OwnedFd,
    /// Whether somebody still has the container's side.
    open: bool,
    /// What was typed and not taken yet.
    typed: Vec<u8>,
    /// Whether more may be typed.
    reading: bool,
    before: Option<Termios>,
}

impl Terminal {
    fn receive(socket: &OwnedFd) -> Result<Terminal, Problem> {
        let (_, mut descriptors) = sys::socket::receive(socket.as_fd(), &mut [0; 64])?;
        let master = descriptors.pop().ok_or_else(|| Problem::usage("the container sent no terminal"))?;
        rustix::io::ioctl_fionbio(&master, true)?;
        // The caller's terminal, if there is one, puts the carriage returns in.
        let mut plain = tcgetattr(&master)?;
        plain.output_modes.remove(rustix::termios::OutputModes::ONLCR);
        tcsetattr(&master, OptionalActions::Now, &plain)?;
        let stdin = rustix::stdio::stdin();
        let before = isatty(stdin).then(|| tcgetattr(stdin)).transpose()?;
        let terminal = Terminal { master, open: true, typed: Vec::new(), reading: true, before };
        if let Some(before) = &terminal.before {
            let mut raw = before.clone();
            raw.make_raw();
            // make_raw turns this off, and the container's side does not do it.
            raw.output_modes
                .insert(rustix::termios::OutputModes::OPOST | rustix::termios::OutputModes::ONLCR);
            tcsetattr(stdin, OptionalActions::Now, &raw)?;
            terminal.take_size();
        }
        Ok(terminal)
    }

    fn interests(&self) -> (PollFlags, PollFlags) {
        let master = if self.open { PollFlags::IN } else { PollFlags::empty() };
        let typed = if self.typed.is_empty() || !self.open { PollFlags::empty() } else { PollFlags::OUT };
        let input = if self.reading && self.open && self.typed.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        (master | typed, input)
    }

    fn take_size(&self) {
        if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    /// Writes what the container's side has said to standard output; whether there may be more.
    fn show(&mut self) -> Result<bool, Problem> {
        let mut buffer = [0; 8192];
        match rustix::io::read(&self.master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(length) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&buffer[..length])?;
                out.flush()?;
                Ok(true)
            }
            Err(Errno::INTR) => Ok(true),
            // While it is open there may be more later; at the end there is not.
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self, stdin: BorrowedFd<'_>) {
        let mut buffer = [0; 4096];
        match rustix::io::read(stdin, &mut buffer) {
            Ok(0) => self.reading = false,
            Ok(length) => self.typed.extend_from_slice(&buffer[..length]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.reading = false,
        }
    }

    fn type_in(&mut self) {
        if let Ok(written) = rustix::io::write(&self.master, &self.typed) {
            self.typed.drain(..written);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}
