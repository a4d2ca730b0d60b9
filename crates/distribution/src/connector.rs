//! The first half of a connection: TCP to a host, or to a proxy that leads there. Names never lead to link-local addresses.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::host::leads_to_link_local;
use crate::proxy::{Proxy, ProxyKind};
use crate::tls::Tls;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Tcp = HttpConnector<Resolver>;

/// Looks names up. What they lead to within the link is left out: metadata services of clouds are there, and a name is no permission to ask
/// them. An address that somebody wrote as such does not come here.
#[derive(Clone)]
pub(crate) struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move {
            let (local, good): (Vec<_>, Vec<_>) = found.await?.partition(leads_to_link_local);
            if good.is_empty() && !local.is_empty() {
                return Err(io::Error::other("its name leads to a link-local address only"));
            }
            Ok(good.into_iter())
        })
    }
}

/// The way to a host.
#[derive(Clone)]
pub(crate) enum Way {
    Direct(Tcp),
    /// An HTTP proxy: plain requests are put to it as they are, and through a tunnel goes what is TLS.
    Proxy {
        proxy: HttpsConnector<Tcp>,
        uri: Uri,
        tunnel: Box<Tunnel<HttpsConnector<Tcp>>>,
    },
    Socks(Box<SocksV5<Tcp>>),
}

impl Way {
    /// # Errors
    /// In words.
    pub(crate) fn new(proxy: Option<&Proxy>, connect: Duration) -> Result<Way, String> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.set_connect_timeout(Some(connect));
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let Some(proxy) = proxy else { return Ok(Way::Direct(tcp)) };
        let scheme = if proxy.kind == ProxyKind::Https { "https" } else { "http" };
        let uri: Uri = format!("{scheme}://{}/", proxy.authority)
            .parse()
            .map_err(|why| format!("the proxy of {}: {why}", proxy.said))?;
        if proxy.kind == ProxyKind::Socks5 {
            let socks = SocksV5::new(uri, tcp);
            return Ok(Way::Socks(Box::new(match proxy.login() {
                Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
                None => socks,
            })));
        }
        // In the clear nothing of the configuration is used: one that reads no certificates is made quickest.
        let tls = Tls { skip_verify: proxy.kind == ProxyKind::Http, ..Tls::default() };
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls.client_config()?);
        let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
        let tunnel = Tunnel::new(uri.clone(), connector.clone());
        let tunnel = match proxy.authorization() {
            Some(value) => tunnel.with_auth(value),
            None => tunnel,
        };
        Ok(Way::Proxy { proxy: connector, uri, tunnel: Box::new(tunnel) })
    }
}

impl Service<Uri> for Way {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Way::Direct(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Way::Proxy { proxy, tunnel, .. } => match proxy.poll_ready(context)? {
                Poll::Ready(()) => tunnel.poll_ready(context).map_err(Into::into),
                Poll::Pending => Poll::Pending,
            },
            Way::Socks(socks) => socks.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let stream = |inner, by_request| Stream { inner, by_request };
        match self {
            Way::Direct(tcp) => {
                let connecting = tcp.call(to);
                Box::pin(async move { Ok(stream(connecting.await?.into(), false)) })
            }
            Way::Proxy { tunnel, .. } if to.scheme_str() == Some("https") => {
                let connecting = tunnel.call(to);
                Box::pin(async move { Ok(stream(connecting.await?, false)) })
            }
            Way::Proxy { proxy, uri, .. } => {
                let connecting = proxy.call(uri.clone());
                Box::pin(async move { Ok(stream(connecting.await?, true)) })
            }
            Way::Socks(socks) => {
                let connecting = socks.call(to);
                Box::pin(async move { Ok(stream(connecting.await?.into(), false)) })
            }
        }
    }
}

/// A connection. To a proxy that gets requests as they are, they are written with the whole URL.
pub(crate) struct Stream {
    inner: MaybeHttpsStream<TokioIo<TcpStream>>,
    by_request: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.by_request)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }
}
