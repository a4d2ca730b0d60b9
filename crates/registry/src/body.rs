//! Bodies of answers: whole, or fed piece by piece and spoilt as a fault says.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;

use crate::{Blob, Fault, Registry};

const CHUNK: usize = 64 << 10;
/// A body that ends wrongly closes the connection, and takes along what was not sent yet.
const FLUSH: Duration = Duration::from_millis(20);

pub(crate) type Body = http_body_util::combinators::BoxBody<Bytes, io::Error>;
pub(crate) type Answer = Result<Response<Body>, io::Error>;
type Chunk = Result<Frame<Bytes>, io::Error>;

/// A body that is fed through a channel.
struct Chunks(mpsc::Receiver<Chunk>);

impl hyper::body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Chunk>> {
        self.0.poll_recv(context)
    }
}

/// The bytes of `blob` from `from` to `end`.
pub(crate) fn feed(registry: &Arc<Registry>, blob: Blob, from: u64, end: u64, fault: Option<Fault>) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    let registry = Arc::clone(registry);
    tokio::spawn(async move {
        if let Err(error) = pour(&registry, &sender, blob, from, end, fault).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    Chunks(receiver).boxed()
}

async fn pour(
    registry: &Registry,
    sender: &mpsc::Sender<Chunk>,
    mut blob: Blob,
    from: u64,
    end: u64,
    fault: Option<Fault>,
) -> Result<(), io::Error> {
    if let Some(Fault::Body(other)) = &fault {
        blob = Blob::Memory(other.clone());
    }
    let mut file = match &blob {
        Blob::File(path) => {
            let mut file = tokio::fs::File::open(path).await?;
            file.seek(io::SeekFrom::Start(from)).await?;
            Some(file)
        }
        Blob::Memory(_) => None,
    };
    let step = match fault {
        Some(Fault::Trickle { bytes, .. }) => bytes.max(1),
        _ => CHUNK,
    };
    let mut at = from;
    while at < end {
        let mut size = step.min(usize::try_from(end - at).unwrap_or(step));
        if let Some(Fault::Truncate(limit) | Fault::Stall(limit)) = fault {
            size = size.min((from + limit as u64).saturating_sub(at) as usize);
        }
        if size == 0 {
            if matches!(fault, Some(Fault::Stall(_))) {
                sender.closed().await;
            }
            tokio::time::sleep(FLUSH).await;
            return Err(io::Error::other("asked to truncate"));
        }
        let mut chunk = match (&blob, &mut file) {
            (Blob::Memory(bytes), _) => {
                let there = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                bytes.slice(there(at)..there(at + size as u64))
            }
            (_, Some(file)) => {
                let mut buffer = vec![0; size];
                file.read_exact(&mut buffer).await?;
                buffer.into()
            }
            (Blob::File(_), None) => return Err(io::Error::other("not open")),
        };
        if chunk.is_empty() {
            return Err(io::Error::other("the other body is shorter"));
        }
        if matches!(fault, Some(Fault::Corrupt)) && at == from {
            let mut bytes = chunk.to_vec();
            bytes[size / 2] ^= 1;
            chunk = bytes.into();
        }
        at += size as u64;
        registry.pace(size).await;
        if sender.send(Ok(Frame::data(chunk))).await.is_err() {
            return Ok(());
        }
        if let Some(Fault::Trickle { pause, .. }) = fault {
            tokio::time::sleep(pause).await;
        }
    }
    if matches!(fault, Some(Fault::Headers(_))) {
        tokio::time::sleep(FLUSH).await;
    }
    Ok(())
}

/// Blanks for ever.
pub(crate) fn endless() -> Body {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let blanks = Bytes::from(vec![b' '; CHUNK]);
        while sender.send(Ok(Frame::data(blanks.clone()))).await.is_ok() {
            // The clients of tests are on the same few threads.
            tokio::time::sleep(Duration::from_micros(10)).await;
        }
    });
    Chunks(receiver).boxed()
}

/// An answer without a body.
pub(crate) fn bare(status: StatusCode, headers: &[(&str, &str)]) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(full(Vec::new())).map_err(io::Error::other)
}

pub(crate) fn json(status: StatusCode, body: impl ToString) -> Answer {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(full(body.to_string().into_bytes()))
        .map_err(io::Error::other)
}

/// An error as the distribution specification has it, such as `BLOB_UNKNOWN`.
pub(crate) fn refuse(status: StatusCode, code: &str) -> Answer {
    json(status, serde_json::json!({ "errors": [{ "code": code, "message": "refused" }] }))
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}
