//! The throw-away daemon: this binary's `serve` as a child, with everything of its own.

use super::scratch::Scratch;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::output::printable;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long the daemon may take to answer, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running daemon.
pub(super) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it. It may not answer yet.
    pub(super) fn spawn(scratch: &Scratch) -> Result<Daemon, Failure> {
        let cannot =
            |source| Failure::File { what: "starting the daemon", path: scratch.daemon_log(), source };
        let log = std::fs::File::create(scratch.daemon_log()).map_err(cannot)?;
        let child = Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("serve")
            .args([OsStr::new("--config"), scratch.config_file().as_os_str()])
            .args([OsStr::new("--root"), scratch.root().as_os_str()])
            .args([OsStr::new("--state"), scratch.state().as_os_str()])
            .args([OsStr::new("--socket"), scratch.socket().as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(cannot)?)
            .stderr(log)
            // Ctrl-C is for the demonstration, which then stops its daemon in order.
            .process_group(0)
            .spawn()
            .map_err(cannot)?;
        Ok(Daemon { child })
    }

    /// Waits until it answers; when it does not, the end of its log is shown, which would be gone with the directory.
    pub(super) async fn client(&mut self, scratch: &Scratch) -> Result<Client, Failure> {
        let client = self.wait_until_it_answers(scratch).await;
        if client.is_err() {
            let log = std::fs::read_to_string(scratch.daemon_log()).unwrap_or_default();
            let first = log.lines().count().saturating_sub(10);
            log.lines().skip(first).for_each(|line| eprintln!("  daemon: {}", printable(line)));
        }
        client
    }

    async fn wait_until_it_answers(&mut self, scratch: &Scratch) -> Result<Client, Failure> {
        let endpoint = scratch.socket().into();
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::Usage(format!("the daemon ended at once: {status}")));
            }
            let failure = match Client::connect(&endpoint).await {
                Ok(client) => match client.list_pods().await {
                    Ok(_) => return Ok(client),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            if began.elapsed() > PATIENCE {
                return Err(failure);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks it to end, and kills it when it does not. Returns how it ended when that was not well.
    pub(super) async fn stop(&mut self) -> Result<(), String> {
        let began = Instant::now();
        self.signal(Signal::TERM);
        loop {
            match self.child.try_wait() {
                Ok(None) if began.elapsed() > PATIENCE => break,
                Ok(None) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("the daemon ended with {status}")),
                Err(error) => return Err(format!("waiting for the daemon: {error}")),
            }
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        Err(format!("the daemon did not end within {} seconds of SIGTERM and was killed", PATIENCE.as_secs()))
    }

    /// It is our child and not yet waited for, so its id is still its own.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process(pid, signal);
        }
    }
}
