//! A part of a blob as it arrives: continued where a connection broke, in the end by another endpoint, and never believed to be another
//! part than was asked for.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::{StatusCode, header};

use crate::body::{Body, Broken};
use crate::client::Answer;
use crate::connections::Permit;
use crate::conversation::Ask;
use crate::detours::Detours;
use crate::endpoint::Capability;
use crate::error::RegistryError;
use crate::range::{ContentRange, Range};
use crate::session::{Session, Turn, Turns};

/// A connection that brings less than this before it breaks counts as a failed try.
const WORTHWHILE: u64 = 1 << 20;

/// What is fetched.
pub(crate) struct Blob {
    /// As errors call it.
    pub what: String,
    /// What is asked for, below the repository.
    pub of: String,
    pub size: u64,
    /// The entity tag that each host gave it first.
    pub tags: Mutex<Vec<(String, String)>>,
    pub detours: Detours,
}

/// How a part is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// By its range: what comes must be that.
    Exactly,
    /// It is all the rest: by a range if something came before. A registry that sends the whole is as good.
    Rest,
    /// It is all the rest, and the ranges of this registry are no good: what came before comes again and is dropped.
    Whole,
}

/// Why a part did not come.
pub(crate) enum Stop {
    Failed(RegistryError),
    /// What came is not the range that was asked for.
    NoRanges,
}

/// A part that is being fetched.
pub(crate) struct Part<'a> {
    session: &'a Session,
    blob: &'a Blob,
    pub extent: Extent,
    next: u64,
    end: u64,
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
    /// What comes again.
    skip: u64,
    /// What had been received before it, and where it ends.
    before: u64,
    until: u64,
    _permit: Permit,
}

/// Why an answer is no good.
enum Bad {
    Failed(RegistryError),
    /// It has to do with the range.
    Odd(String),
}

