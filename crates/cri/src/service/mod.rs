//! The services: CRI's two and Pintle's own, on one socket.

mod authority;
mod checkpoints;
mod code;
mod connections;
mod containers;
mod daemon;
mod disk;
mod events;
mod image_archives;
mod image_extras;
mod image_moves;
mod images;
mod info;
mod lists;
mod node_info;
mod observed;
mod pods;
mod reflection;
mod router;
mod runtime;
mod statistics;
mod stream;
mod streaming;
mod v1alpha2;

use std::future::Future;
use std::sync::Arc;

use node::Node;
use tokio::net::UnixListener;
use tonic::Status;

/// Serves until `stop` is done and the calls under way have been answered. URLs for streams come from `streaming`.
pub async fn serve(
    node: Node,
    streaming: Arc<::stream::Server>,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) {
    let router = router::Router::new(node.clone(), streaming).await;
    // Streams of events end only when they are told to, and the end waits for streams.
    let stop = async {
        stop.await;
        node.end_events();
    };
    connections::serve(router, listener, stop).await;
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Runs `work`, which may wait for a disk or a plugin, where it holds up no other call.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Status::internal(format!("a defect of pintle: {panic}")))
}
