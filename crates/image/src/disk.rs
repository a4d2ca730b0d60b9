//! Disk use: what there is, who needs it, and letting go of what nobody does.

mod facts;
mod mounted;
mod plan;

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use store::{Store, rusqlite};

use crate::config::ImageConfig;
use crate::error::PullCause;
use crate::pull::{Shared, blocking};
use crate::rootfs::RootFilesystems;
use crate::standing;
use crate::tree::Usage;
use crate::{ImageError, Images};
use plan::plan;
pub use plan::{Cause, Hold, Item, Kind, Verdict};

/// Which containers there are; none: that is not known, and no container's is let go.
pub type Containers = Box<dyn Fn() -> Option<HashSet<String>> + Send>;

/// What there is on disk.
#[derive(Debug, Clone)]
pub struct Survey {
    pub items: Vec<Item>,
    /// What would be freed if the images that no container uses and nothing pins were removed.
    pub unused_images: u64,
}

impl Images {
    /// Everything on disk, with what it takes, and whether garbage collection would let it go now.
    ///
    /// # Errors
    /// What the database or the disk says.
    pub async fn survey(
        self: &Arc<Self>,
        older_than: Duration,
        containers: Containers,
    ) -> Result<Survey, ImageError> {
        let images = Arc::clone(self);
        blocking(move || {
            let rest = images.shared.layers.at_rest();
            let mut facts = facts::gather(&images.shared, images.rootfs(), &containers, older_than)?;
            // It takes as long as containers wrote much; pulls go on meanwhile.
            drop(rest);
            facts::measure(&mut facts);
            Ok(Survey { items: plan(&facts), unused_images: plan::of_unused_images(&facts) })
        })
        .await
        .map_err(ImageError::Failed)
    }

    /// Lets go of everything that nobody needs: of layers and blobs, if they have not been needed for so long. Says what there was and
    /// became of it; what a daemon that is killed meanwhile has not let go of, the next one does. Sizes are as far as they are recorded.
    ///
    /// # Errors
    /// What the database or the disk says.
    pub async fn let_go(
        self: &Arc<Self>,
        older_than: Duration,
        containers: Containers,
    ) -> Result<Vec<Item>, ImageError> {
        let images = Arc::clone(self);
        blocking(move || {
            let (shared, rootfs) = (&images.shared, images.rootfs());
            let _rest = shared.layers.at_rest();
            let items = plan(&facts::gather(shared, rootfs, &containers, older_than)?);
            carry_out(shared, rootfs, &items)?;
            Ok(items)
        })
        .await
        .map_err(ImageError::Failed)
    }

    /// What layers take that no container needs, nor an image that a container has or that is pinned: what removing all other images would
    /// free. It reads rows only.
    ///
    /// # Errors
    /// What the database says.
    pub async fn reclaimable(&self) -> Result<Usage, ImageError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || {
            let (used, mut kept) = shared.catalog.store().read(|connection| {
                let all = |sql| -> rusqlite::Result<HashSet<String>> {
                    connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
                };
                let layers = all("SELECT DISTINCT layer FROM root_filesystem_layers")?;
                Ok((all("SELECT DISTINCT image FROM root_filesystems")?, layers))
            })?;
            kept.extend(shared.layers.claimed());
            for image in shared.catalog.snapshot().by_id.values() {
                if image.pinned || used.contains(image.id.as_str()) {
                    kept.extend(image.layers.iter().cloned());
                }
            }
            let layers = shared.layers.all().into_iter().filter(|layer| !kept.contains(&layer.id));
            Ok(layers.fold(Usage::default(), |sum, layer| Usage {
                bytes: sum.bytes + layer.usage.bytes,
                inodes: sum.inodes + layer.usage.inodes,
            }))
        })
        .await
        .map_err(ImageError::Failed)
    }

    /// A path in the file system in which containers write; the images' own, if it is that.
    pub fn containers_path(&self) -> &std::path::Path {
        self.shared.config.written_root()
    }

    /// Throws away the layers that nothing needs, however young, and says what they took.
    ///
    /// # Errors
    /// What the database says.
    pub async fn collect_garbage(&self) -> Result<Usage, ImageError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.layers.collect(None)).await.map_err(ImageError::Failed)
    }
}

/// Whether everything that a container may stand on has its row. Else nothing without one goes before it was looked at more closely.
pub(crate) fn is_explained(config: &ImageConfig, store: &Store) -> Result<bool, PullCause> {
    let (containers, directories) = store.read(|connection| {
        let all = |sql| -> rusqlite::Result<HashSet<String>> {
            connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        Ok((all("SELECT container FROM root_filesystems")?, all("SELECT directory FROM layers")?))
    })?;
    let root = config.written_root();
    let explained = |folder: &PathBuf| {
        let owned = folder.file_name().and_then(|name| name.to_str()).is_some_and(|n| containers.contains(n));
        let noted = standing::read(folder).unwrap_or_default();
        owned && noted.iter().all(|directory| directories.contains(directory))
    };
    Ok(facts::entries(&root.join("rootfs")).iter().all(explained))
}

/// What containers wrote first, since layers are needed by it; and of everything, whether it is still so is asked again by whoever does
/// it.
fn carry_out(shared: &Shared, rootfs: &RootFilesystems, items: &[Item]) -> Result<(), PullCause> {
    let going = |kind| {
        let of_kind = items.iter().filter(move |item| item.kind == kind);
        of_kind.filter(|item| matches!(item.verdict, Verdict::Goes(_))).map(|item| item.name.as_str())
    };
    for container in going(Kind::Container) {
        tracing::info!(container, "what a container wrote that is not there any more is removed");
        rootfs.remove(container).map_err(|error| PullCause::Rootfs(error.to_string()))?;
    }
    let layers: BTreeSet<String> = going(Kind::Layer).map(str::to_owned).collect();
    if !layers.is_empty() {
        let freed = shared.layers.collect(Some(&layers))?;
        tracing::info!(layers = layers.len(), bytes = freed.bytes, "layers that nothing needs are removed");
    }
    for digest in going(Kind::Blob) {
        if let Ok(digest) = model::digest::Digest::parse(digest) {
            shared.blobs.remove(&digest).map_err(|error| PullCause::io(&shared.config.root, error))?;
        }
    }
    for path in going(Kind::Orphan) {
        // A path of another root is whole already.
        let path = shared.config.root.join(path);
        tracing::info!(path = %path.display(), "it has no record, and no container stands on it: it is removed");
        let trash = if path.starts_with(rootfs.folder()) { rootfs.trash() } else { shared.layers.trash() };
        trash.discard(&path);
    }
    shared.layers.trash().empty();
    rootfs.trash().empty();
    Ok(())
}

/// Lets go at once of what only an image that was just removed needed. Kept blobs go in time: they spare the next pull its registry.
pub(crate) fn after_removal(shared: &Shared, layers: &[String]) {
    let among = layers.iter().cloned().collect();
    if let Err(error) = shared.layers.collect(Some(&among)) {
        tracing::warn!(%error, "layers that nothing needs could not be removed; it is tried again later");
    }
}
