//! The standard streams of one process: what it is given, and what the server keeps of them.

use super::logger;
use super::pump::{Moved, Pump, Sink};
use super::stdio::{Stdio, Target};
use crate::parent::handed::Handed;
use crate::parent::poller::{Poller, READ, Token, WRITE};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, SpliceFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::process::Child;

/// What one splice moves at most.
const SPLICED: usize = 64 << 10;

#[derive(Debug, Default)]
pub(super) struct Streams {
    outputs: [Option<Pump>; 2],
    input: Option<Input>,
    /// The master of its terminal.
    terminal: Option<OwnedFd>,
    /// Rows and columns that were asked for before there was a terminal.
    size: Option<(u16, u16)>,
    /// Where the terminal's output goes once it is there, and where its input comes from.
    sink: Option<Sink>,
    source: Option<Source>,
    /// The program that takes its output.
    pub(super) logger: Option<Child>,
    /// That program has to say that it is ready.
    pub(super) must_say_ready: bool,
}

/// A fifo that input is read from.
#[derive(Debug)]
struct Source {
    fifo: OwnedFd,
    /// While it is open the fifo does not end, whoever else closes it: containerd may be restarting.
    writer: Option<OwnedFd>,
}

/// The server's ends of a process's standard input.
#[derive(Debug)]
struct Input {
    source: Source,
    /// A pipe, or a terminal.
    to: OwnedFd,
    /// It takes no more: that it does again is waited for, and the fifo is not read from.
    full: bool,
}

impl Streams {
    /// Opens everything that `stdio` names. What the process gets is in the second part; for a terminal, the socket over which it comes is
    /// the third.
    pub(super) fn wire(
        serial: u32,
        stdio: &Stdio,
        names: (&str, &str),
        poller: &Poller,
    ) -> io::Result<(Streams, Handed, Option<OwnedFd>)> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let stdout = Target::parse(&stdio.stdout).map_err(invalid)?;
        let stderr = Target::parse(&stdio.stderr).map_err(invalid)?;
        let mut streams = Streams::default();
        let mut handed = Handed::default();
        let source = if stdio.stdin.is_empty() { None } else { Some(Source::open(Path::new(&stdio.stdin))?) };
        if stdio.terminal {
            let kind = SocketType::STREAM;
            let (ours, theirs) =
                rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
            rustix::io::ioctl_fionbio(&ours, true)?;
            handed.console = Some(theirs);
            streams.source = source;
            streams.sink = Some(match &stdout {
                Target::Program(program) => {
                    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                    streams.start_logger(program, names, [Some(&reader), None], &mut handed)?;
                    Sink::Pipe { writer, reader: None }
                }
                other => open_sink(other)?,
            });
            return Ok((streams, handed, Some(ours)));
        }
        if let Some(source) = source {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            handed.stdin = Some(reader);
            streams.input = Some(Input::open(source, writer, serial, poller)?);
        }
        if let Target::Program(program) = &stdout {
            let (out, out_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            let (err, err_writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            streams.start_logger(program, names, [Some(&out), Some(&err)], &mut handed)?;
            (handed.stdout, handed.stderr) = (Some(out_writer), Some(err_writer));
            return Ok((streams, handed, None));
        }
        let ends = [&mut handed.stdout, &mut handed.stderr];
        for ((index, target), end) in [(0, &stdout), (1, &stderr)].into_iter().zip(ends) {
            if *target == Target::Nowhere {
                continue;
            }
            let sink = open_sink(target)?;
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            *end = Some(writer);
            streams.outputs[usize::from(index)] = Some(Pump::open(reader, sink, (serial, index), poller)?);
        }
        Ok((streams, handed, None))
    }

    fn start_logger(
        &mut self,
        program: &super::stdio::Program,
        names: (&str, &str),
        sources: [Option<&OwnedFd>; 2],
        handed: &mut Handed,
    ) -> io::Result<()> {
        let (child, ready) = logger::start(program, names, sources)?;
        self.logger = Some(child);
        self.must_say_ready = program.must_say_ready;
        handed.ready = Some(ready);
        Ok(())
    }

    /// Takes the master of the process's terminal, which is its output and its input.
    pub(super) fn take_terminal(&mut self, master: OwnedFd, serial: u32, poller: &Poller) -> io::Result<()> {
        if let Some((rows, columns)) = self.size.take() {
            let _ = sys::terminal::set_size(master.as_fd(), rows, columns);
        }
        if let Some(source) = self.source.take() {
            let to = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
            self.input = Some(Input::open(source, to, serial, poller)?);
        }
        self.terminal = Some(rustix::io::fcntl_dupfd_cloexec(&master, 3)?);
        let sink = self.sink.take().unwrap_or(Sink::Nowhere);
        self.outputs[0] = Some(Pump::open(master, sink, (serial, 0), poller)?);
        Ok(())
    }

    /// Gives the terminal another size, now or when there is one.
    pub(super) fn resize(&mut self, rows: u16, columns: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => sys::terminal::set_size(terminal.as_fd(), rows, columns),
            None => {
                self.size = Some((rows, columns));
                Ok(())
            }
        }
    }

    /// Takes over what was asked for before there were streams.
    pub(super) fn inherit_size(&mut self, before: &Streams) {
        self.size = before.size;
    }

    /// An output has something, or has ended.
    pub(super) fn readable(&mut self, index: usize, buffer: &mut [u8], poller: &Poller) {
        if let Some(pump) = self.outputs.get_mut(index).and_then(Option::as_mut)
            && pump.readable(buffer, poller) == Moved::Ended
        {
            self.close_output(index, poller);
        }
    }

    /// What takes an output has room again.
    pub(super) fn writable(&mut self, index: usize, poller: &Poller) {
        if let Some(pump) = self.outputs.get_mut(index).and_then(Option::as_mut) {
            pump.writable(poller);
        }
    }

