//! What of an image leaves: bit for bit what it came with as far as that is here, else its layers as plain archives under a manifest
//! that says so. The configuration, by which the image is known, is the same either way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use distribution::{Hasher, RegistryError, Session};
use model::digest::{Digest, ImageId};
use model::platform::Platform;
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use store::Store;
use store::rusqlite::OptionalExtension;
use sys::root::Root;
use tokio::runtime::Handle;

use super::{Names, SaveError};
use crate::catalog::{Image, StoredManifest};
use crate::error::PullCause;
use crate::inspect::{self, ImageDetails};
use crate::layers::Layer;
use crate::manifest::{self, Config, Document, EMPTY_CONFIG, Manifest, OCI_CONFIG, OCI_MANIFEST};
use crate::pull::Shared;
use crate::rebuild::rebuild;

const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The configuration of what has none, in full.
const EMPTY: &[u8] = b"{}";

/// An image as it leaves.
pub(crate) struct Outgoing {
    pub id: ImageId,
    pub manifest: StoredManifest,
    /// As the manifest names it.
    pub config: StoredManifest,
    /// As the manifest names them; one may come several times.
    pub layers: Vec<OutgoingLayer>,
    pub names: Names,
    /// What `names.digests` lead to: the indexes and the manifest that the image came with.
    pub originals: Vec<StoredManifest>,
    /// The manifest that the image came with.
    pub came_with: Option<StoredManifest>,
    /// Whether that is the one it leaves with.
    pub is_original: bool,
    /// None: it is an artifact.
    pub platform: Option<Platform>,
}

/// A layer's blob as it leaves.
#[derive(Clone)]
pub(crate) struct OutgoingLayer {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
    /// The blob that it came from, which some registry may have.
    pub came_from: Option<Digest>,
    pub(super) source: Source,
}

#[derive(Clone)]
pub(super) enum Source {
    /// To be made again from the layer.
    Archive { layer: Arc<Layer> },
    /// Kept as it came.
    Kept,
    /// To be fetched while it is written.
    Remote { session: Arc<Session>, runtime: Handle },
    /// The file of an artifact.
    File { layer: Arc<Layer>, name: String },
}

impl Outgoing {
    pub(crate) fn of(
        shared: &Shared,
        image: Arc<Image>,
        names: Names,
        wanted: Option<&Platform>,
    ) -> Result<Outgoing, SaveError> {
        let details = inspect::details(shared, image)?;
        let id = details.image.id.clone();
        let config = manifest::parse_config(id.as_str(), &details.config)?;
        let came_with = came_with(shared, &details)?;
        if let Some((document, manifest)) = came_with.as_ref().filter(|(_, manifest)| manifest.is_artifact())
        {
            return artifact(shared, &details, document, manifest, names);
        }
        let platform = config.platform();
        if let Some(wanted) = wanted.filter(|wanted| wanted.rank(&platform).is_none()) {
            let name = id.to_string();
            return Err(SaveError::Platform { name, wanted: wanted.clone(), offered: platform });
        }
        let original = came_with.as_ref().map(|(_, original)| original);
        let original_document = came_with.as_ref().map(|(document, _)| document.clone());
        let layers = layers(shared, &details, &config, original)?;
        let plain = |(_, original): &(StoredManifest, Manifest)| {
            original.layers.len() == layers.len()
                && original.layers.iter().zip(&layers).all(|(blob, layer)| blob.digest == layer.digest)
        };
        let (manifest, layers, config_type) = match came_with {
            Some(original) if plain(&original) => {
                let (document, original) = original;
                let types = original.layers.into_iter().map(|blob| blob.media_type);
                let layers = layers.into_iter().zip(types);
                let layers =
                    layers.map(|(layer, media_type)| OutgoingLayer { media_type, ..layer }).collect();
                (document, layers, original.config.media_type)
            }
            original => (
                made(&id, &details, &layers, original.map(|(document, _)| document)),
                layers,
                OCI_CONFIG.into(),
            ),
        };
        let is_original = original_document.as_ref().is_some_and(|one| one.digest == manifest.digest);
        Ok(Outgoing {
            came_with: original_document,
            is_original,
            config: StoredManifest {
                digest: id.digest().clone(),
                media_type: config_type,
                body: details.config,
            },
            id,
            manifest,
            layers,
            names,
            originals: details.manifests,
            platform: Some(platform),
        })
    }
}

