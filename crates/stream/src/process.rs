//! Moving bytes between a process's descriptors and a client's streams.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::channel::{CHUNK, Inbound, Outbound};

/// A process has ended, but its output has not: a child of it has it too. What it wrote itself is there at once, so after so long
/// without anything the rest is not waited for.
const QUIET: Duration = Duration::from_secs(1);
/// And so much is read at most of what a child goes on writing. Pipes hold a mebibyte at most.
const AFTERWARDS: usize = 4 * 1024 * 1024;

/// A descriptor that does not block. Files of some kinds cannot be polled and need not be.
enum Descriptor {
    Polled(AsyncFd<OwnedFd>),
    Always(OwnedFd),
}

impl Descriptor {
    #[expect(
        deprecated,
        reason = "what it is about cannot happen to an owned descriptor, and its successor is unsafe"
    )]
    fn new(fd: OwnedFd, interest: Interest) -> io::Result<Descriptor> {
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        match AsyncFd::try_with_interest(fd, interest) {
            Ok(polled) => Ok(Descriptor::Polled(polled)),
            Err(error) => {
                let (fd, error) = error.into_parts();
                match Errno::from_io_error(&error) {
                    Some(Errno::PERM) => Ok(Descriptor::Always(fd)),
                    _ => Err(error),
                }
            }
        }
    }

    async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut read = |fd: &OwnedFd| rustix::io::read(fd.as_fd(), &mut *into).map_err(io::Error::from);
        loop {
            let outcome = match self {
                Descriptor::Polled(fd) => fd.async_io(Interest::READABLE, &mut read).await,
                Descriptor::Always(fd) => read(fd),
            };
            match outcome {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // So a terminal ends that no process has open any more.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => return Ok(0),
                outcome => return outcome,
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| rustix::io::write(fd.as_fd(), bytes).map_err(io::Error::from);
            let outcome = match self {
                Descriptor::Polled(fd) => fd.async_io(Interest::WRITABLE, write).await,
                Descriptor::Always(fd) => write(fd),
            };
            match outcome {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Gives a process what the client sends, and closes its input when the client does. A process that reads no more is no error: its
/// end is told elsewhere.
pub(crate) async fn feed(mut from: Inbound, to: OwnedFd) {
    let to = match Descriptor::new(to, Interest::WRITABLE) {
        Ok(to) => to,
        Err(error) => return tracing::warn!(%error, "a process's input cannot be written"),
    };
    let mut buffer = vec![0; CHUNK];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Gives the client what a process writes, until nothing more comes. A client that does not want it any more does not stop the process.
pub(crate) async fn drain(from: OwnedFd, to: Option<Outbound>, exited: watch::Receiver<bool>) {
    match Descriptor::new(from, Interest::READABLE) {
        Ok(from) => forward(&from, to.as_ref(), exited).await,
        Err(error) => tracing::warn!(%error, "a process's output cannot be read"),
    }
    if let Some(to) = to {
        to.end().await;
    }
}

async fn forward(from: &Descriptor, mut to: Option<&Outbound>, mut exited: watch::Receiver<bool>) {
    let mut buffer = vec![0; CHUNK];
    let mut afterwards = 0;
    while afterwards < AFTERWARDS {
        let quiet = async {
            // An error is as good: nobody will tell any more.
            let _exited = exited.wait_for(|exited| *exited).await.map(drop);
            sleep(QUIET).await;
        };
        let read = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read,
            () = quiet => return,
        };
        match read {
            Ok(0) => return,
            Ok(count) => {
                if *exited.borrow() {
                    afterwards += count;
                }
                if let Some(outbound) = to
                    && outbound.write(Bytes::copy_from_slice(&buffer[..count])).await.is_err()
                {
                    to = None;
                }
            }
            Err(error) => return tracing::warn!(%error, "a process's output ended early"),
        }
    }
}
