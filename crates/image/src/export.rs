//! Images that leave this machine: what exactly goes, and the archive it goes in.

mod archive;
mod folder;
mod outgoing;
mod remote;

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use model::digest::{Digest, ImageId};
use model::platform::Platform;
use model::reference::ImageReference;
use tokio::sync::mpsc;

use crate::Images;
use crate::catalog::{self, Ambiguous, Image};
use crate::error::PullCause;
use crate::layers::Lease;
use crate::pull::Shared;
use crate::rebuild::RebuildError;

pub use folder::{read_layout, write_layout};
pub(crate) use outgoing::{Outgoing, OutgoingLayer, digest};

/// The annotations of an archive's index that names stand in. The first is containerd's, the second OCI's; the third is for names with
/// digests, which other programs must not take for their own: it is a list with commas.
pub(crate) const NAME: &str = "io.containerd.image.name";
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
pub(crate) const REPO_DIGESTS: &str = "io.pintle.image.repo-digests";
/// The digests of the documents that those names lead to, in the same form. They lie in the archive as blobs.
pub(crate) const ORIGINALS: &str = "io.pintle.image.manifests";

/// How many pieces the archive may be ahead of whoever takes it, and the size of each.
const AHEAD: usize = 4;
const PIECE: usize = 256 << 10;

/// What to save.
#[derive(Debug, Clone, Default)]
pub struct SaveRequest {
    /// By name, id or the beginning of an id.
    pub images: Vec<String>,
    /// Refuse images that are not for this platform.
    pub platform: Option<Platform>,
}

/// Why images could not leave.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    #[error("no image is named")]
    Nothing,
    #[error("there is no image {name:?}; `pintle images` shows those there are")]
    Absent { name: String },
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("image {name:?} is for {offered}, not {wanted}")]
    Platform { name: String, wanted: Platform, offered: Platform },
    #[error(
        "layer {layer} of image {image} cannot be made again: {why}; remove the image and pull it anew, or save it with --from-registry"
    )]
    NoArchive { image: ImageId, layer: Digest, why: String },
    #[error("the client that the archive was for has gone")]
    Gone,
    #[error("{0}")]
    Failed(#[from] PullCause),
}

/// Images that were looked at and are ready to leave. As long as this is there, their layers are.
pub struct Saving {
    shared: Arc<Shared>,
    images: Vec<Outgoing>,
    _lease: Lease,
}

impl Images {
    /// Looks at images that are to be saved, so that what cannot be saved is refused before the first byte.
    ///
    /// # Errors
    /// [`SaveError`].
    pub async fn save(&self, request: SaveRequest) -> Result<Saving, SaveError> {
        if request.images.is_empty() {
            return Err(SaveError::Nothing);
        }
        let mut wanted: Vec<(Arc<Image>, Names)> = Vec::new();
        for name in &request.images {
            let image = self.find(name)?.ok_or_else(|| SaveError::Absent { name: name.clone() })?;
            let names = Names::of(&image, name);
            match wanted.iter_mut().find(|(known, _)| known.id == image.id) {
                Some((_, known)) => known.add(names),
                None => wanted.push((image, names)),
            }
        }
        let shared = Arc::clone(&self.shared);
        let work = move || {
            let layers = wanted.iter().flat_map(|(image, _)| image.layers.iter().cloned());
            let _lease = shared.layers.lease(layers);
            let mut images = Vec::new();
            for (image, names) in wanted {
                images.push(Outgoing::of(&shared, image, names, request.platform.as_ref())?);
            }
            Ok(Saving { shared, images, _lease })
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(SaveError::Failed(PullCause::Interrupted)))
    }
}

impl Saving {
    /// The archive, piece by piece. If the last piece is an error, what came before it is no archive.
    pub fn stream(self) -> mpsc::Receiver<Result<Bytes, SaveError>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let mut sink = Sink { sender, piece: Vec::with_capacity(PIECE) };
            let written = archive::write(&self.shared, &self.images, &mut sink);
            match written.and_then(|()| sink.flush().map_err(|_| SaveError::Gone)) {
                Ok(()) | Err(SaveError::Gone) => {}
                Err(error) => drop(sink.sender.blocking_send(Err(error))),
            }
        });
        receiver
    }
}

/// The names that an image leaves under.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Whole names with tags.
    pub tags: Vec<String>,
    /// Whole names with digests.
    pub digests: Vec<String>,
}

impl Names {
    /// A name with a tag takes that one along, and those with digests of the same repository; an id takes only those with digests.
    fn of(image: &Image, asked: &str) -> Names {
        let reference = ImageReference::parse(asked).ok();
        let name = reference.as_ref().map(catalog::stored_name);
        let tags = image.repo_tags.iter().filter(|tag| Some(*tag) == name.as_ref()).cloned().collect();
        let by_name = |digest: &str| match reference.as_ref().filter(|_| is_name_of(image, name.as_deref())) {
            Some(reference) => digest.split('@').next() == Some(&reference.name()),
            None => true,
        };
        let digests = image.repo_digests.iter().filter(|digest| by_name(digest)).cloned().collect();
        Names { tags, digests }
    }

    fn add(&mut self, more: Names) {
        for (known, new) in [(&mut self.tags, more.tags), (&mut self.digests, more.digests)] {
            for name in new {
                if !known.contains(&name) {
                    known.push(name);
                }
            }
        }
    }
}

/// An id's digits may look like a name.
fn is_name_of(image: &Image, name: Option<&str>) -> bool {
    name.is_some_and(|name| image.repo_tags.iter().chain(&image.repo_digests).any(|known| known == name))
}

/// Bytes on their way out of a thread that may wait.
struct Sink {
    sender: mpsc::Sender<Result<Bytes, SaveError>>,
    piece: Vec<u8>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl SaveError {
    fn rebuild(image: &ImageId, layer: &Digest, why: RebuildError) -> SaveError {
        match why {
            RebuildError::Write(_) => SaveError::Gone,
            why => SaveError::NoArchive { image: image.clone(), layer: layer.clone(), why: why.to_string() },
        }
    }
}