    /// The process is dead: its input is closed, its output moved as far as that goes now.
    pub(super) fn drain(&mut self, buffer: &mut [u8], poller: &Poller) {
        self.close_input(poller);
        for index in 0..self.outputs.len() {
            let moved = self.outputs[index].as_mut().map(|pump| pump.drain(buffer, poller));
            if moved == Some(Moved::Ended) {
                self.close_output(index, poller);
            }
        }
    }

    /// Nothing is kept any more for somebody who may come back.
    pub(super) fn let_break(&mut self) {
        self.outputs.iter_mut().flatten().for_each(Pump::let_break);
    }

    /// Whether all output has gone where it should.
    pub(super) fn are_done(&self) -> bool {
        self.outputs.iter().all(Option::is_none) && self.logger.is_none()
    }

    /// The inodes of the pipes that are the streams of a process without a terminal: both ends of a pipe have the same.
    pub(super) fn pipes(&self) -> [Option<u64>; 3] {
        let inode =
            |fd: Option<&OwnedFd>| fd.and_then(|fd| rustix::fs::fstat(fd).ok()).map(|stat| stat.st_ino);
        let [stdout, stderr] = &self.outputs;
        if self.terminal.is_some() {
            return [None; 3];
        }
        let source = |pump: &Option<Pump>| inode(pump.as_ref().map(Pump::source));
        [inode(self.input.as_ref().map(|input| &input.to)), source(stdout), source(stderr)]
    }

    /// The caller writes no more: what is in the fifo is still moved, then the process gets its end.
    pub(super) fn end_input(&mut self) {
        if let Some(source) = &mut self.source {
            source.writer = None;
        }
        if let Some(input) = &mut self.input {
            input.source.writer = None;
        }
    }

    /// The fifo has something, or has ended.
    pub(super) fn source_readable(&mut self, serial: u32, poller: &Poller) {
        let Some(input) = &mut self.input else {
            return;
        };
        match rustix::pipe::splice(&input.source.fifo, None, &input.to, None, SPLICED, SpliceFlags::NONBLOCK)
        {
            Ok(1..) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poller.remove(&input.source.fifo);
                input.full = true;
                if poller.add(&input.to, Token::Input(serial), WRITE).is_err() {
                    self.close_input(poller);
                }
            }
            // The fifo has ended, or the process reads no more.
            Ok(0) | Err(_) => self.close_input(poller),
        }
    }

    /// The process's input has room again.
    pub(super) fn input_writable(&mut self, serial: u32, poller: &Poller) {
        let Some(input) = self.input.as_mut().filter(|input| input.full) else {
            return;
        };
        input.full = false;
        poller.remove(&input.to);
        if poller.add(&input.source.fifo, Token::Source(serial), READ).is_err() {
            self.close_input(poller);
        }
    }

    /// Lets go of everything.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.close_input(poller);
        (0..self.outputs.len()).for_each(|index| self.close_output(index, poller));
        (self.sink, self.source) = (None, None);
        if let Some(logger) = self.logger.take() {
            let _ = rustix::process::pidfd_send_signal(&logger.pidfd, rustix::process::Signal::TERM);
        }
    }

    fn close_output(&mut self, index: usize, poller: &Poller) {
        if let Some(pump) = self.outputs[index].take() {
            pump.close(poller);
        }
    }

    fn close_input(&mut self, poller: &Poller) {
        if let Some(input) = self.input.take() {
            poller.remove(if input.full { &input.to } else { &input.source.fifo });
        }
    }
}

impl Source {
    fn open(path: &Path) -> io::Result<Source> {
        let at = |cause: Errno| named(path, cause);
        let base = OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fifo = rustix::fs::open(path, OFlags::RDONLY | base, Mode::empty()).map_err(at)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fifo).map_err(at)?.st_mode) != FileType::Fifo {
            let why = format!("{}: standard input must be a fifo", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let writer = rustix::fs::open(path, OFlags::WRONLY | base, Mode::empty()).map_err(at)?;
        Ok(Source { fifo, writer: Some(writer) })
    }
}

impl Input {
    fn open(source: Source, to: OwnedFd, serial: u32, poller: &Poller) -> io::Result<Input> {
        poller.add(&source.fifo, Token::Source(serial), READ)?;
        Ok(Input { source, to, full: false })
    }
}

fn open_sink(target: &Target) -> io::Result<Sink> {
    let append = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    match target {
        Target::Nowhere => Ok(Sink::Nowhere),
        Target::Program(_) => {
            let why = "stderr: a program can only take both outputs; name it for stdout too";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
        Target::File(path) => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mode = Mode::from_raw_mode(0o644);
            let file = rustix::fs::open(path, append | OFlags::CREATE | OFlags::NONBLOCK, mode);
            Ok(Sink::File(file.map_err(|cause| named(path, cause))?))
        }
        Target::Path(path) => {
            let at = |cause: Errno| named(path, cause);
            // With a reader the fifo can be opened for writing without waiting for containerd to open it.
            let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
            let reader = rustix::fs::open(path, OFlags::RDONLY | flags, Mode::empty()).map_err(at)?;
            if FileType::from_raw_mode(rustix::fs::fstat(&reader).map_err(at)?.st_mode) != FileType::Fifo {
                return Ok(Sink::File(rustix::fs::open(path, append, Mode::empty()).map_err(at)?));
            }
            let writer = rustix::fs::open(path, OFlags::WRONLY | flags, Mode::empty()).map_err(at)?;
            Ok(Sink::Pipe { writer, reader: Some(reader) })
        }
    }
}

fn named(path: &Path, cause: Errno) -> io::Error {
    let cause = io::Error::from(cause);
    io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
}
