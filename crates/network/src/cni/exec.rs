//! Running a plugin's program: a minimal environment, a deadline for its whole process group, and bounded output.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde_json::Value;

use super::error::CniError;
use super::version::Version;

/// More than this from a plugin is not a result.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// How much of the end of standard error goes into an error.
const STDERR_TAIL_BYTES: usize = 4096;
/// How long output is still read after the plugin ended: a child it left behind may hold the pipe open for good.
const LINGER: Duration = Duration::from_millis(100);

/// The commands of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

impl Command {
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Status => "STATUS",
            Command::Gc => "GC",
            Command::Version => "VERSION",
        }
    }

    /// The command that `CNI_COMMAND` names.
    pub fn parse(text: &str) -> Option<Command> {
        use Command::*;
        [Add, Del, Check, Status, Gc, Version].into_iter().find(|command| command.as_str() == text)
    }
}

/// What a plugin is told through its environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub container_id: String,
    /// Empty where the namespace is gone.
    pub netns: String,
    pub interface: String,
    /// `KEY=value;KEY=value`.
    pub args: String,
}

/// A plugin did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("plugin {kind:?} is not in {}: install it there", list(searched))]
    Missing { kind: String, searched: Vec<PathBuf> },
    #[error("plugin {} could not be run: {source}", path.display())]
    Run { path: PathBuf, source: io::Error },
    #[error("plugin {kind} was killed because {command} took more than {} s{}", after.as_secs_f32(), said(stderr))]
    TimedOut { kind: String, command: &'static str, after: Duration, stderr: String },
    #[error(
        "plugin {kind} was killed because {command} printed more than {MAX_OUTPUT_BYTES} bytes{}",
        said(stderr)
    )]
    TooMuchOutput { kind: String, command: &'static str, stderr: String },
    #[error("plugin {kind} refused {command}: {error} (code {}){}", error.code, said(stderr))]
    Refused { kind: String, command: &'static str, error: CniError, stderr: String },
    #[error(
        "plugin {kind} failed at {command} with {status} and no error object{}{}",
        printed(stdout),
        said(stderr)
    )]
    Failed { kind: String, command: &'static str, status: ExitStatus, stdout: String, stderr: String },
    #[error(
        "plugin {kind} answered {command} with what is not a result: {why}{}{}",
        printed(stdout),
        said(stderr)
    )]
    Garbage { kind: String, command: &'static str, why: String, stdout: String, stderr: String },
}

impl PluginError {
    /// The error object, where the plugin gave one.
    pub fn object(&self) -> Option<&CniError> {
        match self {
            PluginError::Refused { error, .. } => Some(error),
            _ => None,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() {
        String::new()
    } else {
        format!("; its standard error ends: {}", stderr.trim_end())
    }
}

fn printed(stdout: &str) -> String {
    if stdout.is_empty() {
        "; it printed nothing".into()
    } else {
        format!("; it printed: {}", stdout.trim_end())
    }
}

/// Finds the program of `kind` (a plain file name) in `folders`.
pub fn find(kind: &str, folders: &[PathBuf]) -> Result<PathBuf, PluginError> {
    folders
        .iter()
        .map(|folder| folder.join(kind))
        .find(|path| path.is_file())
        .ok_or_else(|| PluginError::Missing { kind: kind.into(), searched: folders.to_vec() })
}

/// Runs `kind` for `command` with `config` on its standard input; returns what it printed, `None` where that was nothing.
///
/// # Errors
/// [`PluginError`]; after its return no process of the plugin's group runs.
pub fn call(
    kind: &str,
    folders: &[PathBuf],
    command: Command,
    environment: &Environment,
    config: &[u8],
    deadline: Duration,
) -> Result<Option<Value>, PluginError> {
    let path = find(kind, folders)?;
    let run = |source| PluginError::Run { path: path.clone(), source };
    let child = spawn(&path, folders, command, environment, config).map_err(run)?;
    let finished = wait(child, deadline).map_err(run)?;
    let (kind, command) = (kind.to_string(), command.as_str());
    let stderr = excerpt(&finished.stderr);
    let status = match finished.end {
        End::TimedOut => return Err(PluginError::TimedOut { kind, command, after: deadline, stderr }),
        End::TooMuchOutput => return Err(PluginError::TooMuchOutput { kind, command, stderr }),
        End::Exited(status) => status,
    };
    let value = serde_json::from_slice::<Value>(&finished.stdout);
    if !status.success() {
        return Err(match value.ok().as_ref().and_then(CniError::from_json) {
            Some(error) => PluginError::Refused { kind, command, error, stderr },
            None => PluginError::Failed { kind, command, status, stdout: excerpt(&finished.stdout), stderr },
        });
    }
    if finished.stdout.trim_ascii().is_empty() {
        return Ok(None);
    }
    let stdout = || excerpt(&finished.stdout);
    match value {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => {
            let why = "it is not an object".to_string();
            Err(PluginError::Garbage { kind, command, why, stdout: stdout(), stderr })
        }
        Err(error) => {
            Err(PluginError::Garbage { kind, command, why: error.to_string(), stdout: stdout(), stderr })
        }
    }
}

/// Which versions the plugin says it speaks; none that are unknown here.
pub fn versions(kind: &str, folders: &[PathBuf], deadline: Duration) -> Result<Vec<Version>, PluginError> {
    let config = format!("{{\"cniVersion\":\"{}\"}}", Version::V1_1);
    let answer = call(kind, folders, Command::Version, &Environment::default(), config.as_bytes(), deadline)?;
    let listed = answer.as_ref().and_then(|value| value.get("supportedVersions")?.as_array());
    match listed {
        Some(list) => Ok(list.iter().filter_map(|v| v.as_str().and_then(Version::parse)).collect()),
        // Plugins before 0.2.0 do not know the command.
        None => Ok(vec![Version::V0_1]),
    }
}

/// The last bytes of `bytes` as printable text.
fn excerpt(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES)..];
    String::from_utf8_lossy(tail)
        .chars()
        .map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}

