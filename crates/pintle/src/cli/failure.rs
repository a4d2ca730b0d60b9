//! Why a command failed, in words that say what to do about it.

use super::endpoint::{BadEndpoint, Endpoint};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Exit code of a command that could not do what it was asked; 2 is a usage error.
pub(crate) const FAILED: u8 = 1;

/// Exit code of `run` and `exec` when the failure is ours and not that of the program they ran.
pub(crate) const FAILED_BEFORE_THE_PROGRAM: u8 = 125;

/// One reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("nothing listens at {endpoint}")]
    NoRuntime { endpoint: Endpoint, running_elsewhere: Vec<Endpoint> },
    #[error("the socket {} is there, but nothing listens on it", .endpoint.socket().display())]
    Deserted { endpoint: Endpoint },
    #[error("no permission to use {}", .endpoint.socket().display())]
    Denied { endpoint: Endpoint },
    #[error("connecting to {endpoint}: {source}")]
    Connect { endpoint: Endpoint, source: io::Error },
    #[error("the endpoint {given:?} {why}")]
    Endpoint { given: String, why: BadEndpoint },
    #[error("{what}: {}", said(.status))]
    Call { what: String, status: Box<tonic::Status> },
    #[error("no {kind} is called {given:?}")]
    Unknown { kind: &'static str, given: String, similar: Vec<String> },
    #[error("{given:?} could be any of {}", .candidates.join(", "))]
    Ambiguous { given: String, candidates: Vec<String> },
    #[error("{what} {name} is running")]
    Running { what: &'static str, name: String },
    #[error("the image {image} is used by {}", .users.join(", "))]
    ImageInUse { image: String, users: Vec<String> },
    #[error("{images} images are damaged")]
    Damaged { images: usize },
    #[error("{what}: {}: {source}", .path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("writing the output: {0}")]
    Output(io::Error),
    #[error("reading standard input: {0}")]
    Input(io::Error),
    #[error("listening for signals: {0}")]
    Signals(io::Error),
    #[error("listening on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Streaming(Box<stream::client::ClientError>),
    /// What the other end of a stream says of its end.
    #[error("{0}")]
    Session(String),
    /// What this machine's files say of registries is wrong, or blocks what was asked about.
    #[error("{0}")]
    Route(Box<distribution::RouteError>),
    #[error("{0}")]
    Config(crate::config::ConfigError),
    #[error("{0}")]
    Usage(String),
    /// The command itself went well, and some of the things it was given failed; each was already reported.
    #[error("{failed} of {total} failed")]
    Some { failed: usize, total: usize },
    #[error("interrupted")]
    Interrupted,
}

/// What a server said; some say nothing beside the code. Of a pull, each request has a line of its own.
fn said(status: &tonic::Status) -> String {
    match (status.message(), status.message().split_once(image::TRIED)) {
        ("", _) => format!("{}", status.code()),
        (_, Some((said, tried))) => format!("{said}; tried, in this order:{}", lines(tried)),
        (message, None) => message.to_owned(),
    }
}

/// `(1) a; (2) b`, a line each.
fn lines(tried: &str) -> String {
    let mut text = String::new();
    let mut rest = tried.strip_prefix("(1) ");
    for number in 1.. {
        let Some(more) = rest else { break };
        let (one, more) = match more.split_once(&format!("; ({}) ", number + 1)) {
            Some((one, more)) => (one, Some(more)),
            None => (more, None),
        };
        text.push_str(&format!("\n  {number}  {one}"));
        rest = more;
    }
    text
}

impl Failure {
    /// What the reader can do now, when there is something to say.
    pub(crate) fn advice(&self) -> Option<String> {
        match self {
            Failure::NoRuntime { running_elsewhere, .. } => Some(no_runtime_advice(running_elsewhere)),
            Failure::Deserted { .. } => {
                Some("Its daemon has stopped or was killed. Start it again: sudo pintle serve".into())
            }
            Failure::Denied { .. } => {
                Some("A container runtime gives whoever reaches it the whole machine, so the socket is root's. Run the same with sudo.".into())
            }
            Failure::Call { status, .. } => call_advice(status),
            Failure::Unknown { kind, similar, .. } => Some(unknown_advice(kind, similar)),
            Failure::Ambiguous { .. } => Some("Give more of the id, or POD/CONTAINER.".into()),
            Failure::Running { name, .. } => {
                Some(format!("Stop it first (pintle stop {name}), or use --force."))
            }
            Failure::ImageInUse { .. } => Some(
                "Remove those first (pintle rm), or use --force: they keep what they stand on, and its disk space goes with the last of them.".into(),
            ),
            Failure::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("Run the same with sudo.".into())
            }
            Failure::Connect { .. }
            | Failure::Endpoint { .. }
            | Failure::File { .. }
            | Failure::Output(_)
            | Failure::Input(_)
            | Failure::Signals(_)
            | Failure::Listen { .. }
            | Failure::Streaming(_)
            | Failure::Session(_)
            | Failure::Route(_)
            | Failure::Config(_)
            | Failure::Usage(_)
            | Failure::Some { .. }
            | Failure::Damaged { .. }
            | Failure::Interrupted => None,
        }
    }

    /// The process's exit code for this failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Endpoint { .. } => 2,
            Failure::Interrupted => 130,
            _ => FAILED,
        }
    }

    /// Writes the failure and its advice to standard error.
    pub(crate) fn report(&self) {
        eprintln!("pintle: {self}");
        if let Some(advice) = self.advice() {
            eprintln!("  {advice}");
        }
    }
}

