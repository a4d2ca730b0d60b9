//! Pushing an image. If the registry has, or can be given, the very blobs that the image came with, it gets the manifest that the image came
//! with, and the digest stays. Else the layers are made again, packed, and sent under a manifest that says so.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use distribution::{Begun, Credentials, Hasher, RegistryError, Session};
use flate2::write::GzEncoder;
use model::digest::{Digest, ImageId};
use model::platform::Platform;
use model::reference::{BadReference, ImageReference};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::Images;
use crate::bulk;
use crate::catalog::{self, StoredManifest};
use crate::error::PullCause;
use crate::export::{Names, Outgoing, OutgoingLayer, SaveError, digest};
use crate::manifest::{OCI_CONFIG, OCI_MANIFEST};
use crate::pull::{Shared, blocking};

/// Bytes of one piece of an upload. It is held until the registry has it.
const PIECE: usize = 4 << 20;
/// Layers that are sent side by side: each has up to three pieces in memory.
const AT_ONCE: usize = 3;
const PACKED_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What to push.
#[derive(Debug, Clone, Default)]
pub struct PushRequest {
    /// By name, id or the beginning of an id.
    pub image: String,
    /// Where to, with a tag; none: the image's name is where.
    pub destination: Option<String>,
    pub credentials: Option<Credentials>,
    /// Refuse an image that is not for this platform.
    pub platform: Option<Platform>,
}

/// How far a push is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushEvent {
    /// The registry had this layer, or took it from another of its repositories.
    Present { layer: Digest },
    /// So many bytes of the layer were sent.
    Sent { layer: Digest, bytes: u64 },
    /// The layer is there.
    Done { layer: Digest },
}

/// What came of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    pub name: String,
    pub digest: Digest,
    /// Whether it is the manifest that the image came with.
    pub unchanged: bool,
}

