//! The archive that images are saved in: an OCI layout that is at the same time a Docker archive, with everything that says what comes
//! before what comes, so that a reader needs no second pass.

use std::collections::HashSet;
use std::io::{self, Write};

use model::digest::Digest;
use serde_json::{Value, json};

use super::{NAME, ORIGINALS, Outgoing, REF_NAME, REPO_DIGESTS, SaveError};
use crate::manifest::OCI_INDEX;
use crate::pull::Shared;
use crate::tar::{Metadata, Writer};

/// Writes all of it.
pub(super) fn write(shared: &Shared, images: &[Outgoing], sink: impl Write) -> Result<(), SaveError> {
    let mut out = Out { tar: Writer::new(sink), written: HashSet::new() };
    out.text("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
    out.text("index.json", &index(images))?;
    out.text("manifest.json", &docker(images))?;
    for image in images {
        for document in image.originals.iter().chain([&image.manifest, &image.config]) {
            out.blob(&document.digest, document.body.len() as u64, |to| {
                to.write_all(&document.body).map_err(|_| SaveError::Gone)
            })?;
        }
    }
    for image in images {
        for layer in &image.layers {
            out.blob(&layer.digest, layer.size, |mut to| layer.write(shared, &image.id, &mut to))?;
        }
    }
    out.tar.finish().map(drop).map_err(|_| SaveError::Gone)
}

struct Out<W: Write> {
    tar: Writer<W>,
    written: HashSet<Digest>,
}

impl<W: Write> Out<W> {
    fn text(&mut self, name: &str, value: &Value) -> Result<(), SaveError> {
        let text = value.to_string();
        let written = self.tar.file(name.as_bytes(), &metadata(), text.len() as u64, text.as_bytes());
        written.map_err(|_| SaveError::Gone)
    }

    /// A blob once, however often it is wanted.
    fn blob(
        &mut self,
        digest: &Digest,
        size: u64,
        content: impl FnOnce(&mut dyn Write) -> Result<(), SaveError>,
    ) -> Result<(), SaveError> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let name = path(digest);
        let mut failed = None;
        let written = self.tar.file_from(name.as_bytes(), &metadata(), size, |to| {
            content(to).map_err(|error| {
                failed = Some(error);
                io::ErrorKind::Other.into()
            })
        });
        match (written, failed) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(error)) => Err(error),
            (Err(_), None) => Err(SaveError::Gone),
        }
    }
}

fn metadata() -> Metadata {
    Metadata { mode: 0o644, ..Metadata::private(0) }
}

/// Where a layout has a blob.
pub(crate) fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// One entry for each name with a tag; an image without one has one entry too.
fn index(images: &[Outgoing]) -> Value {
    let mut entries = Vec::new();
    for image in images {
        let mut entry = json!({
            "mediaType": image.manifest.media_type,
            "digest": image.manifest.digest,
            "size": image.manifest.body.len(),
        });
        if let Some(platform) = &image.platform {
            entry["platform"] = json!({ "os": platform.os, "architecture": platform.architecture });
            if !platform.variant.is_empty() {
                entry["platform"]["variant"] = platform.variant.as_str().into();
            }
        }
        if !image.names.digests.is_empty() && !image.originals.is_empty() {
            let originals: Vec<&str> =
                image.originals.iter().map(|original| original.digest.as_str()).collect();
            entry["annotations"][REPO_DIGESTS] = image.names.digests.join(",").into();
            entry["annotations"][ORIGINALS] = originals.join(",").into();
        }
        if image.names.tags.is_empty() {
            entries.push(entry);
            continue;
        }
        for name in &image.names.tags {
            let mut named = entry.clone();
            named["annotations"][NAME] = name.as_str().into();
            named["annotations"][REF_NAME] = name.rsplit(':').next().unwrap_or_default().into();
            entries.push(named);
        }
    }
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries })
}

/// What Docker reads, of what it can read: images.
fn docker(images: &[Outgoing]) -> Value {
    let images = images.iter().filter(|image| image.platform.is_some()).map(|image| {
        json!({
            "Config": path(&image.config.digest),
            "RepoTags": image.names.tags,
            "Layers": image.layers.iter().map(|layer| path(&layer.digest)).collect::<Vec<_>>(),
        })
    });
    Value::Array(images.collect())
}
