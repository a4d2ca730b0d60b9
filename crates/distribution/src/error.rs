//! Why a registry did not give what was asked of it, and what every request on the way was answered.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use http::Uri;
use model::digest::Digest;

use crate::conversation::shown;

/// Attempts that are kept for the error, and characters of a URL and of an outcome: all of it travels in a header of gRPC.
const ATTEMPTS_MAX: usize = 16;
const TEXT_MAX: usize = 240;

/// One request and what became of it. The URL has no query, since a redirect's may hold a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub url: String,
    pub outcome: String,
    /// How often.
    pub times: u32,
}

/// The failed requests of a conversation with several endpoints, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<Vec<Attempt>>);

impl Attempts {
    pub(crate) fn all(&self) -> Vec<Attempt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, uri: &Uri, outcome: &str) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
        let (url, outcome) = (cut(&shown(uri)), cut(outcome));
        // The same may be tried for several layers at once, in turns.
        let known = attempts.iter_mut().rev().find(|known| known.url == url && known.outcome == outcome);
        if let Some(known) = known {
            known.times += 1;
        } else if attempts.len() < ATTEMPTS_MAX {
            attempts.push(Attempt { url, outcome, times: 1 });
        }
    }
}

/// What came of asking a registry. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    #[error("{what} does not exist on {host}, or needs credentials")]
    NotFound { what: String, host: String },
    #[error("{host} refused the credentials{}", if *.given { "" } else { ": none were given and it asks for some" })]
    Unauthorized { host: String, given: bool },
    #[error("{host} asks for credentials, and those configured for it cannot be had: {why}")]
    NoCredentials { host: String, why: String },
    #[error("nothing configured may be asked {action} {what}: see `pintle registry explain`")]
    NoEndpoint { what: String, action: &'static str },
    #[error("{host} does not permit access to {what}")]
    Forbidden { what: String, host: String },
    #[error("{host} cannot be reached: {why}")]
    Unreachable { host: String, why: String },
    #[error("{host} limits the rate of requests; it asked to wait {} s", .retry_after_secs.unwrap_or(0))]
    TooManyRequests { host: String, retry_after_secs: Option<u64> },
    #[error("{host} answered {status} for {what}")]
    Status { what: String, host: String, status: u16 },
    #[error("{host} stopped sending {what} after {received} bytes")]
    Stalled { what: String, host: String, received: u64 },
    #[error("a redirect of {what} to {to} is not followed: {why}")]
    BadRedirect { what: String, to: String, why: &'static str },
    #[error("{what} has digest {actual}, not {expected}: what the registry sent is not what was asked for")]
    DigestMismatch { what: String, expected: Digest, actual: Digest },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("{what} is malformed: {why}")]
    Malformed { what: String, why: String },
}

impl RegistryError {
    /// Whether it is the registry that failed, and not the request: what CRI calls `RegistryUnavailable`.
    pub fn is_unavailable(&self) -> bool {
        match self {
            RegistryError::Unreachable { .. } | RegistryError::Stalled { .. } => true,
            RegistryError::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, why: impl fmt::Display) -> RegistryError {
        RegistryError::Malformed { what: what.into(), why: why.to_string() }
    }
}
