//! The HTTP side: connections, and which request goes where.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::auth::Visitor;
use crate::body::{self, Answer, full};
use crate::{Asked, Fault, Registry, auth, lock, pull, push};

/// Accepts connections for ever.
pub(crate) async fn serve(registry: Arc<Registry>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        tokio::spawn(converse(Arc::clone(&registry), stream, Line { scheme: "http", certified: false }));
    }
}

/// What is known of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Line {
    pub scheme: &'static str,
    /// Whether the client showed a certificate.
    pub certified: bool,
}

/// Answers what comes over one connection.
pub(crate) async fn converse<S>(registry: Arc<Registry>, stream: S, line: Line)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| answer(Arc::clone(&registry), request, line));
    // A client that goes away in the middle is no news.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(registry: Arc<Registry>, request: Request<Incoming>, line: Line) -> Answer {
    let asked = note(&registry, &request, line);
    let fault = registry.fault(&asked);
    match fault {
        Some(Fault::Answer { status, headers, body }) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(full(body)).map_err(io::Error::other)
        }
        Some(Fault::Endless) => Ok(Response::new(body::endless())),
        Some(Fault::HangUp) => Err(io::Error::other("asked to hang up")),
        Some(Fault::Headers(headers)) => {
            let fault = Fault::Headers(headers.clone());
            let mut response = route(&registry, request, line, Some(fault)).await?;
            for (name, value) in headers {
                let name = HeaderName::try_from(name).map_err(io::Error::other)?;
                let value = HeaderValue::try_from(value).map_err(io::Error::other)?;
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        }
        fault => route(&registry, request, line, fault).await,
    }
}

async fn route(
    registry: &Arc<Registry>,
    request: Request<Incoming>,
    line: Line,
    fault: Option<Fault>,
) -> Answer {
    let (parts, body) = request.into_parts();
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or(""));
    if path == "/token" {
        let form = small(body).await;
        let form = String::from_utf8_lossy(&form);
        registry.add_form(&form);
        let (status, text) = auth::token(registry, &parts.method, &parts.headers, query, &form);
        return body::json(status, text);
    }
    let Some((repository, what)) = split(path) else {
        return body::refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    let reads = matches!(parts.method, Method::GET | Method::HEAD) && !matches!(what, What::Upload(_));
    let action = if reads { "pull" } else { "push" };
    let visitor = Visitor { headers: &parts.headers, scheme: line.scheme, repository, action };
    if let Some(challenge) = auth::challenge(registry, &visitor) {
        let mut answer = body::refuse(StatusCode::UNAUTHORIZED, "UNAUTHORIZED")?;
        let value = HeaderValue::try_from(challenge).map_err(io::Error::other)?;
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        return Ok(answer);
    }
    if !reads {
        return push::answer(registry, repository, &what, &parts, body).await;
    }
    let head = parts.method == Method::HEAD;
    match what {
        What::Manifest(reference) => pull::manifest(registry, repository, reference, head, fault),
        What::Blob(digest) => pull::blob(registry, repository, digest, &parts.headers, head, fault).await,
        What::Tags => pull::tags(registry, repository),
        What::Referrers(digest) => pull::referrers(registry, repository, digest, query),
        What::Root => body::json(StatusCode::OK, "{}"),
        What::Upload(_) => body::refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    }
}

/// The whole of a body that is not large: a form or a manifest.
pub(crate) async fn small(body: Incoming) -> Bytes {
    Limited::new(body, 8 << 20).collect().await.map(|body| body.to_bytes()).unwrap_or_default()
}

fn note(registry: &Registry, request: &Request<Incoming>, line: Line) -> Asked {
    let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let target = request.uri().path_and_query().map(|t| t.as_str().to_owned()).unwrap_or_default();
    let mut log = lock(&registry.log);
    let asked = Asked {
        method: request.method().to_string(),
        before: log.iter().filter(|earlier| earlier.target == target).count(),
        target,
        authorization: text(header::AUTHORIZATION),
        range: text(header::RANGE),
        user_agent: text(header::USER_AGENT),
        certified: line.certified,
    };
    log.push(asked.clone());
    asked
}

/// What a path of the distribution specification names in a repository.
pub(crate) enum What<'a> {
    /// `/v2/` itself.
    Root,
    Manifest(&'a str),
    Blob(&'a str),
    /// An upload by its id; the empty one is the beginning of one.
    Upload(&'a str),
    Tags,
    Referrers(&'a str),
}

fn split(path: &str) -> Option<(&str, What<'_>)> {
    let rest = path.strip_prefix("/v2/")?;
    if rest.is_empty() {
        return Some(("", What::Root));
    }
    if let Some((repository, id)) = rest.rsplit_once("/blobs/uploads") {
        return Some((repository, What::Upload(id.trim_start_matches('/'))));
    }
    if let Some((repository, reference)) = rest.rsplit_once("/manifests/") {
        return Some((repository, What::Manifest(reference)));
    }
    if let Some((repository, digest)) = rest.rsplit_once("/blobs/") {
        return Some((repository, What::Blob(digest)));
    }
    if let Some((repository, digest)) = rest.rsplit_once("/referrers/") {
        return Some((repository, What::Referrers(digest)));
    }
    Some((rest.strip_suffix("/tags/list")?, What::Tags))
}
