//! How far a pull is, for whoever watches it.

use model::digest::Digest;
use tokio::sync::watch;

use crate::manifest::Descriptor;

/// How far a pull is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullProgress {
    /// The whole reference.
    pub reference: String,
    pub stage: Stage,
    /// The lowest first. Empty until the manifest is known.
    pub layers: Vec<LayerProgress>,
}

/// What a pull is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asking for manifest and configuration.
    Resolving,
    /// Fetching and unpacking layers.
    Layers,
    /// Making what was unpacked durable and visible.
    Publishing,
    Done,
    Failed,
}

/// How far a layer is. Sizes are bytes of the packed blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    pub digest: Digest,
    pub total: u64,
    pub downloaded: u64,
    pub state: LayerState,
}

/// What becomes of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// For a free slot, or for another pull that fetches the same layer.
    Waiting,
    Downloading,
    Unpacked,
    /// It was here already.
    Present,
}

/// The sending side.
#[derive(Debug, Clone)]
pub(crate) struct Progress(watch::Sender<PullProgress>);

impl Progress {
    pub(crate) fn new(reference: String) -> Progress {
        let first = PullProgress { reference, stage: Stage::Resolving, layers: Vec::new() };
        Progress(watch::channel(first).0)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<PullProgress> {
        self.0.subscribe()
    }

    pub(crate) fn stage(&self, stage: Stage) {
        self.0.send_modify(|progress| progress.stage = stage);
    }

    pub(crate) fn layers<'a>(&self, layers: impl Iterator<Item = &'a Descriptor>) {
        self.0.send_modify(|progress| {
            progress.stage = Stage::Layers;
            progress.layers = layers
                .map(|layer| LayerProgress {
                    digest: layer.digest.clone(),
                    total: u64::try_from(layer.size).unwrap_or(0),
                    downloaded: 0,
                    state: LayerState::Waiting,
                })
                .collect();
        });
    }

    pub(crate) fn layer(&self, index: usize, change: impl FnOnce(&mut LayerProgress)) {
        self.0.send_modify(|progress| {
            if let Some(layer) = progress.layers.get_mut(index) {
                change(layer);
            }
        });
    }
}
