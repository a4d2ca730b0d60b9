//! How a foreign shim is started, found again, and ended when it does not answer.
//!
//! It gets both what shims of containerd 2.3 and later read from standard input and what older ones take from arguments and environment; its
//! answer may be a message, JSON, or the bare address.

use super::super::oci::last_line;
use super::super::program::{self, RunError, Streams};
use super::client::{Client, TaskError};
use crate::config::{TaskRecord, TaskShim, task_record_path};
use prost::Message;
use serde::Deserialize;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use task::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use task::{Any, ConnectRequest, ConnectResponse, Method};

/// Whose containers these are, for shims that serve several masters.
pub(super) const NAMESPACE: &str = "pintle";

/// A longer path does not leave room for the name of a socket in it (unix(7)).
const LONGEST_FOLDER: usize = 40;

#[derive(Debug, thiserror::Error)]
pub(super) enum BootstrapError {
    #[error("{path} {verb}: {source}", path = .path.display())]
    Run { path: PathBuf, verb: &'static str, source: RunError },
    #[error("{path} {verb} failed ({status}): {said}", path = .path.display())]
    Failed { path: PathBuf, verb: &'static str, status: ExitStatus, said: String },
    #[error("{path} start: {why}", path = .path.display())]
    Answer { path: PathBuf, why: String },
    #[error("{path}: {source}", path = .path.display())]
    Call { path: PathBuf, source: TaskError },
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the foreign shim of this pod was never started")]
    NotStarted,
}

impl BootstrapError {
    /// What is told of two attempts: the first, and what the second had to say beside it.
    fn and_then(mut self, second: BootstrapError) -> BootstrapError {
        if let (BootstrapError::Failed { said: first, .. }, BootstrapError::Failed { said: second, .. }) =
            (&mut self, second)
            && *first != second
        {
            first.push_str("; started as before containerd 2.3: ");
            first.push_str(&second);
        }
        self
    }
}

/// What a shim is started for.
pub(super) struct Start<'a> {
    pub(super) shim: &'a TaskShim,
    pub(super) pod_dir: &'a Path,
    /// Where events go.
    pub(super) events: &'a str,
    /// The folder with the first `config.json`, whose annotations say what belongs together.
    pub(super) bundle: &'a Path,
    pub(super) id: &'a str,
    pub(super) options: Option<Any>,
}

/// Starts a shim and writes down where it is.
pub(super) fn start(start: &Start<'_>) -> Result<TaskRecord, BootstrapError> {
    let shim = start.shim;
    let socket_dir = shim.socket_dir.to_string_lossy().into_owned();
    let params = BootstrapParams {
        instance_id: start.id.into(),
        namespace: NAMESPACE.into(),
        containerd_version: "2.3.0".into(),
        containerd_ttrpc_address: start.events.into(),
        containerd_grpc_address: start.events.into(),
        containerd_binary: "/bin/true".into(),
        extensions: start.options.iter().map(|value| Extension { value: Some(value.clone()) }).collect(),
        socket_dir: (socket_dir.len() <= LONGEST_FOLDER).then_some(socket_dir),
        ..BootstrapParams::default()
    };
    // Shims from before containerd 2.3 read their options alone, and some refuse everything else.
    let said = run(start, "start", &params.encode_to_vec()).or_else(|first| {
        if !matches!(first, BootstrapError::Failed { .. }) {
            return Err(first);
        }
        let options = start.options.as_ref().map(Message::encode_to_vec).unwrap_or_default();
        run(start, "start", &options).map_err(|second| first.and_then(second))
    })?;
    let answer = |why: String| BootstrapError::Answer { path: shim.path.clone(), why };
    let Answer { version, address } = parse(&said).map_err(answer)?;
    let call = |source| BootstrapError::Call { path: shim.path.clone(), source };
    let mut client = Client::connect(&address, version, shim.deadline()).map_err(call)?;
    // What it says of itself is what it is ended by if it does not answer any more; one that does not know the call yet is fine.
    let request = ConnectRequest { id: start.id.into() };
    let connected: Result<ConnectResponse, _> = client.call(Method::Connect, &request);
    let pid = match connected {
        Ok(connected) => connected.shim_pid,
        Err(TaskError::Refused { .. }) => peer(&client),
        Err(source) => return Err(call(source)),
    };
    let start_time = sys::process::start_time(pid.cast_signed()).unwrap_or(0);
    let record = TaskRecord { version, address, pid, start_time };
    write(start.pod_dir, &record)?;
    Ok(record)
}

/// The process that listens, or that did so first.
fn peer(client: &Client) -> u32 {
    rustix::net::sockopt::socket_peercred(client)
        .map_or(0, |peer| peer.pid.as_raw_nonzero().get().cast_unsigned())
}

fn write(pod_dir: &Path, record: &TaskRecord) -> Result<(), BootstrapError> {
    let path = task_record_path(pod_dir);
    let bytes = serde_json::to_vec(record).map_err(io::Error::from);
    bytes
        .and_then(|bytes| sys::file::write_atomic(&path, &bytes, 0o600, sys::file::Durability::Process))
        .map_err(|source| BootstrapError::File { path, source })
}

/// Where the shim is that was started.
pub(super) fn find(pod_dir: &Path) -> Result<TaskRecord, BootstrapError> {
    let path = task_record_path(pod_dir);
    match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BootstrapError::NotStarted),
        Err(source) => Err(BootstrapError::File { path, source }),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|cause| BootstrapError::File { path, source: cause.into() }),
    }
}

