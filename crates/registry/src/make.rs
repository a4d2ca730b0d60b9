//! Makes images on the spot: layers from entries, a configuration, a manifest, and an index where there are several platforms.

use std::io::Write;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};

use crate::Blob;
use crate::tar::{self, Entry};

/// How a layer's archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// Whose media types the manifests carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Oci,
    Docker,
}

/// A manifest or an index as it is served.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub media_type: String,
    pub body: Bytes,
}

impl Manifest {
    /// From its bytes.
    pub fn new(media_type: &str, body: &[u8]) -> Manifest {
        Manifest { media_type: media_type.to_owned(), body: Bytes::copy_from_slice(body) }
    }
}

/// A layer: its archive, packed.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of the packed bytes.
    pub digest: String,
    /// Digest of the archive.
    pub diff_id: String,
    pub packed: Bytes,
    pub compression: Compression,
}

/// An image with everything a registry serves of it.
#[derive(Debug, Clone)]
pub struct Image {
    /// Of the manifest or the index that a tag leads to.
    pub digest: String,
    /// Of the configuration: the image's id. Of an index: the first image's.
    pub id: String,
    pub layers: Vec<Layer>,
    pub blobs: Vec<(String, Blob)>,
    pub manifests: Vec<(String, Manifest)>,
}

/// The media type of an image's manifest, and an artifact's.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `sha256:...` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

/// `sha512:...` of some bytes.
pub fn sha512(bytes: &[u8]) -> String {
    format!("sha512:{}", hex(&Sha512::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A pointer to bytes, as manifests have it.
pub fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

impl Layer {
    /// From entries.
    pub fn new(entries: &[Entry], compression: Compression) -> Layer {
        Layer::from_archive(&tar::archive(entries), compression)
    }

    /// From the bytes of an archive, or of something that is none.
    ///
    /// # Panics
    /// If the packer fails on memory, which it does not.
    pub fn from_archive(archive: &[u8], compression: Compression) -> Layer {
        let packed = match compression {
            Compression::Plain => archive.to_vec(),
            Compression::Gzip => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(archive).and_then(|()| packer.finish()).expect("packing in memory")
            }
            Compression::Zstd => zstd::encode_all(archive, 1).expect("packing in memory"),
        };
        Layer { digest: sha256(&packed), diff_id: sha256(archive), packed: packed.into(), compression }
    }
}

impl Image {
    /// The same image with its manifest changed, and all that follows from it.
    ///
    /// # Panics
    /// If its manifest is no JSON.
    pub fn edited(self, change: impl FnOnce(&mut Value)) -> Image {
        let own = self.manifests.iter().position(|(digest, _)| *digest == self.digest);
        let (media_type, body) = own.map_or((MANIFEST.to_owned(), Bytes::from_static(b"{}")), |at| {
            (self.manifests[at].1.media_type.clone(), self.manifests[at].1.body.clone())
        });
        let mut value = serde_json::from_slice(&body).expect("a manifest");
        change(&mut value);
        self.with_manifest(&media_type, value.to_string().as_bytes())
    }

    /// The same image with another text for a manifest.
    pub fn with_manifest(mut self, media_type: &str, body: &[u8]) -> Image {
        self.digest = sha256(body);
        self.manifests.push((self.digest.clone(), Manifest::new(media_type, body)));
        self
    }

    /// The same image with another text for a configuration, to which its manifest leads.
    pub fn with_config(mut self, config: &[u8]) -> Image {
        self.id = sha256(config);
        self.blobs.push((self.id.clone(), Blob::Memory(Bytes::copy_from_slice(config))));
        let (id, size) = (self.id.clone(), config.len());
        self.edited(|manifest| {
            manifest["config"]["digest"] = id.into();
            manifest["config"]["size"] = size.into();
        })
    }
}

/// What to make an image of.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    layers: Vec<Layer>,
    run: Value,
    flavour: Flavour,
    architecture: String,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        ImageBuilder::new()
    }
}

impl ImageBuilder {
    /// An image without layers, for the platform of this program.
    pub fn new() -> ImageBuilder {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        ImageBuilder {
            layers: Vec::new(),
            run: json!({}),
            flavour: Flavour::Oci,
            architecture: architecture.into(),
        }
    }

    /// With one layer more on top.
    pub fn layer(mut self, layer: Layer) -> ImageBuilder {
        self.layers.push(layer);
        self
    }

    /// With this `config` object: `{"Cmd": [...], "Env": [...], "User": ...}`.
    pub fn run(mut self, run: Value) -> ImageBuilder {
        self.run = run;
        self
    }

