//! containerd's store: names in a bbolt database, blobs by digest beside it. It is read as it lies on the disk, so that containerd may run
//! or not; it is never written to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use distribution::Hasher;
use model::digest::Digest;
use model::reference::ImageReference;
use rustix::fs::{Mode, OFlags};

use super::bolt::{Bolt, Item};
use super::take::Incoming;
use super::{Contents, LoadError, Wish, layout};
use crate::config::Limits;
use crate::error::PullCause;
use crate::manifest::LayerSource;

const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";
const BLOBS: &str = "io.containerd.content.v1.content/blobs";

/// A store and the images of one namespace in it.
pub(super) struct Containerd {
    root: PathBuf,
    /// Digest and media type that each name leads to.
    images: BTreeMap<String, (Digest, String)>,
}

impl Containerd {
    pub(super) fn open(root: &Path, namespace: &str) -> Result<Containerd, LoadError> {
        let path = root.join(DATABASE);
        let failed = |source: io::Error| LoadError::Store { path: path.clone(), source };
        let bolt = File::open(&path).and_then(Bolt::read).map_err(failed)?;
        let images = images(&bolt, namespace).map_err(failed)?;
        let images = images.ok_or_else(|| {
            let known = namespaces(&bolt).join(", ");
            failed(io::Error::other(format!("it has no images in namespace {namespace:?}, but in: {known}")))
        })?;
        Ok(Containerd { root: root.to_owned(), images })
    }

    /// The names of its images. Its CRI plugin gives each also its id for a name, which says nothing more.
    pub(super) fn names(&self) -> Vec<String> {
        let is_name = |name: &&String| !name.starts_with("sha256:") && ImageReference::parse(name).is_ok();
        self.images.keys().filter(is_name).cloned().collect()
    }

    pub(super) fn image(&self, name: &str, wish: &Wish, limits: &Limits) -> Result<Incoming, LoadError> {
        let missing = || LoadError::entry(name, "is not in containerd's database");
        let (digest, media_type) = self.images.get(name).cloned().ok_or_else(missing)?;
        let entry = layout::entry(name, digest, media_type);
        layout::image(self, vec![entry], wish, limits)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>, LoadError> {
        let path = self.root.join(BLOBS).join(digest.algorithm().name()).join(digest.hex());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => Ok(Some(file.into())),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(LoadError::Store { path, source: error.into() }),
        }
    }
}

impl Contents for Containerd {
    fn document(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
        let Some(file) = self.blob(digest)? else { return Ok(None) };
        let mut body = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut body);
        read.map_err(|source| LoadError::Store { path: self.root.clone(), source })?;
        if body.len() as u64 > limit {
            return Err(PullCause::TooLarge { what: digest.to_string(), limit, unit: "bytes" }.into());
        }
        let mut hasher = Hasher::like(digest);
        hasher.update(&body);
        let actual = hasher.finish();
        match actual == *digest {
            true => Ok(Some(body)),
            false => {
                Err(LoadError::entry(digest.as_str(), format!("of containerd's store has digest {actual}")))
            }
        }
    }

    fn layer<'a>(&'a self, source: &LayerSource) -> Result<Box<dyn Read + Send + 'a>, LoadError> {
        let digest = &source.blob.digest;
        let missing = || LoadError::Missing {
            what: "the image (containerd lets packed layers go where discard_unpacked_layers is set)".into(),
            digest: digest.clone(),
        };
        Ok(Box::new(self.blob(digest)?.ok_or_else(missing)?))
    }
}

/// The images of a namespace; none if there is no such namespace.
fn images(bolt: &Bolt, namespace: &str) -> io::Result<Option<BTreeMap<String, (Digest, String)>>> {
    let Some(bucket) = bolt.at(&[b"v1", namespace.as_bytes(), b"images"])? else { return Ok(None) };
    let mut images = BTreeMap::new();
    for (name, item) in bolt.entries(bucket)? {
        let (Ok(name), Item::Bucket(image)) = (std::str::from_utf8(name), item) else { continue };
        let target = bolt.entries(image)?.into_iter().find(|(key, _)| *key == b"target");
        let Some((_, Item::Bucket(target))) = target else { continue };
        let fields = bolt.entries(target)?;
        let text = |wanted: &[u8]| {
            fields.iter().find_map(|(key, item)| match item {
                Item::Value(value) if *key == wanted => std::str::from_utf8(value).ok(),
                _ => None,
            })
        };
        if let Some(digest) = text(b"digest").and_then(|digest| Digest::parse(digest).ok()) {
            images.insert(name.to_owned(), (digest, text(b"mediatype").unwrap_or_default().to_owned()));
        }
    }
    Ok(Some(images))
}

/// The namespaces that have images.
fn namespaces(bolt: &Bolt) -> Vec<String> {
    let top = bolt.at(&[b"v1"]).ok().flatten();
    let all = top.and_then(|top| bolt.entries(top).ok()).unwrap_or_default();
    let with_images =
        all.into_iter().filter(|(name, _)| matches!(bolt.at(&[b"v1", name, b"images"]), Ok(Some(_))));
    with_images.take(20).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}
