//! The disk: what there is on it, and letting go of what nobody needs, on request and from time to time.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use image::{Containers, ImageError, Item, Survey};

use crate::context::Context;
use crate::node::Node;

/// How soon after the start it is done first, when everything that is to be recovered is.
const FIRST: Duration = Duration::from_secs(10);
/// The longest time between two times.
const PAUSE: Duration = Duration::from_secs(600);

impl Node {
    /// Everything on disk, and whether garbage collection would let it go now.
    ///
    /// # Errors
    /// What the database or the disk says.
    pub async fn survey_disk(&self, older_than: Duration) -> Result<Survey, ImageError> {
        self.context.images.survey(older_than, containers(&self.context)).await
    }

    /// Lets go of what nobody needs, and, of layers and blobs, has not needed for so long.
    ///
    /// # Errors
    /// What the database or the disk says.
    pub async fn collect_garbage(&self, older_than: Duration) -> Result<Vec<Item>, ImageError> {
        self.context.images.let_go(older_than, containers(&self.context)).await
    }
}

/// How large a file system is, and how much of it is left for who may not use what is reserved.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub bytes: u64,
    pub available_bytes: u64,
    pub inodes: u64,
    pub available_inodes: u64,
}

/// The capacity of the file system that a path is in, as it is now (statvfs(3)); none: it cannot be found out.
pub fn capacity(path: &Path) -> Option<Capacity> {
    let whole = rustix::fs::statvfs(path).ok()?;
    Some(Capacity {
        bytes: whole.f_blocks.saturating_mul(whole.f_frsize),
        available_bytes: whole.f_bavail.saturating_mul(whole.f_frsize),
        inodes: whole.f_files,
        available_inodes: whole.f_favail,
    })
}

/// The containers that there are, those that are just being made among them.
fn containers(context: &Arc<Context>) -> Containers {
    let context = Arc::clone(context);
    Box::new(move || {
        let ids = context.records.container_ids();
        ids.inspect_err(|error| tracing::warn!(%error, "which containers there are cannot be read")).ok()
    })
}

/// Lets go of what nobody needs from time to time, for as long as the node is there.
pub(crate) fn tend(context: &Arc<Context>) {
    let after = context.config.gc_after;
    let pause = (after / 4).clamp(Duration::from_secs(1), PAUSE);
    let context: Weak<Context> = Arc::downgrade(context);
    tokio::spawn(async move {
        tokio::time::sleep(pause.min(FIRST)).await;
        while let Some(context) = context.upgrade() {
            if let Err(error) = context.images.let_go(after, containers(&context)).await {
                tracing::warn!(%error, "what nobody needs could not all be removed; it is tried again");
            }
            drop(context);
            tokio::time::sleep(pause).await;
        }
    });
}
