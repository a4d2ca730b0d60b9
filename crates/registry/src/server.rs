//! The HTTP side: which request gets which answer.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::{Asked, Blob, Fault, Registry, auth, lock};

const CHUNK: usize = 64 << 10;

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

type Body = http_body_util::combinators::BoxBody<Bytes, io::Error>;

pub(crate) async fn serve(registry: Arc<Registry>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let registry = Arc::clone(&registry);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(Arc::clone(&registry), request));
            // A client that goes away in the middle is no news.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(registry: Arc<Registry>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let asked = note(&registry, &request);
    let hook = lock(&registry.hook).clone();
    let fault = hook.and_then(|hook| hook(&asked));
    if let Some(Fault::Answer { status, headers, body }) = fault {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(name, value);
        }
        return response.body(full(body)).map_err(io::Error::other);
    }
    if matches!(fault, Some(Fault::HangUp)) {
        return Err(io::Error::other("asked to hang up"));
    }
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if path == "/token" {
        let body = Limited::new(body, 64 << 10).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let (status, text) = auth::token(&registry, &parts.method, &parts.headers, &body);
        return respond(status, "application/json", text.into_bytes());
    }
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return respond(StatusCode::METHOD_NOT_ALLOWED, "application/json", Vec::new());
    }
    let host = parts.headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("");
    let (repository, _) = split(path).unwrap_or(("", What::Other));
    if let Some(challenge) = auth::challenge(&registry, &parts.headers, host, repository) {
        return Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, challenge)
            .body(full(b"{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}".to_vec()))
            .map_err(io::Error::other);
    }
    let head = parts.method == Method::HEAD;
    match split(path) {
        Some((repository, What::Manifest(reference))) => {
            manifest(&registry, repository, reference, head, fault)
        }
        Some((_, What::Blob(digest))) => blob(&registry, digest, &parts.headers, head, fault).await,
        Some((repository, What::Tags)) => {
            let tags = lock(&registry.contents).tags(repository);
            let body = serde_json::json!({ "name": repository, "tags": tags }).to_string();
            respond(StatusCode::OK, "application/json", body.into_bytes())
        }
        Some((_, What::Other)) => respond(StatusCode::OK, "application/json", b"{}".to_vec()),
        None => missing("NAME_UNKNOWN"),
    }
}

fn note(registry: &Registry, request: &Request<Incoming>) -> Asked {
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let target = request.uri().path_and_query().map(|t| t.as_str().to_owned()).unwrap_or_default();
    let mut log = lock(&registry.log);
    let asked = Asked {
        method: request.method().to_string(),
        before: log.iter().filter(|earlier| earlier.target == target).count(),
        target,
        authorization: text(header::AUTHORIZATION),
        range: text(header::RANGE),
    };
    log.push(asked.clone());
    asked
}

enum What<'a> {
    Manifest(&'a str),
    Blob(&'a str),
    Tags,
    /// `/v2/` itself.
    Other,
}

fn split(path: &str) -> Option<(&str, What<'_>)> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(("", What::Other));
    }
    if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
        return Some((repository, What::Manifest(reference)));
    }
    if let Some((repository, digest)) = rest.rsplit_once("/blobs/") {
        return Some((repository, What::Blob(digest)));
    }
    Some((rest.strip_suffix("/tags/list")?, What::Tags))
}

fn manifest(
    registry: &Registry,
    repository: &str,
    reference: &str,
    head: bool,
    fault: Option<Fault>,
) -> Result<Response<Body>, io::Error> {
    let Some((digest, manifest)) = lock(&registry.contents).manifest(repository, reference) else {
        return missing("MANIFEST_UNKNOWN");
    };
    let length = manifest.body.len();
    let response = Response::builder()
        .header(header::CONTENT_TYPE, manifest.media_type)
        .header("Docker-Content-Digest", digest)
        .header(header::CONTENT_LENGTH, length);
    let body =
        if head { full(Vec::new()) } else { feed(Blob::Memory(manifest.body), 0, length as u64, fault) };
    response.body(body).map_err(io::Error::other)
}

async fn blob(
    registry: &Registry,
    digest: &str,
    headers: &HeaderMap,
    head: bool,
    fault: Option<Fault>,
) -> Result<Response<Body>, io::Error> {
    let Some(blob) = lock(&registry.contents).blob(digest) else {
        return missing("BLOB_UNKNOWN");
    };
    let size = match &blob {
        Blob::Memory(bytes) => bytes.len() as u64,
        Blob::File(path) => tokio::fs::metadata(path).await?.len(),
    };
    let range = headers
        .get(header::RANGE)
        .filter(|_| !matches!(fault, Some(Fault::IgnoreRange)))
        .and_then(|v| v.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'))
        .and_then(|(from, to)| {
            let to = if to.is_empty() { size.checked_sub(1)? } else { to.parse().ok()? };
            Some((from.parse::<u64>().ok()?, to.min(size.checked_sub(1)?)))
        });
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("Docker-Content-Digest", digest)
        .header(header::ACCEPT_RANGES, "bytes");
    let (from, end) = match range {
        None => (0, size),
        Some((from, to)) if from <= to => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{size}"));
            (from, to + 1)
        }
        Some(_) => return respond(StatusCode::RANGE_NOT_SATISFIABLE, "application/json", Vec::new()),
    };
    response = response.header(header::CONTENT_LENGTH, end - from);
    let body = if head { full(Vec::new()) } else { feed(blob, from, end, fault) };
    response.body(body).map_err(io::Error::other)
}

/// A body with the bytes from `from` to `end`, spoilt as the fault says.
fn feed(blob: Blob, from: u64, end: u64, fault: Option<Fault>) -> Body {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        if let Err(error) = pour(&sender, blob, from, end, fault).await {
            let _ = sender.send(Err(error)).await;
        }
    });
    Chunks(receiver).boxed()
}

async fn pour(
    sender: &mpsc::Sender<Chunk>,
    blob: Blob,
    from: u64,
    end: u64,
    fault: Option<Fault>,
) -> Result<(), io::Error> {
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
            return Err(io::Error::other("asked to truncate"));
        }
        let mut chunk = match (&blob, &mut file) {
            (Blob::Memory(bytes), _) => bytes.slice(at as usize..at as usize + size),
            (_, Some(file)) => {
                let mut buffer = vec![0; size];
                file.read_exact(&mut buffer).await?;
                buffer.into()
            }
            (Blob::File(_), None) => return Err(io::Error::other("not open")),
        };
        if matches!(fault, Some(Fault::Corrupt)) && at == from {
            let mut bytes = chunk.to_vec();
            bytes[size / 2] ^= 1;
            chunk = bytes.into();
        }
        at += size as u64;
        if sender.send(Ok(Frame::data(chunk))).await.is_err() {
            return Ok(());
        }
        if let Some(Fault::Trickle { pause, .. }) = fault {
            tokio::time::sleep(pause).await;
        }
    }
    Ok(())
}

fn respond(status: StatusCode, kind: &str, body: Vec<u8>) -> Result<Response<Body>, io::Error> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, kind)
        .body(full(body))
        .map_err(io::Error::other)
}

fn missing(code: &str) -> Result<Response<Body>, io::Error> {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": "not here" }] }).to_string();
    respond(StatusCode::NOT_FOUND, "application/json", body.into_bytes())
}

fn full(bytes: Vec<u8>) -> Body {
    http_body_util::Full::new(Bytes::from(bytes)).map_err(|never: Infallible| match never {}).boxed()
}