fn spawn(
    path: &Path,
    folders: &[PathBuf],
    command: Command,
    environment: &Environment,
    config: &[u8],
) -> io::Result<Child> {
    // A memory file, not a pipe: a plugin that does not read its input cannot make the writer wait.
    let mut input = File::from(memfd_create("cni-config", MemfdFlags::CLOEXEC)?);
    input.write_all(config)?;
    input.rewind()?;
    let mut program = std::process::Command::new(path);
    program
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()))
        .env("CNI_COMMAND", command.as_str())
        .env("CNI_PATH", std::env::join_paths(folders).map_err(io::Error::other)?)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir("/")
        .process_group(0);
    if command != Command::Version {
        for (key, value) in [
            ("CNI_CONTAINERID", &environment.container_id),
            ("CNI_NETNS", &environment.netns),
            ("CNI_IFNAME", &environment.interface),
            ("CNI_ARGS", &environment.args),
        ] {
            program.env(key, value);
        }
    }
    let mut attempt = 0;
    loop {
        match program.spawn() {
            // Somebody is just putting the program there.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && attempt < 20 => {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}

enum End {
    Exited(ExitStatus),
    TimedOut,
    TooMuchOutput,
}

struct Finished {
    end: End,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Reads both outputs until the process has ended or must be killed; then it is reaped.
fn wait(mut child: Child, deadline: Duration) -> io::Result<Finished> {
    let group = Pid::from_child(&child);
    let outcome = watch(&mut child, group, deadline);
    // Whatever the plugin left running in its group goes too: nothing may change the network after the answer.
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    let (end, stdout, stderr) = outcome?;
    Ok(Finished { end: end.unwrap_or(End::Exited(status)), stdout, stderr })
}

type Watched = (Option<End>, Vec<u8>, Vec<u8>);

fn watch(child: &mut Child, pid: Pid, deadline: Duration) -> io::Result<Watched> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let mut out = Output::new(child.stdout.take().map(OwnedFd::from))?;
    let mut err = Output::new(child.stderr.take().map(OwnedFd::from))?;
    let mut until = Instant::now() + deadline;
    let mut ended = false;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || (ended && out.fd.is_none() && err.fd.is_none()) {
            let end = if ended { None } else { Some(End::TimedOut) };
            return Ok((end, out.bytes, err.bytes));
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
        out.read()?;
        err.read()?;
        err.keep_tail();
        if out.bytes.len() > MAX_OUTPUT_BYTES {
            return Ok((Some(End::TooMuchOutput), Vec::new(), err.bytes));
        }
        if over {
            ended = true;
            until = until.min(Instant::now() + LINGER);
        }
    }
}

struct Output {
    fd: Option<File>,
    bytes: Vec<u8>,
}

impl Output {
    fn new(fd: Option<OwnedFd>) -> io::Result<Output> {
        if let Some(fd) = &fd {
            let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
            rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Output { fd: fd.map(File::from), bytes: Vec::new() })
    }

    /// Takes what is there, at most one bufferful, so that neither output starves the deadline.
    fn read(&mut self) -> io::Result<()> {
        let Some(fd) = &mut self.fd else { return Ok(()) };
        let mut buffer = [0; 65536];
        match fd.read(&mut buffer) {
            Ok(0) => self.fd = None,
            Ok(length) => self.bytes.extend_from_slice(&buffer[..length]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn keep_tail(&mut self) {
        if self.bytes.len() > 2 * STDERR_TAIL_BYTES {
            self.bytes.drain(..self.bytes.len() - STDERR_TAIL_BYTES);
        }
    }
}