impl OutgoingLayer {
    /// Whether it is an archive that nothing was packed of.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.source, Source::Archive { .. })
    }

    /// Writes the blob.
    ///
    /// # Errors
    /// [`SaveError::NoArchive`]: then what was written is not the blob. [`SaveError::Gone`] if it cannot be written.
    pub(crate) fn write(
        &self,
        shared: &Shared,
        image: &ImageId,
        out: &mut impl Write,
    ) -> Result<(), SaveError> {
        let lacks =
            |why: String| SaveError::NoArchive { image: image.clone(), layer: self.digest.clone(), why };
        let unreadable = |error: io::Error| lacks(error.to_string());
        match &self.source {
            Source::Archive { layer } => {
                let outline =
                    outline(shared.catalog.store(), &layer.id)?.ok_or_else(|| lacks(NO_OUTLINE.into()))?;
                let root = shared.layers.lower(&layer.path).and_then(|layer| layer.open());
                let root = root.map_err(unreadable)?;
                rebuild(&outline, root.as_fd(), &self.digest, out)
                    .map_err(|why| SaveError::rebuild(image, &self.digest, why))
            }
            Source::Kept => {
                let kept = shared.blobs.get(&self.digest).map_err(unreadable)?;
                let (file, _) = kept.ok_or_else(|| lacks("the kept blob has gone meanwhile".into()))?;
                self.copy(file, image, out)
            }
            Source::Remote { session, runtime } => self.fetch(session, runtime, out),
            Source::File { layer, name } => {
                self.copy(open_file(layer, name).map_err(unreadable)?, image, out)
            }
        }
    }

    /// Fetches the blob. What is received is checked, and the end of the archive says so if it was another.
    fn fetch(&self, session: &Arc<Session>, runtime: &Handle, out: &mut impl Write) -> Result<(), SaveError> {
        let what = format!("layer {}", self.digest);
        let _runtime = runtime.enter();
        let mut download = session.download(what.clone(), &self.digest, self.size);
        let mut hasher = Hasher::like(&self.digest);
        while let Some(bytes) = runtime.block_on(download.next()).map_err(PullCause::from)? {
            hasher.update(&bytes);
            out.write_all(&bytes).map_err(|_| SaveError::Gone)?;
        }
        let (expected, actual) = (self.digest.clone(), hasher.finish());
        match actual == expected {
            true => Ok(()),
            false => Err(PullCause::from(RegistryError::DigestMismatch { what, expected, actual }).into()),
        }
    }

    /// Copies what has to be the blob, byte for byte.
    fn copy(&self, mut file: File, image: &ImageId, out: &mut impl Write) -> Result<(), SaveError> {
        let lacks =
            |why: String| SaveError::NoArchive { image: image.clone(), layer: self.digest.clone(), why };
        let mut hasher = Hasher::like(&self.digest);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(|error| lacks(error.to_string()))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            out.write_all(&buffer[..read]).map_err(|_| SaveError::Gone)?;
        }
        let actual = hasher.finish();
        if actual == self.digest {
            Ok(())
        } else {
            Err(lacks(format!("what is on this disk has digest {actual}")))
        }
    }
}

/// The outline of a layer, if one was taken down.
fn outline(store: &Store, layer: &str) -> Result<Option<Vec<u8>>, PullCause> {
    Ok(store.read(|connection| {
        connection
            .prepare_cached("SELECT outline FROM layer_outlines WHERE layer = ?1")?
            .query_row([layer], |row| row.get(0))
            .optional()
    })?)
}

const NO_OUTLINE: &str =
    "nothing was taken down when it was unpacked, by an older release or because its archive is extreme";

/// The manifest that the image came with, if it was recorded: the one document that is no index and has this configuration.
fn came_with(
    shared: &Shared,
    details: &ImageDetails,
) -> Result<Option<(StoredManifest, Manifest)>, PullCause> {
    for document in &details.manifests {
        let what = format!("manifest {}", document.digest);
        let read = manifest::parse(&what, &document.media_type, &document.body, &shared.config.limits);
        if let Ok(Document::Manifest(manifest)) = read {
            // An artifact is known by a configuration of our own making.
            if manifest.is_artifact() || manifest.config.digest == *details.image.id.digest() {
                return Ok(Some((document.clone(), *manifest)));
            }
        }
    }
    Ok(None)
}

/// The layers: those that were kept as they came, the others as plain archives.
fn layers(
    shared: &Shared,
    details: &ImageDetails,
    config: &Config,
    original: Option<&Manifest>,
) -> Result<Vec<OutgoingLayer>, SaveError> {
    let blobs = original.map(|original| original.layers.as_slice()).unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    let mut layers = Vec::new();
    for (index, diff_id) in diff_ids.iter().enumerate() {
        let blob = blobs.get(index).filter(|_| blobs.len() == diff_ids.len());
        let kept = blob.and_then(|blob| Some((blob, shared.blobs.get(&blob.digest).ok()??.1)));
        layers.push(match kept {
            Some((blob, size)) if i64::try_from(size) == Ok(blob.size) => OutgoingLayer {
                digest: blob.digest.clone(),
                size,
                media_type: blob.media_type.clone(),
                came_from: Some(blob.digest.clone()),
                source: Source::Kept,
            },
            _ => archive(shared, &details.image.id, diff_id, blob.map(|blob| blob.digest.clone()))?,
        });
    }
    Ok(layers)
}

