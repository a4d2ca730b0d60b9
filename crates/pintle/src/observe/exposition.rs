//! The page that Prometheus reads: `GET /metrics`.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use model::container::Container;
use model::pod::Pod;
use node::Node;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Observer;
use super::metrics::Counts;

/// Connections at one time; further ones wait.
const CONNECTIONS: usize = 16;
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound address on which metrics will be served.
#[derive(Debug)]
pub(crate) struct Exposition(TcpListener);

#[derive(Debug, thiserror::Error)]
#[error("metrics.address {address}: {source}; another program may listen there")]
pub(crate) struct ExpositionError {
    address: SocketAddr,
    source: io::Error,
}

impl Exposition {
    pub(crate) async fn bind(address: SocketAddr) -> Result<Exposition, ExpositionError> {
        let bound = TcpListener::bind(address).await;
        bound.map(Exposition).map_err(|source| ExpositionError { address, source })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until the runtime ends.
    pub(crate) async fn serve(self, observer: Observer, node: Node) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let slot = slots.clone().acquire_owned().await;
            let stream = match self.0.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection for metrics could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (observer, node) = (observer.clone(), node.clone());
            let answer = service_fn(move |request: Request<Incoming>| {
                let (observer, node) = (observer.clone(), node.clone());
                async move { Ok::<_, Infallible>(answer(&request, &observer, &node).await) }
            });
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), answer);
                // A client that leaves is no news.
                let _ = connection.await;
                drop(slot);
            });
        }
    }
}

async fn answer(request: &Request<Incoming>, observer: &Observer, node: &Node) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            let reclaimable = node.images().reclaimable().await;
            let reclaimable_bytes = reclaimable.map_or(0, |usage| usage.bytes as i64);
            observer.metrics.count(Counts { reclaimable_bytes, ..counts(observer, node) });
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, kind, observer.metrics.text())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "metrics are at /metrics\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static(kind);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    response
}

fn counts(observer: &Observer, node: &Node) -> Counts {
    let snapshot = node.snapshot();
    let images = node.images().list();
    let mut counts = Counts {
        images: images.len() as i64,
        image_bytes: images.iter().map(|image| image.size as i64).sum(),
        under_way: observer.under_way().len() as i64,
        ..Counts::default()
    };
    for pod in snapshot.pods.values() {
        match pod.state.pod {
            Pod::Ready => counts.pods_ready += 1,
            Pod::Stopped { .. } => counts.pods_not_ready += 1,
        }
    }
    for container in snapshot.containers.values() {
        match container.state.container {
            Container::Created { .. } => counts.containers_created += 1,
            Container::Running { .. } => counts.containers_running += 1,
            _ => counts.containers_exited += 1,
        }
    }
    counts
}
