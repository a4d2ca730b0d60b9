//! CRIU: the program that writes the state of processes into files and makes processes of such files.
//!
//! It is driven as runc drives it, by `criu swrk` and messages over a socket. It runs inside the namespaces that a container shares with
//! its pod: what CRIU and the processes have in common it neither saves nor makes anew (criu(8)), so that restored processes find
//! themselves in the namespaces of the pod that restores them.

mod external;
mod messages;
mod session;

pub(crate) use external::{External, Origin, Saved, find, read_saved, write_saved};
pub(crate) use messages::{InheritFd, Options, PIDS, PRE_RESUME, SETUP_NAMESPACES, TERMINAL};
pub(crate) use session::{Notice, Session, with_log};

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long `criu check` may take.
const CHECK: Duration = Duration::from_secs(20);

/// The program as an absolute path: a name without a slash is looked for where programs are.
pub fn locate(name: &Path) -> PathBuf {
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).unwrap_or_else(|_| name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(std::env::split_paths(session::PATH));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// Whether `criu` can be executed and says that this kernel has what it needs.
///
/// # Errors
/// What it says, or why it could not be asked, as a sentence that goes on with what to do.
pub fn check(criu: &Path) -> Result<(), String> {
    let name = criu.display();
    let mut child = Command::new(criu)
        .arg("check")
        .env_clear()
        .env("PATH", session::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "there is no program {name}; install CRIU 3.17 or later (package criu), or set checkpoint.criu to where it is"
            ),
            _ => format!("{name} cannot be executed: {error}"),
        })?;
    let deadline = Instant::now() + CHECK;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} check did not end within {CHECK:?}"));
            }
            Err(error) => return Err(format!("{name} check: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut std::io::Read::take(stderr, 1 << 16), &mut said);
    }
    let first = said.lines().find(|line| line.contains("Error")).unwrap_or("it gives no reason").trim();
    Err(format!(
        "{name} check fails: {first}; this kernel lacks what CRIU needs, or the version of CRIU is too old for it"
    ))
}
