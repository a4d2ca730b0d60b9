//! The connections of all pulls: a pool for each way to be trusted and to get there, and one request with its deadline.

use std::error::Error;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client as Pooled, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connections::{Bounds, Connections};
use crate::connector::Way;
use crate::download::AHEAD_MAX;
use crate::host::is_link_local;
use crate::proxy::{Proxies, Proxy};
use crate::timeouts::Timeouts;
use crate::tls::{self, Tls};

pub(crate) type Answer = Response<Incoming>;
type Pool = Pooled<HttpsConnector<Way>, Full<Bytes>>;

/// What one read of a connection brings at most, and how long the head of an answer may be. Several are in memory for each layer.
const READ_MAX: usize = 128 << 10;
/// As many pools as are kept. Each is one registry's own certificates; whoever has more of them connects anew now and then.
const POOLS_MAX: usize = 32;

/// The connections of all pulls.
#[derive(Debug)]
pub struct Client {
    /// Those used last are last.
    pools: Mutex<Vec<(Key, Pool)>>,
    proxies: Proxies,
    pub(crate) timeouts: Timeouts,
    pub(crate) connections: Connections,
}

/// What connections must have in common to be in one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    /// None: without TLS.
    tls: Option<Tls>,
    connect: Duration,
    proxy: Option<Proxy>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens, or TLS fails: trying again at once is of no use.
    Refused(String),
    /// No connection, a broken one, or a deadline.
    Failed(String),
}

impl NoAnswer {
    pub(crate) fn why(self) -> String {
        match self {
            NoAnswer::Refused(why) | NoAnswer::Failed(why) => why,
        }
    }
}

/// How one host is to be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub tls: &'a Tls,
    /// For a TCP connection, if not what all have.
    pub connect: Option<Duration>,
    /// From the request to the headers of the answer.
    pub answer: Duration,
}

impl Client {
    /// A client without connections.
    pub fn new(proxies: Proxies, timeouts: Timeouts) -> Client {
        let connections = Connections::new(Bounds::default(), AHEAD_MAX);
        Client { pools: Mutex::default(), proxies, timeouts, connections }
    }

    /// The same with other bounds of how many connections carry blobs.
    pub fn bounded(self, bounds: Bounds) -> Client {
        Client { connections: Connections::new(bounds, AHEAD_MAX), ..self }
    }

    /// Sends one request and waits for the headers of the answer.
    pub(crate) async fn send(
        &self,
        reach: Reach<'_>,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, NoAnswer> {
        let refused = |why: String| NoAnswer::Refused(why);
        let uri = request.uri();
        let secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().map_or("", |a| a.as_str());
        let proxy = self.proxies.of(uri.scheme_str().unwrap_or("http"), authority);
        let proxy = proxy.map_err(|bad| refused(bad.to_string()))?;
        if let (false, Some(value)) = (secure, proxy.and_then(Proxy::authorization)) {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
        }
        let key = Key {
            tls: secure.then(|| reach.tls.clone()),
            connect: reach.connect.unwrap_or(self.timeouts.connect).min(reach.answer),
            proxy: proxy.cloned(),
        };
        let pool = self.pool(key).map_err(refused)?;
        let about = |why: NoAnswer| match (proxy, why) {
            (None, why) => why,
            (Some(proxy), NoAnswer::Refused(why)) => {
                NoAnswer::Refused(format!("by the proxy {proxy} ({}): {why}", proxy.said))
            }
            (Some(proxy), NoAnswer::Failed(why)) => {
                NoAnswer::Failed(format!("by the proxy {proxy} ({}): {why}", proxy.said))
            }
        };
        match tokio::time::timeout(reach.answer, pool.request(request)).await {
            Ok(answer) => answer.map_err(|error| about(no_answer(error))),
            Err(_) => {
                Err(about(NoAnswer::Failed(format!("no answer within {} s", reach.answer.as_secs_f32()))))
            }
        }
    }

    fn pool(&self, key: Key) -> Result<Pool, String> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = pools.iter().position(|(known, _)| *known == key) {
            let known = pools.remove(at);
            let pool = known.1.clone();
            pools.push(known);
            return Ok(pool);
        }
        if pools.len() >= POOLS_MAX {
            pools.remove(0);
        }
        let pool = connections(&key)?;
        pools.push((key, pool.clone()));
        Ok(pool)
    }
}

fn connections(key: &Key) -> Result<Pool, String> {
    let way = Way::new(key.proxy.as_ref(), key.connect)?;
    // Without TLS nothing of the configuration is used: one that reads no certificates is made quickest.
    let config = match &key.tls {
        Some(tls) => tls.client_config()?,
        None => Tls { skip_verify: true, ..Tls::default() }.client_config()?,
    };
    let builder = HttpsConnectorBuilder::new().with_tls_config(config);
    let builder = if key.tls.is_some() { builder.https_only() } else { builder.https_or_http() };
    Ok(Pooled::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(8)
        .http1_max_buf_size(READ_MAX)
        .build(builder.enable_http1().wrap_connector(way)))
}

/// How hyper says that a connection ended between its beginning and the first request: the alert of TLS 1.3 came too late to be read.
const CLOSED_AT_ONCE: &str = "connection was not ready";

fn no_answer(error: PoolError) -> NoAnswer {
    // The outermost text says only which stage failed; the innermost says why.
    let mut text = String::new();
    let mut refused = false;
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            refused |= io.kind() == io::ErrorKind::ConnectionRefused;
            if let Some(tls) = tls_error(io) {
                return NoAnswer::Refused(tls::explain(tls));
            }
        }
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() {
        text = error.to_string();
    }
    if text == CLOSED_AT_ONCE {
        text = "it closed the connection before it was asked anything; with TLS, one that wants a client's certificate does so"
            .into();
    }
    if refused { NoAnswer::Refused(text) } else { NoAnswer::Failed(text) }
}

/// The TLS error within an IO error, which may be wrapped in another.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    let wrapped = inner.downcast_ref::<io::Error>().and_then(tls_error);
    wrapped.or_else(|| inner.downcast_ref::<rustls::Error>())
}

/// Why a redirect from `from` to `to` is not to be followed, if so.
pub(crate) fn refuse_redirect(from: &Uri, to: &Uri) -> Option<&'static str> {
    let (Some(scheme), Some(authority)) = (to.scheme_str(), to.authority()) else {
        return Some("it is no whole URL");
    };
    match (from.scheme_str(), scheme) {
        (_, "https") | (Some("http"), "http") => {}
        (_, "http") => return Some("it leaves TLS"),
        _ => return Some("its scheme is not HTTP"),
    }
    if authority.as_str().contains('@') {
        return Some("it brings credentials of its own");
    }
    is_link_local(authority.as_str()).then_some("it points to a link-local address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_redirects_are_refused() {
        let refuse = |from: &str, to: &str| refuse_redirect(&from.parse().unwrap(), &to.parse().unwrap());
        assert!(refuse("https://a/x", "https://b/y").is_none());
        assert!(refuse("http://127.0.0.1/x", "http://127.0.0.1:1/y").is_none());
        assert!(refuse("https://a/x", "http://b/y").is_some());
        assert!(refuse("https://a/x", "https://169.254.169.254/y").is_some());
        assert!(refuse("http://a/x", "http://[fe80::1]/y").is_some());
        assert!(refuse("http://a/x", "http://[::ffff:169.254.169.254]/y").is_some());
        assert!(refuse("https://a/x", "https://u:p@b/y").is_some());
        assert!(refuse("https://a/x", "ftp://b/y").is_some());
        assert!(refuse("https://a/x", "/y").is_some());
    }
}