impl<'a> Part<'a> {
    /// The bytes from `next` up to `end`.
    pub(crate) fn new(session: &'a Session, blob: &'a Blob, extent: Extent, next: u64, end: u64) -> Part<'a> {
        Part { session, blob, extent, next, end, failures: 0, turns: None, turn: None, connection: None }
    }

    /// The next bytes, in order; none at the end of the part. A part that begins the blob becomes the whole of it, [`Extent::Rest`], if the
    /// registry answers so.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        while self.next < self.end || self.connection.is_some() {
            if self.connection.is_none() {
                self.connect().await?;
            }
            let Some(connection) = &mut self.connection else { continue };
            let broken = match connection.body.next().await {
                Ok(None) if self.next < connection.until => Broken::Failed("it ended early".into()),
                Ok(None) => {
                    self.connection = None;
                    continue;
                }
                Err(broken) => broken,
                Ok(Some(mut chunk)) => {
                    let drop = connection.skip.min(chunk.len() as u64);
                    connection.skip -= drop;
                    chunk = chunk.slice(drop as usize..);
                    if self.next + chunk.len() as u64 > connection.until {
                        return Err(self.longer());
                    }
                    self.next += chunk.len() as u64;
                    if chunk.is_empty() {
                        continue;
                    }
                    return Ok(Some(chunk));
                }
            };
            self.recover(broken).await?;
        }
        Ok(None)
    }

    fn longer(&self) -> Stop {
        if self.extent == Extent::Exactly {
            self.note("it sent more than the range that was asked for");
            return Stop::NoRanges;
        }
        let why = format!("it is longer than the {} bytes the manifest says", self.blob.size);
        Stop::Failed(RegistryError::malformed(&self.blob.what, why))
    }

    fn note(&self, outcome: &str) {
        if let Some(turn) = &self.turn {
            turn.note(&self.blob.of, outcome);
        }
    }

    /// Connects to the endpoint whose turn it is, or to one that follows.
    async fn connect(&mut self) -> Result<(), Stop> {
        let what = &self.blob.what;
        let mut turns = match self.turns.take() {
            Some(turns) => turns,
            None => self.session.turns(what, Capability::Pull).map_err(Stop::Failed)?,
        };
        while let Some(turn) = self.turn.take().or_else(|| turns.next()) {
            match self.connect_to(turn).await {
                Ok(connection) => {
                    (self.turns, self.turn, self.connection) = (Some(turns), Some(turn), Some(connection));
                    return Ok(());
                }
                Err(Bad::Odd(why)) => {
                    turn.note(&self.blob.of, &why);
                    if self.extent == Extent::Exactly {
                        return Err(Stop::NoRanges);
                    }
                    (self.extent, self.turn) = (Extent::Whole, Some(turn));
                }
                Err(Bad::Failed(why)) => {
                    turns.failed(turn, why);
                    self.failures = 0;
                }
            }
        }
        Err(Stop::Failed(turns.failure(what)))
    }

    async fn connect_to(&mut self, turn: Turn<'a>) -> Result<Connection, Bad> {
        let range = match self.extent {
            Extent::Exactly => Some(Range { from: self.next, last: Some(self.end - 1) }),
            Extent::Rest if self.next > 0 => Some(Range { from: self.next, last: None }),
            Extent::Rest | Extent::Whole => None,
        };
        let permit = self.session.client.connections.acquire(turn.host()).await;
        let ask = Ask::get(&self.blob.what, None).range(range).by(&self.blob.detours);
        let answer = match turn.ask(&self.blob.of, &ask).await {
            Ok(answer) => answer,
            Err(RegistryError::Status { status: 416, .. }) if range.is_some() => {
                return Err(Bad::Odd("it says that there is no such range".into()));
            }
            Err(why) => return Err(Bad::Failed(why)),
        };
        let (from, until) = match (range, answer.status()) {
            (Some(range), StatusCode::PARTIAL_CONTENT) => self.judge(&turn, &answer, range)?,
            (None, StatusCode::PARTIAL_CONTENT) => {
                let why = "the registry sent a range of it, and none was asked for";
                return Err(Bad::Failed(RegistryError::malformed(&self.blob.what, why)));
            }
            _ => self.judge_whole(&answer)?,
        };
        Ok(Connection {
            body: turn.body(answer),
            skip: self.next - from,
            before: self.next,
            until,
            _permit: permit,
        })
    }

    /// Where the range that came begins and ends, if it is the one that was asked for, of the same blob as before.
    fn judge(&self, turn: &Turn<'_>, answer: &Answer, asked: Range) -> Result<(u64, u64), Bad> {
        let Some(came) = ContentRange::of(answer.headers()) else {
            return Err(Bad::Odd("it does not say which range it sent".into()));
        };
        let is_within = came.from == asked.from && came.last <= asked.last.unwrap_or(self.blob.size - 1);
        if !is_within || came.total.is_some_and(|total| total != self.blob.size) {
            let size = self.blob.size;
            return Err(Bad::Odd(format!("it sent {came} where {asked} of {size} was asked for")));
        }
        let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        // A weak tag does not speak of bytes.
        if let Some(tag) = tag.filter(|tag| !tag.starts_with("W/")) {
            let mut tags = self.blob.tags.lock().unwrap_or_else(PoisonError::into_inner);
            match tags.iter().find(|(host, _)| host == turn.host()) {
                Some((_, first)) if first != tag => {
                    let cut = |tag: &str| tag.chars().take(80).collect::<String>();
                    let (first, tag) = (cut(first), cut(tag));
                    return Err(Bad::Odd(format!("it changed meanwhile: its ETag was {first} and is {tag}")));
                }
                Some(_) => {}
                None => tags.push((turn.host().to_owned(), tag.to_owned())),
            }
        }
        Ok((came.from, came.last + 1))
    }

    /// The same for an answer that is the whole blob.
    fn judge_whole(&mut self, answer: &Answer) -> Result<(u64, u64), Bad> {
        let (size, length) = (self.blob.size, answer.headers().get(header::CONTENT_LENGTH));
        let length: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
        if let Some(length) = length.filter(|length| *length != size) {
            let why = format!("the registry says that it has {length} bytes, and the manifest says {size}");
            return Err(Bad::Failed(RegistryError::malformed(&self.blob.what, why)));
        }
        if self.extent == Extent::Exactly {
            if self.next > 0 {
                return Err(Bad::Odd("it sent the whole where a range was asked for".into()));
            }
            (self.extent, self.end) = (Extent::Rest, size);
        }
        Ok((0, size))
    }

    /// Waits before the next connection, which is to the same endpoint unless there were tries enough.
    async fn recover(&mut self, broken: Broken) -> Result<(), Stop> {
        let before = self.connection.take().map_or(0, |connection| connection.before);
        self.failures = if self.next - before >= WORTHWHILE { 1 } else { self.failures + 1 };
        let (Some(turn), Some(turns)) = (self.turn, &mut self.turns) else { return Ok(()) };
        let cause = broken.cause(&self.blob.what, turn.host(), self.next);
        turn.note(&self.blob.of, &cause.to_string());
        let timeouts = &self.session.client.timeouts;
        if self.failures < turn.tries() {
            tokio::time::sleep(timeouts.backoff * 2u32.saturating_pow(self.failures - 1)).await;
            return Ok(());
        }
        if turn.last {
            return Err(Stop::Failed(cause));
        }
        turns.failed(turn, cause);
        (self.turn, self.failures) = (None, 0);
        Ok(())
    }
}
