//! The HTTP side: a token is redeemed, a protocol is agreed on, and the connection is handed over.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use crate::protocol::{self, Protocol, Transport};
use crate::server::Shared;
use crate::session;
use crate::token::{Request, Tokens};

/// So long may a client take to say what it wants.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head is a few hundred bytes.
const MAX_HEAD: usize = 32 * 1024;

/// Each takes two of the 256 channels of a WebSocket, of which one is kept free.
const MAX_PORTS: usize = 127;
const BAD_PORTS: &str = "Over a WebSocket, 1 to 127 ports can be forwarded, each a number from 1 to 65535: those of the CRI request, or port=... in the address.";

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

type Response = http::Response<Full<Bytes>>;

/// A connection that is about to leave HTTP.
struct Accepted {
    upgrade: OnUpgrade,
    request: Request,
    transport: Transport,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S>(stream: S, shared: Arc<Shared>, unproven: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let accepted: Mutex<Option<Accepted>> = Mutex::new(None);
    let service = service_fn(|request| {
        let (response, found) = answer(request, &shared.tokens);
        if found.is_some() {
            *accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = found;
        }
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a streaming connection ended before it was handed over");
        return;
    }
    let accepted = accepted.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let Some(Accepted { upgrade, request, transport }) = accepted else { return };
    match upgrade.await {
        Ok(upgraded) => {
            drop(unproven);
            session::run(TokioIo::new(upgraded), request, transport, &shared).await;
        }
        Err(error) => tracing::debug!(%error, "a streaming connection was not handed over"),
    }
}

/// The answer to one request; with a connection to hand over, it is 101.
fn answer(mut request: hyper::Request<Incoming>, tokens: &Tokens) -> (Response, Option<Accepted>) {
    match agree(request.method(), request.uri(), request.headers(), tokens) {
        Ok((agreed, transport, response)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            (response, Some(Accepted { upgrade, request: agreed, transport }))
        }
        Err(refusal) => (refusal, None),
    }
}

fn agree(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    tokens: &Tokens,
) -> Result<(Request, Transport, Response), Response> {
    if method != Method::GET && method != Method::POST {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "Only GET and POST are answered here.");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return Err(response);
    }
    let mut request = redeem(uri.path(), tokens).ok_or_else(|| {
        let text = "There is no stream at this address: it was used, has expired, or never was.";
        refuse(StatusCode::NOT_FOUND, text)
    })?;
    let (transport, response) = upgrade(method, headers, matches!(request, Request::PortForward { .. }))?;
    if let (Request::PortForward { ports, .. }, Transport::WebSocket(_)) = (&mut request, transport) {
        if ports.is_empty() {
            *ports = uri.query().map(ports_of).unwrap_or_default();
        }
        if ports.is_empty() || ports.len() > MAX_PORTS || ports.contains(&0) {
            return Err(refuse(StatusCode::BAD_REQUEST, BAD_PORTS));
        }
    }
    Ok((request, transport, response))
}

/// The ports in a query such as `port=80,443&port=8080`; a word that is none is 0.
fn ports_of(query: &str) -> Vec<u16> {
    query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("port="))
        .flat_map(|ports| ports.split(','))
        .map(|port| port.parse().unwrap_or(0))
        .collect()
}

/// The request of a path `/exec/TOKEN` and the like.
fn redeem(path: &str, tokens: &Tokens) -> Option<Request> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    let request = tokens.redeem(token)?;
    let asked = match request {
        Request::Exec(_) => "exec",
        Request::Attach(_) => "attach",
        Request::PortForward { .. } => "portforward",
    };
    (asked == kind).then_some(request)
}

fn upgrade(method: &Method, headers: &HeaderMap, forward: bool) -> Result<(Transport, Response), Response> {
    let asked = list(headers, &UPGRADE);
    let upgrades = list(headers, &CONNECTION).iter().any(|word| word.eq_ignore_ascii_case("upgrade"));
    if upgrades && asked.iter().any(|word| word.eq_ignore_ascii_case("websocket")) {
        let ours = if forward { protocol::FORWARD_WEBSOCKET } else { protocol::REMOTE_WEBSOCKET };
        return websocket(method, headers, ours);
    }
    if upgrades && asked.iter().any(|word| word.eq_ignore_ascii_case("spdy/3.1")) {
        let ours = if forward { protocol::FORWARD_SPDY } else { protocol::REMOTE_SPDY };
        return spdy(headers, ours);
    }
    Err(refuse(
        StatusCode::BAD_REQUEST,
        "This address is for a connection that upgrades to SPDY/3.1 or to a WebSocket (headers Connection and Upgrade).",
    ))
}

fn spdy(headers: &HeaderMap, ours: &[Protocol]) -> Result<(Transport, Response), Response> {
    let wanted = list(headers, &PROTOCOL_VERSION);
    if wanted.is_empty() {
        return Err(refuse(
            StatusCode::BAD_REQUEST,
            "The header X-Stream-Protocol-Version is missing or empty.",
        ));
    }
    let protocol = protocol::choose(&wanted, ours).ok_or_else(|| none_matches(ours))?;
    let mut response = switch("SPDY/3.1");
    response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol.name));
    Ok((Transport::Spdy(protocol), response))
}

fn websocket(
    method: &Method,
    headers: &HeaderMap,
    ours: &[Protocol],
) -> Result<(Transport, Response), Response> {
    let bad = |text| Err(refuse(StatusCode::BAD_REQUEST, text));
    if method != Method::GET {
        return bad("A WebSocket is asked for with GET.");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response =
            refuse(StatusCode::UPGRADE_REQUIRED, "Of the WebSocket protocol, version 13 is spoken here.");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(response);
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return bad("The header Sec-WebSocket-Key is missing.");
    };
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return bad("The header Sec-WebSocket-Key is not 16 bytes in base64.");
    }
    let mut wanted = list(headers, &SEC_WEBSOCKET_PROTOCOL);
    if wanted.is_empty() {
        wanted.push("");
    }
    let protocol = protocol::choose(&wanted, ours).ok_or_else(|| none_matches(ours))?;
    let mut response = switch("websocket");
    let proof = Sha1::new().chain_update(key.as_bytes()).chain_update(WEBSOCKET_GUID).finalize();
    let answers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&STANDARD.encode(proof)) {
        answers.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if !protocol.name.is_empty() {
        answers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol.name));
    }
    let tunnel = protocol == protocol::TUNNEL;
    Ok((if tunnel { Transport::Tunnel(protocol) } else { Transport::WebSocket(protocol) }, response))
}

/// The comma-separated words of a header, over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect()
}

fn switch(to: &'static str) -> Response {
    let mut response = http::Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

fn none_matches(ours: &[Protocol]) -> Response {
    let mut response = refuse(
        StatusCode::FORBIDDEN,
        "None of the protocols that the client speaks is spoken here; X-Accepted-Stream-Protocol-Versions names ours.",
    );
    for protocol in ours {
        response.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(protocol.name));
    }
    response
}

fn refuse(status: StatusCode, text: &'static str) -> Response {
    let mut response = http::Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