/// Has the program clean up after a shim that does not answer any more.
pub(super) fn clean_up(start: &Start<'_>) -> Result<(), BootstrapError> {
    run(start, "delete", &[]).map(drop)
}

fn run(start: &Start<'_>, verb: &'static str, input: &[u8]) -> Result<Vec<u8>, BootstrapError> {
    let shim = start.shim;
    let mut command = Command::new(&shim.path);
    command.args(["-namespace", NAMESPACE, "-address", start.events]);
    command.args(["-publish-binary", "/bin/true", "-id", start.id]);
    if verb == "delete" {
        command.arg("-bundle").arg(start.bundle);
    }
    command.arg(verb).current_dir(start.bundle);
    let environment = [
        ("TTRPC_ADDRESS", start.events),
        ("GRPC_ADDRESS", start.events),
        ("NAMESPACE", NAMESPACE),
        ("GOMAXPROCS", "2"),
        ("MAX_SHIM_VERSION", "3"),
    ];
    let ended = program::run_with(&mut command, Streams::Kept(input), shim.deadline(), &environment)
        .map_err(|source| BootstrapError::Run { path: shim.path.clone(), verb, source })?;
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    let said = last_line(&ended.stderr)
        .or_else(|| last_line(&ended.stdout))
        .unwrap_or_else(|| "it said nothing".into());
    Err(BootstrapError::Failed { path: shim.path.clone(), verb, status: ended.status, said })
}

/// What a shim says of itself when it has started.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    version: i32,
    address: String,
}

fn parse(said: &[u8]) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Json {
        version: i32,
        address: String,
        #[serde(default)]
        protocol: String,
    }
    let is_address = |text: &str| {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        path.starts_with('/') && !path.contains(char::is_control) && path.len() < 4096
    };
    let message = BootstrapResult::decode(said).ok().filter(|result| !result.address.is_empty());
    let text = std::str::from_utf8(said).unwrap_or_default().trim();
    let (version, address, protocol) = match message {
        Some(result) => (result.version, result.address, result.protocol),
        None => match serde_json::from_str::<Json>(text) {
            Ok(json) => (json.version, json.address, json.protocol),
            Err(_) if text.is_empty() => return Err("it printed no address".into()),
            Err(_) => (2, text.to_owned(), String::new()),
        },
    };
    if !protocol.is_empty() && protocol != "ttrpc" {
        return Err(format!("it speaks {protocol:?}; Pintle speaks ttrpc with shims"));
    }
    if !(2..=3).contains(&version) {
        return Err(format!("it is of version {version}; Pintle knows 2 and 3"));
    }
    if !is_address(&address) {
        let address: String = address.chars().take(200).collect();
        return Err(format!("the address that it printed is no path of a socket: {address:?}"));
    }
    Ok(Answer { version, address })
}

impl TaskShim {
    pub(super) fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_the_answer_is_understood() {
        let expected = |version| Answer { version, address: "unix:///run/s/a".into() };
        let result = BootstrapResult {
            version: 3,
            address: "unix:///run/s/a".into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        assert_eq!(parse(&result.encode_to_vec()).unwrap(), expected(3));
        let json = br#"{"version":3,"address":"unix:///run/s/a","protocol":"ttrpc"}"#;
        assert_eq!(parse(json).unwrap(), expected(3));
        assert_eq!(parse(b"unix:///run/s/a\n").unwrap(), expected(2));
        let grpc = br#"{"version":3,"address":"unix:///run/s/a","protocol":"grpc"}"#;
        assert!(parse(grpc).unwrap_err().contains("\"grpc\""));
        let newer = br#"{"version":9,"address":"unix:///run/s/a","protocol":"ttrpc"}"#;
        assert!(parse(newer).unwrap_err().contains("version 9"));
        assert!(parse(b"").unwrap_err().contains("no address"));
        assert!(parse(b"garbage").unwrap_err().contains("no path of a socket"));
        assert!(parse(b"{\"version\":3}").unwrap_err().contains("no path of a socket"));
    }

    proptest! {
        #[test]
        fn no_answer_is_too_odd(said in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(answer) = parse(&said) {
                prop_assert!(answer.address.contains('/'));
            }
        }
    }
}
