//! The server: it gives URLs, takes connections, and knows all that it started.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::converse::Silence;
use crate::http;
use crate::tls::{Acceptor, TlsError};
use crate::token::{Request, Tokens, TooManyTokens};
use crate::{Attach, Backend, Config, Exec};

/// So many connections may be there without having shown a good token.
const UNPROVEN: usize = 256;
/// So long may a TLS handshake take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The streaming server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the streaming server cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the streaming server cannot speak TLS: {0}")]
    Tls(#[from] TlsError),
}

/// A streaming server that listens. Dropping it ends it and every connection at once.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    base_url: String,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

/// What every connection needs.
pub(crate) struct Shared {
    pub(crate) tokens: Tokens,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) silence: Silence,
    pub(crate) stream_timeout: Duration,
}

impl Server {
    /// Starts listening, on the tokio runtime that the caller is in.
    ///
    /// # Errors
    /// The address is taken or not of this host; the TLS files cannot be used.
    pub fn start(config: Config, backend: Arc<dyn Backend>) -> Result<Server, StartError> {
        let refused = |source| StartError::Listen { address: config.address, source };
        let tls = config.tls.map(Acceptor::new).transpose()?;
        let listener = std::net::TcpListener::bind(config.address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = TcpListener::from_std(listener).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let base_url = match config.base_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("{}://{}", if tls.is_some() { "https" } else { "http" }, reachable(address)),
        };
        let shared = Arc::new(Shared {
            tokens: Tokens::new(config.max_tokens, config.token_lifetime),
            backend,
            silence: Silence { idle: config.idle_timeout, ping: config.ping_interval },
            stream_timeout: config.stream_timeout,
        });
        let (stop, stopping) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, tls.map(Arc::new), Arc::clone(&shared), stopping));
        Ok(Server { shared, address, base_url, stop, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL under which a command can be started, once.
    ///
    /// # Errors
    /// Too many URLs wait for their client.
    pub fn exec_url(&self, exec: Exec) -> Result<String, TooManyTokens> {
        self.url("exec", Request::Exec(exec))
    }

    /// A URL under which a container's streams can be joined, once.
    ///
    /// # Errors
    /// Too many URLs wait for their client.
    pub fn attach_url(&self, attach: Attach) -> Result<String, TooManyTokens> {
        self.url("attach", Request::Attach(attach))
    }

    /// A URL under which ports of a pod can be reached, by one client, as often as it likes. `ports` is what a WebSocket client gets;
    /// over SPDY it names each port itself.
    ///
    /// # Errors
    /// Too many URLs wait for their client.
    pub fn port_forward_url(&self, pod: String, ports: Vec<u16>) -> Result<String, TooManyTokens> {
        self.url("portforward", Request::PortForward { pod, ports })
    }

    /// Takes no more connections, gives those that are there so long to end by themselves, and ends the others.
    pub async fn stop(&self, grace: Duration) {
        self.stop.send_replace(true);
        // The task that takes connections holds the other end, and ends after the last of them.
        if timeout(grace, self.stop.closed()).await.is_err() {
            self.accepting.abort();
            self.stop.closed().await;
        }
    }

    fn url(&self, kind: &str, request: Request) -> Result<String, TooManyTokens> {
        let token = self.shared.tokens.issue(request)?;
        Ok(format!("{}/{kind}/{token}", self.base_url))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Where a client of this host finds what listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Takes connections until it is told to stop, and then waits for those that are there.
async fn accept(
    listener: TcpListener,
    tls: Option<Arc<Acceptor>>,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) {
    let unproven = Arc::new(Semaphore::new(UNPROVEN));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = tokio::select! {
            permit = Arc::clone(&unproven).acquire_owned() => permit,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, tls.clone(), Arc::clone(&shared), permit));
            }
            Err(error) => {
                // Descriptors have run out, mostly: they come back when connections end.
                tracing::warn!(%error, "the streaming server could not take a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve(
    stream: TcpStream,
    tls: Option<Arc<Acceptor>>,
    shared: Arc<Shared>,
    unproven: tokio::sync::OwnedSemaphorePermit,
) {
    if let Err(error) = keep_alive(&stream) {
        tracing::debug!(%error, "a streaming connection goes without keep-alive");
    }
    let Some(tls) = tls else {
        return http::serve(stream, shared, unproven).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, tls.current().accept(stream)).await {
        Ok(Ok(stream)) => http::serve(stream, shared, unproven).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the streaming server failed"),
        Err(_) => tracing::debug!("a TLS handshake with the streaming server took too long"),
    }
}

/// A client whose host is gone is noticed within minutes though nothing is sent.
fn keep_alive(stream: &TcpStream) -> rustix::io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true).ok();
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))
}
