//! Where the runtime listens: the `--endpoint` value and its spellings.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The socket of `pintle serve` when nobody says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/pintle/pintle.sock";

/// A CRI socket on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    socket: PathBuf,
}

/// Why a text names no CRI socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEndpoint {
    #[error("is empty")]
    Empty,
    #[error("has the scheme {0:?}; a CRI endpoint is a unix socket such as unix:///run/pintle/pintle.sock")]
    Scheme(String),
    #[error("is not an absolute path; write it as unix:///run/pintle/pintle.sock or /run/pintle/pintle.sock")]
    Relative,
}

impl Endpoint {
    /// The file of the socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl From<PathBuf> for Endpoint {
    fn from(socket: PathBuf) -> Endpoint {
        Endpoint { socket }
    }
}

impl Default for Endpoint {
    fn default() -> Endpoint {
        Endpoint { socket: DEFAULT_SOCKET.into() }
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    /// Accepts `unix:///path`, `unix:/path` and `/path`, as the kubelet and crictl do.
    fn from_str(text: &str) -> Result<Endpoint, BadEndpoint> {
        let path = match text.split_once(':') {
            Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            Some((scheme, _)) if !scheme.contains('/') => return Err(BadEndpoint::Scheme(scheme.to_owned())),
            _ => text,
        };
        match path {
            "" => Err(BadEndpoint::Empty),
            path if path.starts_with('/') => Ok(Endpoint { socket: path.into() }),
            _ => Err(BadEndpoint::Relative),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "unix://{}", self.socket.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_names_the_same_socket() {
        for text in ["unix:///run/x.sock", "unix:/run/x.sock", "/run/x.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().socket(), Path::new("/run/x.sock"), "{text}");
        }
    }

    #[test]
    fn what_is_no_unix_socket_is_refused_with_the_reason() {
        assert_eq!("tcp://10.0.0.1:1".parse::<Endpoint>(), Err(BadEndpoint::Scheme("tcp".into())));
        assert_eq!("run/x.sock".parse::<Endpoint>(), Err(BadEndpoint::Relative));
        assert_eq!("".parse::<Endpoint>(), Err(BadEndpoint::Empty));
        assert_eq!("unix://".parse::<Endpoint>(), Err(BadEndpoint::Empty));
    }

    #[test]
    fn a_colon_in_a_path_is_part_of_the_path() {
        assert_eq!("/run/a:b.sock".parse::<Endpoint>().unwrap().socket(), Path::new("/run/a:b.sock"));
    }
}