/// Why a push failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error(transparent)]
    BadName(#[from] BadReference),
    #[error("{name:?} says no tag to push to; name one as the destination")]
    NoTag { name: String },
    #[error("{0}")]
    Image(#[from] SaveError),
    #[error("pushing to {name}: {cause}{}", tried(.attempts))]
    Registry { name: String, cause: Box<RegistryError>, attempts: Vec<distribution::Attempt> },
    #[error("{0}")]
    Failed(#[from] PullCause),
}

fn tried(attempts: &[distribution::Attempt]) -> String {
    attempts.iter().map(|attempt| format!("; {}: {}", attempt.url, attempt.outcome)).collect()
}

impl Images {
    /// Pushes an image. What happens is told to `events` as far as somebody listens.
    ///
    /// # Errors
    /// [`PushError`]. Blobs that were sent stay with the registry, which collects what no manifest names.
    pub async fn push(
        &self,
        request: PushRequest,
        events: mpsc::Sender<PushEvent>,
    ) -> Result<Pushed, PushError> {
        let to = request.destination.clone().unwrap_or_else(|| request.image.clone());
        let reference = ImageReference::parse(&to)?;
        if reference.digest().is_some() || reference.tag().is_none() {
            return Err(PushError::NoTag { name: to });
        }
        let image = self.find(&request.image).map_err(SaveError::from)?;
        let image = image.ok_or_else(|| SaveError::Absent { name: request.image.clone() })?;
        let shared = Arc::clone(&self.shared);
        let _lease = shared.layers.lease(image.layers.iter().cloned());
        // Where it came from, the registry may have its blobs.
        let siblings: Vec<String> = image
            .repo_tags
            .iter()
            .chain(&image.repo_digests)
            .filter_map(|name| ImageReference::parse(name).ok())
            .filter(|name| name.domain() == reference.domain() && name.path() != reference.path())
            .map(|name| name.path().to_owned())
            .collect();
        let (of, platform) = (Arc::clone(&shared), request.platform.clone());
        let made = move || Outgoing::of(&of, image, Names::default(), platform.as_ref());
        let outgoing = tokio::task::spawn_blocking(made).await.map_err(|_| PullCause::Interrupted)??;
        let (sources, name) = (shared.config.registries.clone(), to.clone());
        let plan = blocking(move || sources.plan(&name).map_err(PullCause::from)).await?;
        let candidate = plan.candidates.into_iter().next().ok_or(PullCause::Interrupted)?;
        let client = Arc::clone(&self.client);
        let session = candidate.session_to_push(client, request.credentials.as_ref());
        let push = Arc::new(Push { shared, session, outgoing: Arc::new(outgoing), siblings, events });
        let name = catalog::stored_name(&candidate.reference);
        push.run(reference.tag().unwrap_or_default(), &name).await.map_err(|cause| match cause {
            Cause::Registry(cause) => {
                let attempts = push.session.attempts();
                PushError::Registry { name, cause: Box::new(cause), attempts }
            }
            Cause::Image(error) => error.into(),
        })
    }
}

enum Cause {
    Registry(RegistryError),
    Image(SaveError),
}

impl From<RegistryError> for Cause {
    fn from(cause: RegistryError) -> Cause {
        Cause::Registry(cause)
    }
}

/// A layer as the registry has it now.
struct There {
    media_type: String,
    digest: Digest,
    size: u64,
}

struct Push {
    shared: Arc<Shared>,
    session: Session,
    outgoing: Arc<Outgoing>,
    /// Repositories of the same registry that may have the blobs.
    siblings: Vec<String>,
    events: mpsc::Sender<PushEvent>,
}

impl Push {
    async fn run(self: &Arc<Self>, tag: &str, name: &str) -> Result<Pushed, Cause> {
        let Outgoing { manifest, config, layers, .. } = &*self.outgoing;
        let original = self.as_it_came().await?;
        let (manifest, unchanged) = match original {
            Some(original) => (original, true),
            None => {
                let there = self.layers().await?;
                let same = layers.iter().zip(&there).all(|(layer, there)| layer.digest == there.digest);
                match same {
                    true => (manifest.clone(), self.outgoing.is_original),
                    false => (self.packed(&there), false),
                }
            }
        };
        self.small(config).await?;
        self.session.put_manifest(tag, &manifest.media_type, manifest.body.clone().into()).await?;
        Ok(Pushed { name: name.to_owned(), digest: manifest.digest, unchanged })
    }

    /// The manifest that the image came with, if the registry has all its blobs, or can take them from other repositories.
    async fn as_it_came(&self) -> Result<Option<StoredManifest>, Cause> {
        let Some(original) = &self.outgoing.came_with else { return Ok(None) };
        let mut present = Vec::new();
        for layer in &self.outgoing.layers {
            let Some(blob) = &layer.came_from else { return Ok(None) };
            if !present.contains(blob) && !self.is_there(blob).await? {
                return Ok(None);
            }
            present.push(blob.clone());
        }
        for layer in present {
            self.tell(PushEvent::Present { layer }).await;
        }
        Ok(Some(original.clone()))
    }

    /// Whether the repository has a blob, perhaps now that it was mounted.
    async fn is_there(&self, digest: &Digest) -> Result<bool, RegistryError> {
        if self.session.has_blob(digest).await?.is_some() {
            return Ok(true);
        }
        for sibling in &self.siblings {
            let what = format!("blob {digest}");
            // A registry that will not mount begins an upload, which it forgets when nothing comes.
            if let Ok(Begun::Mounted) = self.session.begin_upload(&what, Some((digest, sibling))).await {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// All layers, some side by side. With the first that fails the others end.
    async fn layers(self: &Arc<Self>) -> Result<Vec<There>, Cause> {
        let count = self.outgoing.layers.len();
        let at_once = Arc::new(Semaphore::new(self.shared.config.parallel_layers.clamp(1, AT_ONCE)));
        let mut there: Vec<Option<There>> = (0..count).map(|_| None).collect();
        let mut running = JoinSet::new();
        for index in 0..count {
            let (push, at_once) = (Arc::clone(self), Arc::clone(&at_once));
            running.spawn(async move {
                let _slot = at_once.acquire_owned().await;
                (index, push.layer(index).await)
            });
        }
        while let Some(done) = running.join_next().await {
            let (index, layer) = done.map_err(|_| Cause::Image(PullCause::Interrupted.into()))?;
            there[index] = Some(layer?);
        }
        Ok(there.into_iter().flatten().collect())
    }

    async fn layer(&self, index: usize) -> Result<There, Cause> {
        let layer = &self.outgoing.layers[index];
        let as_it_is =
            || There { media_type: layer.media_type.clone(), digest: layer.digest.clone(), size: layer.size };
        if self.is_there(&layer.digest).await? {
            self.tell(PushEvent::Present { layer: layer.digest.clone() }).await;
            return Ok(as_it_is());
        }
        let what = format!("layer {}", layer.digest);
        let mut upload = match self.session.begin_upload(&what, None).await? {
            Begun::Mounted => return Ok(as_it_is()),
            Begun::Upload(upload) => upload,
        };
        let packs = layer.is_plain();
        let (sender, mut pieces) = mpsc::channel::<Bytes>(1);
        let (shared, outgoing) = (Arc::clone(&self.shared), Arc::clone(&self.outgoing));
        let making =
            bulk::begin(move || make(&shared, &outgoing.id, &outgoing.layers[index], packs, &sender))
                .map_err(|why| Cause::Image(why.into()))?;
        let mut sent = 0;
        while let Some(piece) = pieces.recv().await {
            sent += piece.len() as u64;
            if let Err(why) = upload.send(piece).await {
                return Err(why.into());
            }
            self.tell(PushEvent::Sent { layer: layer.digest.clone(), bytes: sent }).await;
        }
        let made = making.await.map_err(|_| Cause::Image(PullCause::Interrupted.into()))?;
        let (digest, size) = made.map_err(Cause::Image)?;
        upload.finish(&self.session, &digest).await?;
        self.tell(PushEvent::Done { layer: layer.digest.clone() }).await;
        let media_type = if packs { PACKED_LAYER.to_owned() } else { layer.media_type.clone() };
        Ok(There { media_type, digest, size })
    }

    async fn small(&self, document: &StoredManifest) -> Result<(), Cause> {
        if self.is_there(&document.digest).await? {
            return Ok(());
        }
        let what = format!("configuration {}", document.digest);
        if let Begun::Upload(mut upload) = self.session.begin_upload(&what, None).await? {
            upload.send(document.body.clone().into()).await?;
            upload.finish(&self.session, &document.digest).await?;
        }
        Ok(())
    }

    /// The manifest of layers that were packed on the way.
    fn packed(&self, there: &[There]) -> StoredManifest {
        let mut manifest: Value = serde_json::from_slice(&self.outgoing.manifest.body).unwrap_or_default();
        let config = &self.outgoing.config;
        manifest["schemaVersion"] = 2.into();
        manifest["mediaType"] = OCI_MANIFEST.into();
        manifest["config"] =
            json!({ "mediaType": OCI_CONFIG, "digest": config.digest, "size": config.body.len() });
        let layers = there.iter().map(
            |layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }),
        );
        manifest["layers"] = layers.collect();
        let body = manifest.to_string().into_bytes();
        StoredManifest { digest: digest(&body), media_type: OCI_MANIFEST.into(), body }
    }

    async fn tell(&self, event: PushEvent) {
        let _ = self.events.send(event).await;
    }
}

/// Writes a layer's blob piece by piece, and gives its digest and size.
fn make(
    shared: &Shared,
    image: &ImageId,
    layer: &OutgoingLayer,
    packs: bool,
    pieces: &mpsc::Sender<Bytes>,
) -> Result<(Digest, u64), SaveError> {
    let sink =
        Pieces { pieces, piece: Vec::with_capacity(PIECE), hasher: Hasher::like(&layer.digest), size: 0 };
    let gone = |_: io::Error| SaveError::Gone;
    let sink = if packs {
        let mut encoder = GzEncoder::new(sink, flate2::Compression::default());
        layer.write(shared, image, &mut encoder)?;
        encoder.finish().map_err(gone)?
    } else {
        let mut sink = sink;
        layer.write(shared, image, &mut sink)?;
        sink
    };
    sink.finish().map_err(gone)
}

struct Pieces<'a> {
    pieces: &'a mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    hasher: Hasher,
    size: u64,
}

impl Pieces<'_> {
    fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.hand_over()?;
        Ok((self.hasher.finish(), self.size))
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.hasher.update(&bytes[..taken]);
        self.size += taken as u64;
        if self.piece.len() == PIECE {
            self.hand_over()?;
        }
        Ok(taken)
    }

    /// Pieces are of one size, whoever flushes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
