//! `pintle.v1.Node`: what CRI has no words for.

use std::time::Duration;

use image::{LayerState as Layer, PullProgress as Progress, Stage};
use node::Node;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::code::Coded;
use super::stream::{Answers, Channel};
use crate::node_v1::*;
use crate::translate::BadField;

/// How long a watcher that comes first waits for the pull to begin.
const BEGIN: Duration = Duration::from_secs(5);
/// The shortest time between two reports.
const PACE: Duration = Duration::from_millis(100);

pub(super) struct NodeInfo {
    node: Node,
}

impl NodeInfo {
    pub(super) fn new(node: Node) -> NodeInfo {
        NodeInfo { node }
    }
}

#[tonic::async_trait]
impl node_server::Node for NodeInfo {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("PINTLE_COMMIT").unwrap_or_default().into(),
            pid: std::process::id().into(),
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let images = self.node.images().fs_info().mountpoint;
        let layout = super::blocking(|| cgroup::Host::detect().map(|host| host.mode())).await?;
        let layout = layout.map_err(|error| Status::internal(error.to_string()))?;
        let snapshot = self.node.snapshot();
        let facts = [
            ("images", images.display().to_string()),
            ("pods", snapshot.pods.len().to_string()),
            ("containers", snapshot.containers.len().to_string()),
        ];
        Ok(Response::new(InfoResponse {
            root_dir: images.to_string_lossy().into_owned(),
            state_dir: self.node.config().state_dir.to_string_lossy().into_owned(),
            cgroup_layout: match layout {
                cgroup::Mode::V1 => "v1",
                cgroup::Mode::V2 => "v2",
                cgroup::Mode::Hybrid => "hybrid",
            }
            .into(),
            facts: facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }))
    }

    type WatchPullStream = Answers<PullProgress>;

    async fn watch_pull(
        &self,
        request: Request<WatchPullRequest>,
    ) -> Result<Response<Self::WatchPullStream>, Status> {
        let image = request.into_inner().image;
        if image.is_empty() || image.len() > 1024 {
            return Err(BadField::new("image", "it is empty or too long").into());
        }
        let (send, receive) = mpsc::channel(4);
        let node = self.node.clone();
        tokio::spawn(async move { watch_pull(&node, &image, send).await });
        Ok(Response::new(Box::pin(Channel(receive))))
    }
}

/// Reports until the pull is over or the watcher has gone.
async fn watch_pull(node: &Node, image: &str, send: mpsc::Sender<Result<PullProgress, Status>>) {
    let Some(mut progress) = begun(node, image, &send).await else {
        let last = match node.images().find(image) {
            Ok(Some(_)) => Ok(PullProgress { done: true, ..Default::default() }),
            Ok(None) => Err(Status::not_found(format!("nobody is pulling {image:?}"))),
            Err(error) => Err(error.status()),
        };
        let _ = send.send(last).await;
        return;
    };
    loop {
        let now = progress.borrow_and_update().clone();
        let over = matches!(now.stage, Stage::Done | Stage::Failed);
        if send.send(Ok(report(now))).await.is_err() || over {
            return;
        }
        tokio::time::sleep(PACE).await;
        let changed = tokio::select! {
            changed = progress.changed() => changed,
            () = send.closed() => return,
        };
        // A pull that ends says so: this one was cut off.
        if changed.is_err() {
            let error = "the pull was cut off".to_owned();
            let _ = send.send(Ok(PullProgress { error, ..Default::default() })).await;
            return;
        }
    }
}

async fn begun<T>(node: &Node, image: &str, watcher: &mpsc::Sender<T>) -> Option<watch::Receiver<Progress>> {
    let until = Instant::now() + BEGIN;
    loop {
        if let Some(progress) = node.images().progress(image) {
            return Some(progress);
        }
        if Instant::now() >= until || watcher.is_closed() {
            return None;
        }
        tokio::time::sleep(PACE / 4).await;
    }
}

fn report(progress: Progress) -> PullProgress {
    let layers = progress.layers.into_iter().map(|layer| LayerProgress {
        digest: layer.digest.to_string(),
        total_bytes: layer.total,
        downloaded_bytes: layer.downloaded,
        state: match layer.state {
            Layer::Waiting => LayerState::LayerWaiting,
            Layer::Downloading if layer.total > 0 && layer.downloaded >= layer.total => {
                LayerState::LayerUnpacking
            }
            Layer::Downloading => LayerState::LayerDownloading,
            Layer::Unpacked => LayerState::LayerDone,
            Layer::Present => LayerState::LayerAlreadyPresent,
        }
        .into(),
    });
    let error = match progress.stage {
        Stage::Failed => format!("pulling {} failed; whoever asked for it was told why", progress.reference),
        Stage::Resolving | Stage::Layers | Stage::Publishing | Stage::Done => String::new(),
    };
    PullProgress { layers: layers.collect(), done: progress.stage == Stage::Done, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_report_says_how_it_ended() {
        let of = |stage| report(Progress { reference: "r.example/a:1".into(), stage, layers: Vec::new() });
        assert!(of(Stage::Done).done && of(Stage::Done).error.is_empty());
        assert!(!of(Stage::Failed).done && of(Stage::Failed).error.contains("r.example/a:1"));
        assert!(!of(Stage::Layers).done && of(Stage::Layers).error.is_empty());
    }
}