    /// With other media types.
    pub fn flavour(mut self, flavour: Flavour) -> ImageBuilder {
        self.flavour = flavour;
        self
    }

    /// For another architecture, in Go's spelling.
    pub fn architecture(mut self, architecture: &str) -> ImageBuilder {
        self.architecture = architecture.to_owned();
        self
    }

    /// Makes it.
    pub fn build(&self) -> Image {
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": self.run,
            "rootfs": {
                "type": "layers",
                "diff_ids": self.layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>(),
            },
        })
        .to_string();
        let id = sha256(config.as_bytes());
        let oci = self.flavour == Flavour::Oci;
        let (media_type, config_type) = if oci {
            (MANIFEST, "application/vnd.oci.image.config.v1+json")
        } else {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            )
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| descriptor(layer_type(oci, layer.compression), &layer.digest, layer.packed.len()))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": descriptor(config_type, &id, config.len()),
            "layers": layers,
        })
        .to_string();
        let digest = sha256(manifest.as_bytes());
        let mut blobs = vec![(id.clone(), Blob::Memory(config.into()))];
        blobs.extend(
            self.layers.iter().map(|layer| (layer.digest.clone(), Blob::Memory(layer.packed.clone()))),
        );
        let manifests = vec![(digest.clone(), Manifest::new(media_type, manifest.as_bytes()))];
        Image { digest, id, layers: self.layers.clone(), blobs, manifests }
    }
}

fn layer_type(oci: bool, compression: Compression) -> &'static str {
    match (oci, compression) {
        (true, Compression::Plain) => "application/vnd.oci.image.layer.v1.tar",
        (true, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (true, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (false, Compression::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
        (false, Compression::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        (false, Compression::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
}

/// An index that offers these images, each for the platform `os/architecture` or `os/architecture/variant` beside it.
pub fn index(images: &[(&str, Image)]) -> Image {
    let mut whole = Image {
        digest: String::new(),
        id: images.first().map(|(_, image)| image.id.clone()).unwrap_or_default(),
        layers: Vec::new(),
        blobs: Vec::new(),
        manifests: Vec::new(),
    };
    let mut entries = Vec::new();
    for (platform, image) in images {
        let mut parts = platform.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let manifest = image.manifests.iter().find(|(digest, _)| *digest == image.digest);
        let (kind, size) = manifest.map(|(_, m)| (m.media_type.clone(), m.body.len())).unwrap_or_default();
        let mut platform = json!({ "os": part(), "architecture": part() });
        let variant = part();
        if !variant.is_empty() {
            platform["variant"] = variant.into();
        }
        let mut entry = descriptor(&kind, &image.digest, size);
        entry["platform"] = platform;
        entries.push(entry);
        whole.blobs.extend(image.blobs.iter().cloned());
        whole.manifests.extend(image.manifests.iter().cloned());
        whole.layers.extend(image.layers.iter().cloned());
    }
    let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries }).to_string();
    whole.digest = sha256(body.as_bytes());
    whole.manifests.push((whole.digest.clone(), Manifest::new(INDEX, body.as_bytes())));
    whole
}

/// An artifact of these blobs, each with its media type and annotations (null for none), that says something of `subject` if there is one.
pub fn artifact(artifact_type: &str, subject: Option<&Image>, blobs: &[(&str, &[u8], Value)]) -> Image {
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    let empty = sha256(b"{}");
    let layers: Vec<Value> = blobs
        .iter()
        .map(|(kind, bytes, annotations)| {
            let mut layer = descriptor(kind, &sha256(bytes), bytes.len());
            if !annotations.is_null() {
                layer["annotations"] = annotations.clone();
            }
            layer
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": descriptor(EMPTY, &empty, 2),
        "layers": layers,
    });
    if let Some(subject) = subject {
        let own = subject.manifests.iter().find(|(digest, _)| *digest == subject.digest);
        let (kind, size) = own.map_or((MANIFEST, 0), |(_, m)| (m.media_type.as_str(), m.body.len()));
        manifest["subject"] = descriptor(kind, &subject.digest, size);
    }
    let body = manifest.to_string();
    let digest = sha256(body.as_bytes());
    let mut all = vec![(empty.clone(), Blob::Memory(Bytes::from_static(b"{}")))];
    all.extend(
        blobs.iter().map(|(_, bytes, _)| (sha256(bytes), Blob::Memory(Bytes::copy_from_slice(bytes)))),
    );
    let manifests = vec![(digest.clone(), Manifest::new(MANIFEST, body.as_bytes()))];
    Image { digest, id: empty, layers: Vec::new(), blobs: all, manifests }
}
