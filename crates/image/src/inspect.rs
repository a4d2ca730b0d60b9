//! Everything that is known of one image.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::digest::Digest;
use store::rusqlite;

use crate::catalog::{self, Image, StoredManifest};
use crate::error::PullCause;
use crate::pull::{Shared, blocking};
use crate::tree::Usage;
use crate::{ImageError, Images, manifest};

/// An image, its documents byte for byte, and its layers.
#[derive(Debug, Clone)]
pub struct ImageDetails {
    pub image: Arc<Image>,
    /// Its digest is the image's id.
    pub config: Vec<u8>,
    /// The manifest and the indexes that led to it; none of one that was pulled before they were recorded.
    pub manifests: Vec<StoredManifest>,
    /// As the configuration names them, the lowest first.
    pub layers: Vec<LayerDetails>,
}

/// One layer of an image.
#[derive(Debug, Clone)]
pub struct LayerDetails {
    pub diff_id: Digest,
    /// The blob it came from.
    pub blob: Option<Digest>,
    pub usage: Usage,
    /// None: it is missing.
    pub path: Option<PathBuf>,
}

impl Images {
    /// Reads everything that is known of the image that `name` leads to; none if there is none.
    ///
    /// # Errors
    /// [`ImageError`]: the name is ambiguous, or what the database says.
    pub async fn details(&self, name: &str) -> Result<Option<ImageDetails>, ImageError> {
        let Some(image) = self.find(name)? else { return Ok(None) };
        let shared = Arc::clone(&self.shared);
        blocking(move || details(&shared, image).map(Some)).await.map_err(ImageError::Failed)
    }
}

/// Reads it from the database.
pub(crate) fn details(shared: &Shared, image: Arc<Image>) -> Result<ImageDetails, PullCause> {
    let store = shared.catalog.store();
    let config = config_of(store, &image)?;
    let manifests = catalog::manifests(store, &image.id)?;
    let diff_ids = manifest::parse_config(image.id.as_str(), &config)?.rootfs.diff_ids;
    let blobs = blobs(store)?;
    let layers = diff_ids.into_iter().map(|diff_id| {
        let layer = shared.layers.published(diff_id.as_str());
        LayerDetails {
            blob: blobs.get(diff_id.as_str()).and_then(|blob| Digest::parse(blob).ok()),
            usage: layer.as_ref().map(|layer| layer.usage).unwrap_or_default(),
            path: layer.map(|layer| layer.path.clone()),
            diff_id,
        }
    });
    Ok(ImageDetails { config, manifests, layers: layers.collect(), image })
}

fn config_of(store: &store::Store, image: &Image) -> Result<Vec<u8>, PullCause> {
    Ok(store.read(|connection| {
        connection
            .prepare_cached("SELECT config FROM images WHERE id = ?1")?
            .query_row([image.id.as_str()], |row| row.get(0))
    })?)
}

/// Which layer came from which blob, by layer.
fn blobs(store: &store::Store) -> Result<HashMap<String, String>, PullCause> {
    Ok(store.read(|connection| {
        let mut statement = connection.prepare_cached("SELECT layer, digest FROM layer_blobs")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<rusqlite::Result<_>>()
    })?)
}
