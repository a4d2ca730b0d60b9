//! A container's standard input: whoever is attached may write to it. The bytes go from pipe to pipe, or into the terminal, by splice(2) and are
//! never held here; when the container does not read, its writers wait in their own pipes.

use super::attached::{Attached, Still};
use super::container::Container;
use crate::parent::poller::{Poller, READ, Token, WRITE};
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What one splice moves at most: as much as a pipe usually holds.
const SPLICED: usize = 64 << 10;

/// The shim's end of it.
#[derive(Debug)]
pub(super) struct Input {
    /// A pipe, or a terminal.
    to: OwnedFd,
    /// It ends when the first who wrote to it leaves. A terminal's never does: the terminal is still needed for output.
    once: bool,
    /// It takes no more: that it does again is waited for, and nobody is read from.
    full: bool,
}

impl Input {
    pub(super) fn new(to: OwnedFd, once: bool) -> Input {
        Input { to, once, full: false }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}

impl Container {
    /// Whether somebody who attaches is read from at once.
    pub(super) fn takes_input(&self) -> bool {
        self.stdin.as_ref().is_some_and(|input| !input.full)
    }

    /// Whether this attachment is to this container.
    pub(super) fn has(&self, serial: u32) -> bool {
        self.attached.iter().any(|attached| attached.serial == serial)
    }

    /// Somebody who is attached has written, or has closed his end.
    pub(super) fn source_readable(&mut self, serial: u32, poller: &Poller) {
        match self.splice(serial) {
            Spliced::Some | Spliced::Nothing => {}
            Spliced::Full => self.hold_sources(poller),
            Spliced::EndOfSource => self.end_of_source(serial, poller),
            Spliced::Broken => self.close_input(poller),
        }
    }

    /// The input has room again, or was closed at the other end, as the next splice will say.
    pub(super) fn input_writable(&mut self, poller: &Poller) {
        let Some(input) = self.stdin.as_mut().filter(|input| input.full) else {
            return;
        };
        input.full = false;
        poller.remove(&input.to);
        for attached in &mut self.attached {
            if let Some(source) = &attached.source
                && poller.add(source, Token::Source(attached.serial), READ).is_err()
            {
                attached.source = None;
            }
        }
        self.forget_those_who_left();
    }

    /// Nobody can write to the container any more.
    pub(super) fn close_input(&mut self, poller: &Poller) {
        if let Some(input) = self.stdin.take().filter(|input| input.full) {
            poller.remove(&input.to);
        }
        for attached in &mut self.attached {
            if let Some(source) = attached.source.take() {
                poller.remove(source);
            }
        }
        self.forget_those_who_left();
    }

    /// Somebody has left: what he wrote before still goes to the container, as far as it takes it.
    pub(super) fn leave(&mut self, serial: u32, poller: &Poller) {
        while self.splice(serial) == Spliced::Some {}
        self.end_of_source(serial, poller);
        if let Some(index) = self.attached.iter().position(|attached| attached.serial == serial) {
            self.attached.swap_remove(index).forget(poller);
        }
    }

    /// Lets go of everybody, when there will be neither input nor output.
    pub(super) fn detach_all(&mut self, poller: &Poller) {
        self.close_input(poller);
        self.attached.drain(..).for_each(|attached| attached.forget(poller));
    }

    /// Copies output to those who are attached.
    pub(super) fn copy_output(&mut self, index: usize, bytes: &[u8], poller: &Poller) {
        let mut gone = Vec::new();
        for attached in &mut self.attached {
            if attached.offer(index, bytes, poller) == Still::Gone {
                gone.push(attached.serial);
            }
        }
        gone.into_iter().for_each(|serial| self.leave(serial, poller));
    }

    /// An output has ended. Who only wrote beside reading it goes on writing.
    pub(super) fn end_copies(&mut self, index: usize, poller: &Poller) {
        self.attached.iter_mut().for_each(|attached| attached.end_of_output(index, poller));
        self.forget_those_who_left();
    }

    fn forget_those_who_left(&mut self) {
        self.attached.retain(|attached| !attached.is_over());
    }

    fn end_of_source(&mut self, serial: u32, poller: &Poller) {
        let attached = self.attached.iter_mut().find(|attached| attached.serial == serial);
        if let Some(source) = attached.and_then(|attached| attached.source.take()) {
            poller.remove(source);
            if self.stdin.as_ref().is_some_and(|input| input.once) {
                self.close_input(poller);
            }
        }
        self.forget_those_who_left();
    }

    /// The hang-up of a pipe is told as long as it is waited for anything of it; so nothing is.
    fn hold_sources(&mut self, poller: &Poller) {
        let Some(input) = self.stdin.as_mut().filter(|input| !input.full) else {
            return;
        };
        if poller.add(&input.to, Token::Input(self.serial), WRITE).is_err() {
            return self.close_input(poller);
        }
        input.full = true;
        self.attached
            .iter()
            .filter_map(|attached| attached.source.as_ref())
            .for_each(|source| poller.remove(source));
    }

    fn splice(&self, serial: u32) -> Spliced {
        let attached: Option<&Attached> = self.attached.iter().find(|attached| attached.serial == serial);
        let (Some(source), Some(input)) = (attached.and_then(|a| a.source.as_ref()), &self.stdin) else {
            return Spliced::Nothing;
        };
        match rustix::pipe::splice(source, None, &input.to, None, SPLICED, SpliceFlags::NONBLOCK) {
            Ok(0) => Spliced::EndOfSource,
            Ok(_) => Spliced::Some,
            Err(Errno::INTR) => Spliced::Nothing,
            Err(Errno::AGAIN) => Spliced::Full,
            // What he handed over is no pipe.
            Err(Errno::INVAL | Errno::BADF) => Spliced::EndOfSource,
            // The container has closed its end; a terminal that nobody has open says EIO.
            Err(_) => Spliced::Broken,
        }
    }
}

/// What became of moving bytes from somebody to the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spliced {
    Some,
    Nothing,
    Full,
    EndOfSource,
    Broken,
}
