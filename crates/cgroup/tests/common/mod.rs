//! Groups that go away when a test ends, however it ends, and processes to put into them.

// Each test uses a part of it.
#![allow(dead_code)]

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cgroup::{Cgroup, Host};

pub(crate) const WAIT: Duration = Duration::from_secs(3);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A group of this test alone, with everything below it.
pub(crate) struct Scratch {
    pub(crate) host: Host,
    pub(crate) name: String,
}

impl Scratch {
    /// `None`, and a line that says so, where groups cannot be made.
    pub(crate) fn new() -> Option<Scratch> {
        let host = match Host::detect() {
            Ok(host) => host,
            Err(e) => {
                println!("SKIPPED: {e}");
                return None;
            }
        };
        let name = format!("pintle-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        if let Err(e) = host.create(&name) {
            println!("SKIPPED: {e}");
            return None;
        }
        Some(Scratch { host, name })
    }

    pub(crate) fn group(&self) -> Cgroup {
        self.host.open(&self.name).unwrap()
    }

    pub(crate) fn child(&self, path: &str) -> Cgroup {
        self.host.create(&format!("{}/{path}", self.name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Ok(group) = self.host.open(&self.name) {
            let _ = group.thaw();
            let _ = group.kill_all(WAIT);
        }
        let deleted = self.host.delete(&self.name, WAIT);
        if !std::thread::panicking() {
            deleted.unwrap();
        }
    }
}

/// A process that is killed when the test ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    /// A shell that runs `script`.
    pub(crate) fn shell(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().unwrap())
    }

    pub(crate) fn sleeper() -> Process {
        Process::shell("exec sleep 60")
    }

    pub(crate) fn id(&self) -> i32 {
        self.0.id() as i32
    }

    /// Waits until it has ended and says with which signal.
    pub(crate) fn signal(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        self.0.wait().unwrap().signal()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
