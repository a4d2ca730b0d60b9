//! Bodies: read with a deadline by progress, and continued by `Range` where a connection broke.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::digest::Digest;

use crate::client::Answer;
use crate::error::RegistryError;
use crate::range::Range;
use crate::session::Session;
use crate::timeouts::Timeouts;

/// A connection that brings less than this before it breaks counts as a failed try.
const WORTHWHILE: u64 = 1 << 20;

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
    pub(crate) fn new(body: Incoming, timeouts: &Timeouts) -> Body {
        Body { body, window: timeouts.stall, least: timeouts.stall_bytes, waited: Duration::ZERO, arrived: 0 }
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

/// A blob as it arrives. A broken connection is made again from where it broke. Its digest is for whoever takes the bytes to check.
pub struct Download<'a> {
    session: &'a Session,
    what: String,
    url: String,
    size: u64,
    received: u64,
    /// Tries in a row that brought little.
    failures: u32,
    connection: Option<Connection>,
}

/// One answer's body.
struct Connection {
    body: Body,
    /// What comes again, since a registry without ranges begins anew.
    skip: u64,
    /// What had been received before it.
    before: u64,
}

impl Session {
    /// Begins to fetch a blob of `size` bytes, which errors call `what`.
    pub fn download(&self, what: impl Into<String>, digest: &Digest, size: u64) -> Download<'_> {
        let (what, url) = (what.into(), self.blob_url(digest));
        Download { session: self, what, url, size, received: 0, failures: 0, connection: None }
    }
}

impl Download<'_> {
    /// The next bytes, in order; none when `size` bytes have come and the registry says that there are no more.
    ///
    /// # Errors
    /// [`RegistryError`] after as many tries as are worthwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let connection = match &mut self.connection {
                Some(connection) => connection,
                none => none.insert(self.session.connect(&self.what, &self.url, self.received).await?),
            };
            let broken = match connection.body.next().await {
                Ok(None) if self.received < self.size => Broken::Failed("it ended early".into()),
                Ok(None) => return Ok(None),
                Err(broken) => broken,
                Ok(Some(mut chunk)) => {
                    let drop = connection.skip.min(chunk.len() as u64);
                    connection.skip -= drop;
                    chunk = chunk.slice(drop as usize..);
                    self.received += chunk.len() as u64;
                    if self.received > self.size {
                        let why = format!("it is longer than the {} bytes the manifest says", self.size);
                        return Err(RegistryError::malformed(&self.what, why));
                    }
                    if chunk.is_empty() {
                        continue;
                    }
                    return Ok(Some(chunk));
                }
            };
            self.recover(broken).await?;
        }
    }

    /// Waits before the next connection, unless there were tries enough.
    async fn recover(&mut self, broken: Broken) -> Result<(), RegistryError> {
        let session = self.session;
        let before = self.connection.take().map_or(0, |connection| connection.before);
        self.failures = if self.received - before >= WORTHWHILE { 1 } else { self.failures + 1 };
        let cause = broken.cause(&self.what, &session.host, self.received);
        if let Ok(uri) = self.url.parse() {
            session.note(&uri, &cause.to_string());
        }
        let timeouts = &session.client.timeouts;
        if self.failures >= timeouts.tries {
            return Err(cause);
        }
        tokio::time::sleep(timeouts.backoff * 2u32.saturating_pow(self.failures - 1)).await;
        Ok(())
    }
}

impl Session {
    async fn connect(&self, what: &str, url: &str, received: u64) -> Result<Connection, RegistryError> {
        let range = (received > 0).then_some(Range { from: received, last: None });
        let answer = self.get(what, url, None, range).await?;
        let skip = received - start_of(what, &answer, received)?;
        Ok(Connection { body: Body::new(answer.into_body(), &self.client.timeouts), skip, before: received })
    }
}

/// Where an answer to a request from byte `asked` on begins.
fn start_of(what: &str, answer: &Answer, asked: u64) -> Result<u64, RegistryError> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    match start {
        Some(start) if start <= asked => Ok(start),
        _ => Err(RegistryError::malformed(what, "the registry sent another range than was asked for")),
    }
}
