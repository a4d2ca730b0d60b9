//! The body of an answer, read with a deadline by progress.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::error::RegistryError;

/// A body as it arrives. Only time spent waiting for the registry counts against it, not time in which nobody asked for more.
pub(crate) struct Body {
    body: Incoming,
    window: Duration,
    least: u64,
    waited: Duration,
    arrived: u64,
}

/// Why a body ended before its end.
pub(crate) enum Broken {
    Stalled,
    Failed(String),
}

impl Broken {
    pub(crate) fn cause(self, what: &str, host: &str, received: u64) -> RegistryError {
        match self {
            Broken::Stalled => {
                RegistryError::Stalled { what: what.to_owned(), host: host.to_owned(), received }
            }
            Broken::Failed(why) => RegistryError::Unreachable {
                host: host.to_owned(),
                why: format!("the connection broke after {received} bytes of {what}: {why}"),
            },
        }
    }
}

impl Body {
    /// Within each `window` of waiting, at least so many bytes have to arrive.
    pub(crate) fn new(body: Incoming, window: Duration, least: u64) -> Body {
        Body { body, window, least, waited: Duration::ZERO, arrived: 0 }
    }

    /// The next bytes; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            let before = Instant::now();
            let frame =
                tokio::time::timeout(self.window.saturating_sub(self.waited), self.body.frame()).await;
            self.waited += before.elapsed();
            let bytes = match frame {
                Err(_) => Bytes::new(),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    return Err(Broken::Failed(source.unwrap_or_else(|| error.to_string())));
                }
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.arrived += bytes.len() as u64;
            if self.waited >= self.window {
                if self.arrived < self.least {
                    return Err(Broken::Stalled);
                }
                (self.waited, self.arrived) = (Duration::ZERO, 0);
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }
}
