//! Bodies: read with a deadline by progress, and continued by `Range` where a connection broke.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use model::digest::Digest;
use tokio::sync::mpsc;

use super::session::Session;
use super::transport::Answer;
use crate::config::Timeouts;
use crate::error::PullCause;
use crate::pieces::Piece;

/// A connection that brings less than this before it breaks counts as a failed try.
const WORTHWHILE: u64 = 1 << 20;

/// A body as it arrives. Only time spent waiting for the registry counts against it, not time in which nobody asked for more.
pub(super) struct Body {
    body: Incoming,
    window: Duration,
    least: u64,
    waited: Duration,
    arrived: u64,
}

/// Why a body ended before its end.
pub(super) enum Broken {
    Stalled,
    Failed(String),
}

impl Broken {
    pub(super) fn cause(self, what: &str, host: &str, received: u64) -> PullCause {
        match self {
            Broken::Stalled => PullCause::Stalled { what: what.to_owned(), host: host.to_owned(), received },
            Broken::Failed(why) => PullCause::Unreachable {
                host: host.to_owned(),
                why: format!("the connection broke after {received} bytes of {what}: {why}"),
            },
        }
    }
}

impl Body {
    pub(super) fn new(body: Incoming, timeouts: &Timeouts) -> Body {
        Body { body, window: timeouts.stall, least: timeouts.stall_bytes, waited: Duration::ZERO, arrived: 0 }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
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

impl Session {
    /// Fetches a blob of `size` bytes and hands it on piece by piece. A broken connection is made again from where it broke.
    ///
    /// `arrived` is told how many bytes came. If nobody takes the pieces any more, it ends without an error.
    pub(crate) async fn download(
        &self,
        digest: &Digest,
        size: u64,
        to: &mpsc::Sender<Piece>,
        arrived: impl Fn(u64) + Send + Sync,
    ) -> Result<(), PullCause> {
        let what = format!("layer {digest}");
        let url = self.blob_url(digest);
        let timeouts = &self.client.timeouts;
        let (mut received, mut failures) = (0u64, 0u32);
        loop {
            let answer = self.get(&what, &url, None, received).await?;
            let before = received;
            // A registry without ranges begins anew: what is known already is dropped.
            let mut skip = received - start_of(&what, &answer, received)?;
            let mut body = Body::new(answer.into_body(), timeouts);
            let broken = loop {
                match body.next().await {
                    Ok(None) if received < size => break Broken::Failed("it ended early".into()),
                    Ok(None) => return Ok(()),
                    Err(broken) => break broken,
                    Ok(Some(mut chunk)) => {
                        let drop = skip.min(chunk.len() as u64);
                        skip -= drop;
                        chunk = chunk.slice(drop as usize..);
                        received += chunk.len() as u64;
                        if received > size {
                            return Err(PullCause::malformed(
                                what,
                                format!("it is longer than the {size} bytes the manifest says"),
                            ));
                        }
                        if chunk.is_empty() {
                            continue;
                        }
                        arrived(chunk.len() as u64);
                        if to.send(Piece::Bytes(chunk)).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            };
            failures = if received - before >= WORTHWHILE { 1 } else { failures + 1 };
            let cause = broken.cause(&what, &self.host, received);
            if let Ok(uri) = url.parse() {
                self.note(&uri, &cause.to_string());
            }
            if failures >= timeouts.tries {
                return Err(cause);
            }
            tokio::time::sleep(timeouts.backoff * 2u32.saturating_pow(failures - 1)).await;
        }
    }
}

/// Where an answer to a request from byte `asked` on begins.
fn start_of(what: &str, answer: &Answer, asked: u64) -> Result<u64, PullCause> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    match start {
        Some(start) if start <= asked => Ok(start),
        _ => Err(PullCause::malformed(what, "the registry sent another range than was asked for")),
    }
}