fn no_runtime_advice(running_elsewhere: &[Endpoint]) -> String {
    let start =
        "Start the daemon: sudo pintle serve (or, installed as a service: sudo systemctl start pintle).";
    match running_elsewhere {
        [] => start.to_owned(),
        others => {
            let others: Vec<String> = others.iter().map(|other| format!("--endpoint {other}")).collect();
            format!("{start}\n  Other runtimes have a socket on this machine: {}", others.join("  or  "))
        }
    }
}

fn call_advice(status: &tonic::Status) -> Option<String> {
    match status.code() {
        tonic::Code::Unimplemented => {
            Some("This runtime does not offer that call of CRI runtime.v1; is it old, or is its CRI plugin disabled?".into())
        }
        // Here it is a registry that permits something not.
        tonic::Code::PermissionDenied if status.message().starts_with("pull ") => None,
        tonic::Code::PermissionDenied => Some("Run the same with sudo.".into()),
        // How CRI says that it is the registry which cannot be reached.
        _ if status.message().starts_with("RegistryUnavailable") => Some(
            "Is the registry's name right, and can this machine reach it? A registry of plain HTTP elsewhere than on loopback is named in image.insecure_registries. `pintle registry explain IMAGE` shows what is asked.".into(),
        ),
        // A daemon that names the pod has not gone away: the pod's network or shim has, and the message says what to do.
        tonic::Code::Unavailable if status.message().starts_with("pod ") => None,
        tonic::Code::Unavailable => Some("The daemon went away or is still starting; `pintle info` tells whether it is ready.".into()),
        _ => None,
    }
}

fn unknown_advice(kind: &str, similar: &[String]) -> String {
    let listing = match kind {
        "image" => "pintle images",
        "manifest" => "pintle images inspect IMAGE",
        "pod" => "pintle pods",
        _ => "pintle ps --all",
    };
    match similar {
        [] => format!("`{listing}` shows what there is."),
        similar => format!("Did you mean {}? `{listing}` shows what there is.", similar.join(" or ")),
    }
}

/// Turns the answer of a call into its message, or says which call on which object failed.
pub(crate) trait Explain<T> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Explain<T> for Result<tonic::Response<T>, tonic::Status> {
    fn explain(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        match self {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => Err(Failure::Call { what: what(), status: Box::new(status) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_daemon_says_how_to_start_it_and_what_else_is_there() {
        let failure = Failure::NoRuntime {
            endpoint: Endpoint::default(),
            running_elsewhere: vec!["/run/containerd/containerd.sock".parse().unwrap()],
        };
        assert_eq!(failure.to_string(), "nothing listens at unix:///run/pintle/pintle.sock");
        let advice = failure.advice().unwrap();
        assert!(advice.contains("sudo pintle serve"), "{advice}");
        assert!(advice.contains("--endpoint unix:///run/containerd/containerd.sock"), "{advice}");
    }

    #[test]
    fn a_registry_that_is_away_is_not_the_daemon() {
        let call = |message: &str| {
            let status = Box::new(tonic::Status::unavailable(message));
            Failure::Call { what: "pulling x".into(), status }.advice()
        };
        assert!(call("RegistryUnavailable: pull \"x\": refused").unwrap().contains("registry"));
        assert!(call("transport error").unwrap().contains("pintle info"));
        assert_eq!(call("pod a: the network: no configuration; run `pintle network init`"), None);
    }

    #[test]
    fn a_status_without_a_message_is_not_shown_as_nothing() {
        let status = tonic::Status::not_found("");
        let failure = Failure::Call { what: "stopping x".into(), status: Box::new(status) };
        assert!(failure.to_string().len() > "stopping x: ".len());
    }

    #[test]
    fn what_was_tried_is_a_line_each() {
        let message = "pull \"a\": it fails; tried, in this order: (1) https://m/v2/a: 503; sorry (2 times); (2) https://r/v2/a: 404";
        let shown = said(&tonic::Status::not_found(message));
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[1..], ["  1  https://m/v2/a: 503; sorry (2 times)", "  2  https://r/v2/a: 404"]);
        assert_eq!(said(&tonic::Status::not_found("no such image")), "no such image");
    }
}
