//! Connections to the daemon's socket: HTTP/2, many calls at once on each.
//!
//! tonic's own server would end a call at the deadline that its client sent, and answer `Cancelled`. Here a deadline is the client's:
//! it ends the client's waiting, which says `DeadlineExceeded`, and not the work.

use std::future::Future;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::Request;

use super::authority::AnyAuthority;
use super::router::Router;

/// How long to wait after accept(2) failed: running out of descriptors is a reason to wait, not to end.
const PAUSE: Duration = Duration::from_millis(100);

/// What a client may send before it hears that some of it was taken: enough for the largest message not to crawl.
const WINDOW: u32 = 1 << 20;

/// Serves until `stop` is done, then until the calls under way have been answered.
pub(super) async fn serve(router: Router, listener: UnixListener, stop: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        let answer =
            service_fn(move |request: Request<Incoming>| router.clone().call(request.map(Body::new)));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .serve_connection(TokioIo::new(AnyAuthority::new(stream)), answer);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // A client that leaves in the middle of a word is no news.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}