fn archive(
    shared: &Shared,
    image: &ImageId,
    diff_id: &Digest,
    came_from: Option<Digest>,
) -> Result<OutgoingLayer, SaveError> {
    let lacks = |why: &str| SaveError::NoArchive {
        image: image.clone(),
        layer: diff_id.clone(),
        why: why.to_owned(),
    };
    let layer = shared.layers.published(diff_id.as_str()).ok_or_else(|| lacks("it is missing on disk"))?;
    let size: Result<Option<i64>, _> = shared.catalog.store().read(|connection| {
        connection
            .prepare_cached("SELECT size FROM layer_outlines WHERE layer = ?1")?
            .query_row([diff_id.as_str()], |row| row.get(0))
            .optional()
    });
    let size = size.map_err(PullCause::from)?.ok_or_else(|| lacks(NO_OUTLINE))?;
    Ok(OutgoingLayer {
        digest: diff_id.clone(),
        size: u64::try_from(size).unwrap_or(0),
        media_type: PLAIN_LAYER.into(),
        came_from,
        source: Source::Archive { layer },
    })
}

/// A manifest for plain archives, with the annotations of the one that the image came with.
fn made(
    id: &ImageId,
    details: &ImageDetails,
    layers: &[OutgoingLayer],
    original: Option<StoredManifest>,
) -> StoredManifest {
    let descriptors = layers
        .iter()
        .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }));
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": { "mediaType": OCI_CONFIG, "digest": id.digest(), "size": details.config.len() },
        "layers": descriptors.collect::<Vec<_>>(),
    });
    let original = original.and_then(|original| serde_json::from_slice::<Value>(&original.body).ok());
    if let Some(annotations) = original.as_ref().and_then(|original| original["annotations"].as_object()) {
        manifest["annotations"] = annotations.clone().into();
    }
    let body = manifest.to_string().into_bytes();
    StoredManifest { digest: digest(&body), media_type: OCI_MANIFEST.into(), body }
}

/// An artifact's files are its blobs, so that it leaves as it came.
fn artifact(
    shared: &Shared,
    details: &ImageDetails,
    document: &StoredManifest,
    manifest: &Manifest,
    names: Names,
) -> Result<Outgoing, SaveError> {
    let id = details.image.id.clone();
    let what = format!("manifest {}", document.digest);
    let mut layers = Vec::new();
    for source in crate::artifact::sources(&what, manifest)? {
        let digest = source.blob.digest;
        let lacks = || SaveError::NoArchive {
            image: id.clone(),
            layer: digest.clone(),
            why: "it is missing on disk".into(),
        };
        let layer = shared.layers.published(source.diff_id.as_str()).ok_or_else(lacks)?;
        let name = source.file.unwrap_or_default();
        layers.push(OutgoingLayer {
            size: u64::try_from(source.blob.size).unwrap_or(0),
            media_type: source.blob.media_type,
            came_from: Some(digest.clone()),
            digest,
            source: Source::File { layer, name },
        });
    }
    let wanted = &manifest.config.digest;
    let kept = details.manifests.iter().find(|document| document.digest == *wanted).cloned();
    let config = kept.unwrap_or_else(empty);
    if config.digest != *wanted {
        let why = "its configuration was not recorded by the release that pulled it".to_owned();
        return Err(SaveError::NoArchive { image: id, layer: wanted.clone(), why });
    }
    Ok(Outgoing {
        id,
        manifest: document.clone(),
        config,
        layers,
        names,
        came_with: Some(document.clone()),
        is_original: true,
        originals: details.manifests.iter().filter(|kept| kept.digest != *wanted).cloned().collect(),
        platform: None,
    })
}

fn open_file(layer: &Layer, name: &str) -> io::Result<File> {
    let root = Root::from_fd(File::open(&layer.path)?.into());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(root.open_at(&PathBuf::from(name), flags, Mode::empty())?.into())
}

/// The configuration of what has none.
pub(super) fn empty() -> StoredManifest {
    StoredManifest { digest: digest(EMPTY), media_type: EMPTY_CONFIG.into(), body: EMPTY.into() }
}

/// The SHA-256 of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}
