//! Programs of the node's administrator that are asked something: a deadline for the whole process group, and bounded output.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// How long output is still read after the program ended: a child it left behind may hold the pipe open for good.
const LINGER: Duration = Duration::from_millis(100);

/// How much of an output is kept, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// All of it; a program that prints more is killed.
    All(usize),
    /// The first bytes; the rest is read and let go.
    Head(usize),
    /// The last bytes, and at most as many before them.
    Tail(usize),
}

/// How a program came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(ExitStatus),
    /// It was killed at its deadline.
    TimedOut,
    /// It was killed because it printed more than [`Bound::All`] allows.
    TooMuchOutput,
}

/// A program that has ended, and what was kept of its outputs.
#[derive(Debug)]
pub struct Finished {
    pub end: End,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// What a program is to find on its standard input: a memory file, not a pipe, so that one that does not read cannot make the writer wait.
///
/// # Errors
/// The kernel has no memory for it.
pub fn input(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Reads both outputs, which are pipes, until the program has ended or must be killed; then it is reaped. `child` leads a process group of
/// its own (`process_group(0)`): what it left running in that is killed too, so that nothing happens after the answer.
///
/// # Errors
/// It could not be watched; it is killed and reaped then.
pub fn finish(child: Child, deadline: Duration, stdout: Bound, stderr: Bound) -> io::Result<Finished> {
    end(child, deadline, [stdout, stderr], Rest::Killed)
}

/// The same, but a program that ends by itself may leave others running in its process group: those that it was called for.
///
/// # Errors
/// It could not be watched; it is killed and reaped then.
pub fn finish_and_leave(
    child: Child,
    deadline: Duration,
    stdout: Bound,
    stderr: Bound,
) -> io::Result<Finished> {
    end(child, deadline, [stdout, stderr], Rest::Left)
}

/// What becomes of those that a program left in its process group when it ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    Killed,
    Left,
}

fn end(mut child: Child, deadline: Duration, bounds: [Bound; 2], rest: Rest) -> io::Result<Finished> {
    let group = Pid::from_child(&child);
    let watched = watch(&mut child, group, Instant::now() + deadline, bounds);
    if rest == Rest::Killed || !matches!(watched, Ok((None, _))) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait()?;
    let (killed, [stdout, stderr]) = watched?;
    Ok(Finished { end: killed.unwrap_or(End::Exited(status)), stdout, stderr })
}

/// Why the program has to be killed, if so, and its outputs.
fn watch(
    child: &mut Child,
    pid: Pid,
    mut until: Instant,
    bounds: [Bound; 2],
) -> io::Result<(Option<End>, [Vec<u8>; 2])> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut out = Output::new(child.stdout.take().map(OwnedFd::from), bounds[0])?;
    let mut err = Output::new(child.stderr.take().map(OwnedFd::from), bounds[1])?;
    let mut ended = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || (ended && out.fd.is_none() && err.fd.is_none()) {
            return Ok(((!ended).then_some(End::TimedOut), [out.kept, err.kept]));
        }
        let mut fds = Vec::with_capacity(3);
        if !ended {
            fds.push(PollFd::new(&process, PollFlags::IN));
        }
        fds.extend(
            [&out, &err].into_iter().filter_map(|o| o.fd.as_ref()).map(|fd| PollFd::new(fd, PollFlags::IN)),
        );
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let over = !ended && !fds[0].revents().is_empty();
        drop(fds);
        if !(out.read()? && err.read()?) {
            return Ok((Some(End::TooMuchOutput), [Vec::new(), err.kept]));
        }
        if over {
            ended = true;
            until = until.min(Instant::now() + LINGER);
        }
    }
}

struct Output {
    fd: Option<File>,
    kept: Vec<u8>,
    bound: Bound,
}

impl Output {
    fn new(fd: Option<OwnedFd>, bound: Bound) -> io::Result<Output> {
        if let Some(fd) = &fd {
            let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
            rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Output { fd: fd.map(File::from), kept: Vec::new(), bound })
    }

    /// Takes what is there, at most one bufferful, so that neither output starves the deadline. False: it is more than may be.
    fn read(&mut self) -> io::Result<bool> {
        let Some(fd) = &mut self.fd else { return Ok(true) };
        let mut buffer = [0; 65536];
        match fd.read(&mut buffer) {
            Ok(0) => self.fd = None,
            Ok(length) => return Ok(self.keep(&buffer[..length])),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn keep(&mut self, bytes: &[u8]) -> bool {
        match self.bound {
            Bound::All(most) => {
                self.kept.extend_from_slice(bytes);
                return self.kept.len() <= most;
            }
            Bound::Head(most) => {
                let room = most.saturating_sub(self.kept.len());
                self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Bound::Tail(most) => {
                self.kept.extend_from_slice(bytes);
                if self.kept.len() > 2 * most {
                    self.kept.drain(..self.kept.len() - most);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn run(script: &str, stdin: &[u8], stdout: Bound) -> Finished {
        let child = Command::new("/bin/sh")
            .args(["-c", script])
            .stdin(input("test", stdin).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        finish(child, Duration::from_millis(800), stdout, Bound::Tail(3)).unwrap()
    }

    #[test]
    fn a_program_is_read_and_bounded() {
        let done = run("cat; echo 1234567890 >&2; exit 3", b"hello", Bound::Head(4));
        assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"hell"[..], &b"90\n"[..]));
        assert!(matches!(done.end, End::Exited(status) if status.code() == Some(3)));
        let done = run("cat", b"hello", Bound::All(5));
        assert_eq!(done.stdout, b"hello");
        assert_eq!(run("cat; sleep 60", b"hello", Bound::All(4)).end, End::TooMuchOutput);
    }

    #[test]
    fn nothing_of_it_outlives_its_deadline() {
        let begun = Instant::now();
        let done = run("echo $$; sleep 60 & sleep 60", b"", Bound::Head(20));
        assert_eq!(done.end, End::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(10));
        let group = Pid::from_raw(String::from_utf8(done.stdout).unwrap().trim().parse().unwrap()).unwrap();
        let gone = || rustix::process::test_kill_process_group(group).is_err();
        while !gone() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone(), "its group lives");
        // One that ends and leaves a child with its outputs is not waited for.
        let begun = Instant::now();
        assert!(matches!(run("sleep 60 & exit 0", b"", Bound::Head(1)).end, End::Exited(_)));
        assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
    }
}
