//! Connections: which scheme a registry is spoken to in, TLS with the host's certificates, and one request with its deadline.

use std::collections::HashSet;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error as PoolError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::timeouts::Timeouts;

pub(crate) type Answer = Response<Incoming>;
type SecurePool = Pool<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// The pools of connections. One for all pulls.
#[derive(Debug)]
pub struct Client {
    plain: Pool<HttpConnector, Full<Bytes>>,
    /// Made when it is first needed: reading the host's certificates takes longer than all else at the start.
    secure: OnceLock<Result<SecurePool, String>>,
    insecure: HashSet<String>,
    pub(crate) timeouts: Timeouts,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// Nobody listens: trying again at once is of no use.
    Refused(String),
    /// No connection, a broken one, or a deadline.
    Failed(String),
}

impl Client {
    /// A client without connections. `insecure` lists registries (`host` or `host:port`) that are spoken to in plain HTTP.
    pub fn new(insecure: &[String], timeouts: Timeouts) -> Client {
        Client {
            plain: Pool::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_max_idle_per_host(8)
                .build(connector(&timeouts)),
            secure: OnceLock::new(),
            insecure: insecure.iter().map(|host| host.to_ascii_lowercase()).collect(),
            timeouts,
        }
    }

    /// `http` for loopback addresses and for what the configuration lists, `https` for all else.
    pub(crate) fn scheme(&self, host: &str) -> &'static str {
        if self.insecure.contains(host) || self.insecure.contains(name_of(host)) || is_loopback(host) {
            "http"
        } else {
            "https"
        }
    }

    /// Sends one request and waits for the headers of the answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let secure = request.uri().scheme_str() == Some("https");
        let answer = async {
            if !secure {
                return self.plain.request(request).await.map_err(no_answer);
            }
            match self.secure.get_or_init(|| secure_pool(&self.timeouts)) {
                Ok(pool) => pool.request(request).await.map_err(no_answer),
                Err(why) => Err(NoAnswer::Refused(why.clone())),
            }
        };
        match tokio::time::timeout(self.timeouts.headers, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                let seconds = self.timeouts.headers.as_secs_f32();
                Err(NoAnswer::Failed(format!("no answer within {seconds} s")))
            }
        }
    }
}

fn connector(timeouts: &Timeouts) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(timeouts.connect));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

fn secure_pool(timeouts: &Timeouts) -> Result<SecurePool, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider).map_err(|error| {
        format!("this host has no certificates to trust: {error}; install ca-certificates")
    })?;
    let connector = builder.https_only().enable_http1().wrap_connector(connector(timeouts));
    Ok(Pool::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_max_idle_per_host(8)
        .build(connector))
}

fn no_answer(error: PoolError) -> NoAnswer {
    // The outermost text says only which stage failed; the innermost says why.
    let mut text = String::new();
    let mut refused = false;
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            refused |= io.kind() == io::ErrorKind::ConnectionRefused;
            if let Some(tls) = tls_error(io) {
                return NoAnswer::Refused(explain_tls(tls));
            }
        }
        text = error.to_string();
        cause = error.source();
    }
    if text.is_empty() {
        text = error.to_string();
    }
    if refused { NoAnswer::Refused(text) } else { NoAnswer::Failed(text) }
}

/// The TLS error within an IO error, which may be wrapped in another.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    let wrapped = inner.downcast_ref::<io::Error>().and_then(tls_error);
    wrapped.or_else(|| inner.downcast_ref::<rustls::Error>())
}

/// What a person can do about a failed handshake. Trying again does not help.
fn explain_tls(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error, InvalidMessage};
    let hint = match error {
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS: if it is meant to be without, list it among the insecure registries"
        }
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "this host does not trust who signed its certificate: add that authority to the host's certificates"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired, or this host's clock is wrong"
        }
        _ => return error.to_string(),
    };
    format!("{hint} ({error})")
}

/// The host of `host:port`, without the brackets of an IPv6 address.
pub(crate) fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = name_of(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    let link_local = match name_of(authority.as_str()).parse::<IpAddr>() {
        // Metadata services of clouds are there, and no registry is.
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(|a| a.is_link_local())
        }
        Err(_) => false,
    };
    link_local.then_some("it points to a link-local address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_what_is_listed() {
        let client =
            Client::new(&["Plain.example".into(), "ported.example:5000".into()], Timeouts::default());
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(client.scheme(host), "http", "{host}");
        }
        for host in ["plain.example", "plain.example:80", "ported.example:5000"] {
            assert_eq!(client.scheme(host), "http", "{host}");
        }
        for host in ["quay.io", "ported.example", "localhost.evil.org", "10.0.0.1:5000", "[fe80::1]"] {
            assert_eq!(client.scheme(host), "https", "{host}");
        }
    }

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
