//! A file beside the layers for each image, with everything the database says of it: so that losing the database is a rescan, not an outage.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::{Digest, ImageId};
use serde::{Deserialize, Serialize};
use store::rusqlite::{self, params};
use store::{Durability, Store};

use crate::catalog::{self, Image, NewImage, Origin, Snapshot, StoredManifest};
use crate::error::PullCause;
use crate::form::Form;
use crate::layers::Layers;
use crate::unpack::LooseEnds;

/// The version of the files' form. A newer one is not read.
const VERSION: u32 = 1;
/// The largest configuration and some names, twice over: quotes in it are escaped.
const RECORD_MAX: u64 = 32 << 20;

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    id: String,
    /// A configuration is JSON, hence text.
    config: String,
    names: Vec<String>,
    pinned: bool,
    layers: Vec<LayerRecord>,
    /// Those of older releases have none.
    #[serde(default)]
    manifests: Vec<ManifestRecord>,
}

#[derive(Serialize, Deserialize)]
struct ManifestRecord {
    digest: Digest,
    media_type: String,
    /// JSON, hence text.
    body: String,
}

#[derive(Serialize, Deserialize)]
struct LayerRecord {
    id: String,
    directory: String,
    bytes: i64,
    inodes: i64,
    loose_ends: LooseEnds,
    #[serde(default)]
    checksum: Option<String>,
}

/// The folder of these files.
#[derive(Debug)]
pub(crate) struct Records {
    folder: PathBuf,
}

impl Records {
    pub(crate) fn open(root: &Path) -> io::Result<Records> {
        let folder = root.join("images");
        std::fs::create_dir_all(&folder)?;
        Ok(Records { folder })
    }

    /// Brings the files from one state of the images to the next. They are a second copy: what cannot be written is only logged.
    pub(crate) fn follow(&self, old: &Snapshot, new: &Snapshot, store: &Store, layers: &Layers) {
        for id in old.by_id.keys().filter(|id| !new.by_id.contains_key(*id)) {
            let _ = std::fs::remove_file(self.path(id));
        }
        for (id, image) in &new.by_id {
            let same = old.by_id.get(id).is_some_and(|old| {
                Arc::ptr_eq(old, image)
                    || (&old.repo_tags, &old.repo_digests, old.pinned_by_hand, &old.layers, &old.directories)
                        == (
                            &image.repo_tags,
                            &image.repo_digests,
                            image.pinned_by_hand,
                            &image.layers,
                            &image.directories,
                        )
            });
            if same {
                continue;
            }
            self.copy(image, store, layers);
        }
    }

    /// Writes the file of one image.
    pub(crate) fn copy(&self, image: &Image, store: &Store, layers: &Layers) {
        if let Err(error) = self.write(image, store, layers) {
            tracing::warn!(image = %image.id, error, "the copy of an image's record cannot be written");
        }
    }

    fn write(&self, image: &Image, store: &Store, layers: &Layers) -> Result<(), String> {
        let path = self.path(&image.id);
        let config: Vec<u8> = store
            .read(|c| {
                c.query_row("SELECT config FROM images WHERE id = ?1", [image.id.as_str()], |row| row.get(0))
            })
            .map_err(|error| error.to_string())?;
        let manifests = catalog::manifests(store, &image.id).map_err(|error| error.to_string())?;
        let record = Record {
            version: VERSION,
            id: image.id.to_string(),
            config: String::from_utf8(config).map_err(|error| error.to_string())?,
            names: image.repo_tags.iter().chain(&image.repo_digests).cloned().collect(),
            pinned: image.pinned_by_hand,
            layers: image
                .layers
                .iter()
                .filter_map(|id| layers.published(id))
                .map(|layer| LayerRecord {
                    id: layer.id.clone(),
                    directory: layer.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    bytes: i64::try_from(layer.usage.bytes).unwrap_or(i64::MAX),
                    inodes: i64::try_from(layer.usage.inodes).unwrap_or(i64::MAX),
                    loose_ends: layer.loose_ends.clone(),
                    checksum: layer.checksum.clone(),
                })
                .collect(),
            manifests: manifests
                .into_iter()
                .filter_map(|manifest| {
                    Some(ManifestRecord {
                        digest: manifest.digest,
                        media_type: manifest.media_type,
                        body: String::from_utf8(manifest.body).ok()?,
                    })
                })
                .collect(),
        };
        let bytes = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
        sys::file::write_atomic(&path, &bytes, 0o600, sys::file::Durability::Process)
            .map_err(|error| error.to_string())
    }

    /// Fills an empty database from the files. A file that cannot be read, or whose layers are gone, is left out, and its image pulled again
    /// when it is needed.
    pub(crate) fn restore(&self, root: &Path, store: &Store) -> Result<usize, PullCause> {
        let entries = std::fs::read_dir(&self.folder).map_err(|error| PullCause::io(&self.folder, error))?;
        let mut restored = 0;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path, root) {
                Ok(record) => {
                    store.write(Durability::Process, |tx| insert(tx, &record))?;
                    restored += 1;
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "an image cannot be restored from its record");
                }
            }
        }
        Ok(restored)
    }

    fn path(&self, id: &ImageId) -> PathBuf {
        self.folder.join(format!("{}.json", id.digest().hex()))
    }
}

fn read(path: &Path, root: &Path) -> Result<Record, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > RECORD_MAX {
        return Err("it is too large".to_owned());
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if record.version > VERSION {
        return Err(format!("a newer release wrote it (version {})", record.version));
    }
    ImageId::parse(&record.id).map_err(|error| error.to_string())?;
    for layer in &record.layers {
        let plain = !layer.directory.is_empty()
            && !layer.directory.contains('/')
            && !layer.directory.starts_with('.');
        if !plain || !Form::is_at(&root.join("layers").join(&layer.directory)) {
            return Err(format!("its layer {} is gone", layer.id));
        }
    }
    Ok(record)
}

fn insert(tx: &rusqlite::Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    for layer in &record.layers {
        let loose_ends = serde_json::to_string(&layer.loose_ends)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        tx.execute(
            "INSERT OR IGNORE INTO layers (id, directory, bytes, inodes, loose_ends, checksum) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![layer.id, layer.directory, layer.bytes, layer.inodes, loose_ends, layer.checksum],
        )?;
    }
    let id =
        ImageId::parse(&record.id).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    let layers: Vec<String> = record.layers.iter().map(|layer| layer.id.clone()).collect();
    let image = NewImage { id: &id, config: record.config.as_bytes(), layers: &layers };
    let manifests = record.manifests.iter().map(|manifest| StoredManifest {
        digest: manifest.digest.clone(),
        media_type: manifest.media_type.clone(),
        body: manifest.body.clone().into_bytes(),
    });
    let origin = Origin { names: record.names.clone(), manifests: manifests.collect(), ..Origin::default() };
    catalog::insert(tx, &image, &origin)?;
    tx.execute("UPDATE images SET pinned = ?2 WHERE id = ?1", params![id.as_str(), record.pinned])?;
    Ok(())
}
