//! What a helper takes along of its server's descriptors.

use rustix::fs::{Mode, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors that a helper takes along. What is absent of the standard streams becomes /dev/null.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    pub(crate) console: Option<OwnedFd>,
    pub(crate) rootfs: Option<OwnedFd>,
    pub(crate) volumes: Vec<OwnedFd>,
    /// By which a program that takes output says that it is ready.
    pub(crate) ready: Option<OwnedFd>,
    /// Where it is told that memory has run out.
    pub(crate) memory: Option<OwnedFd>,
}

impl Handed {
    pub(crate) fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        let streams = [&self.stdin, &self.stdout, &self.stderr, &self.console];
        let others = [&self.rootfs, &self.ready, &self.memory];
        streams.into_iter().chain(others).flatten().chain(&self.volumes).map(AsFd::as_fd).collect()
    }

    /// Makes the streams the standard streams of this process, which is a helper.
    pub(crate) fn wire(&mut self) -> io::Result<()> {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(self.stdin.as_ref().unwrap_or(&null))?;
        rustix::stdio::dup2_stdout(self.stdout.as_ref().unwrap_or(&null))?;
        rustix::stdio::dup2_stderr(self.stderr.as_ref().unwrap_or(&null))?;
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        Ok(())
    }
}
