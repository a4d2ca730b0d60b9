//! Running a plugin's program: a minimal environment, a deadline for its whole process group, and bounded output.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use sys::program::{self, Bound, End};

use super::error::CniError;
use super::version::Version;

/// More than this from a plugin is not a result.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
/// How much of the end of standard error goes into an error.
const STDERR_TAIL_BYTES: usize = 4096;

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
    let bounds = (Bound::All(MAX_OUTPUT_BYTES), Bound::Tail(STDERR_TAIL_BYTES));
    // Whatever the plugin left running in its group goes too: nothing may change the network after the answer.
    let finished = program::finish(child, deadline, bounds.0, bounds.1).map_err(run)?;
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
    let input = program::input("cni-config", config)?;
    let mut plugin = std::process::Command::new(path);
    plugin
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
            plugin.env(key, value);
        }
    }
    let mut attempt = 0;
    loop {
        match plugin.spawn() {
            // Somebody is just putting the program there.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && attempt < 20 => {
                attempt += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            done => return done,
        }
    }
}
