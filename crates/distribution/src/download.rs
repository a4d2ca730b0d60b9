//! Bodies: read with a deadline by progress, and continued by `Range` where a connection broke.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::digest::Digest;

use crate::client::Answer;
use crate::conversation::Ask;
use crate::endpoint::Capability;
use crate::error::RegistryError;
use crate::range::Range;
use crate::session::{Session, Turn, Turns};

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

/// A blob as it arrives. A broken connection is made again from where it broke, in the end to another endpoint. The blob's digest is for
/// whoever takes the bytes to check.
pub struct Download<'a> {
    session: &'a Session,
    what: String,
    /// What is asked for, below the repository.
    of: String,
    size: u64,
    received: u64,
    /// Tries in a row that brought little.
    failures: u32,
    /// None before the first request.
    turns: Option<Turns<'a>>,
    turn: Option<Turn<'a>>,
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
        Download {
            session: self,
            what: what.into(),
            of: format!("blobs/{digest}"),
            size,
            received: 0,
            failures: 0,
            turns: None,
            turn: None,
            connection: None,
        }
    }
}

impl Download<'_> {
    /// The next bytes, in order; none when `size` bytes have come and the registry says that there are no more.
    ///
    /// # Errors
    /// [`RegistryError`] after as many tries as are worthwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            if self.connection.is_none() {
                self.connect().await?;
            }
            let Some(connection) = &mut self.connection else { continue };
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

    /// Connects to the endpoint whose turn it is, or to one that follows.
    async fn connect(&mut self) -> Result<(), RegistryError> {
        let (what, of, received) = (&self.what, &self.of, self.received);
        let mut turns = match self.turns.take() {
            Some(turns) => turns,
            None => self.session.turns(what, Capability::Pull)?,
        };
        while let Some(turn) = self.turn.take().or_else(|| turns.next()) {
            match connect(&turn, what, of, received).await {
                Ok(connection) => {
                    (self.turns, self.turn, self.connection) = (Some(turns), Some(turn), Some(connection));
                    return Ok(());
                }
                Err(why) => turns.failed(turn, why),
            }
            self.failures = 0;
        }
        Err(turns.failure(what))
    }

    /// Waits before the next connection, which is to the same endpoint unless there were tries enough.
    async fn recover(&mut self, broken: Broken) -> Result<(), RegistryError> {
        let before = self.connection.take().map_or(0, |connection| connection.before);
        self.failures = if self.received - before >= WORTHWHILE { 1 } else { self.failures + 1 };
        let (Some(turn), Some(turns)) = (self.turn, &mut self.turns) else { return Ok(()) };
        let cause = broken.cause(&self.what, turn.host(), self.received);
        turn.note(&self.of, &cause.to_string());
        let timeouts = &self.session.client.timeouts;
        if self.failures < turn.tries() {
            tokio::time::sleep(timeouts.backoff * 2u32.saturating_pow(self.failures - 1)).await;
            return Ok(());
        }
        if turn.last {
            return Err(cause);
        }
        turns.failed(turn, cause);
        (self.turn, self.failures) = (None, 0);
        Ok(())
    }
}

async fn connect(turn: &Turn<'_>, what: &str, of: &str, received: u64) -> Result<Connection, RegistryError> {
    let range = (received > 0).then_some(Range { from: received, last: None });
    let answer = turn.ask(of, &Ask::get(what, None).range(range)).await?;
    let skip = received - start_of(what, &answer, received)?;
    Ok(Connection { body: turn.body(answer), skip, before: received })
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
