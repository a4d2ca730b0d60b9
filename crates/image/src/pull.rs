//! One pull from the reference to the image: manifest, configuration, layers side by side, and one commit at the end.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use distribution::{Client, Hasher, Session, ShortNames};
use model::digest::{Digest, ImageId};
use model::platform::Platform;
use model::reference::ImageReference;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::artifact::{self, Artifact};
use crate::blobs::Blobs;
use crate::catalog::{self, Catalog, NewImage, Origin, StoredManifest};
use crate::checksum::{self, Source};
use crate::config::ImageConfig;
use crate::error::PullCause;
use crate::fetch::Directory;
use crate::flight::Flights;
use crate::graft::{Above, graft};
use crate::layers::{Layers, Partial, Ready};
use crate::manifest::{self, Config, Descriptor, Document, EMPTY_CONFIG, LayerSource, Manifest};
use crate::progress::{Progress, Stage};
use crate::search::Search;
use crate::unpack::{self, LooseEnds, UnpackError, Unpacked};
use crate::view::View;

/// What all pulls have in common.
pub(crate) struct Shared {
    pub config: ImageConfig,
    pub layers: Arc<Layers>,
    pub blobs: Blobs,
    pub catalog: Arc<Catalog>,
    /// What names without a registry stand for, as of the last pull: questions do not wait for the disk.
    pub short_names: ArcSwap<ShortNames>,
    /// Layers that are being fetched, by diff id.
    pub fetching: Flights<String, ()>,
    /// How many layers may be unpacked at the same time, in all pulls together.
    pub slots: Semaphore,
}

/// What a pull has to do.
enum Plan {
    /// Nothing: the image is here, and has its new names.
    Here(ImageId),
    Take {
        id: ImageId,
        config: Bytes,
        sources: Vec<LayerSource>,
        origin: Origin,
    },
}

impl Shared {
    /// Whether an image is here, and nothing of it is known to be damaged.
    fn is_whole(&self, id: &ImageId) -> bool {
        self.catalog.snapshot().by_id.get(id).is_some_and(|image| {
            image
                .layers
                .iter()
                .all(|id| self.layers.published(id).is_some_and(|layer| layer.damage.is_none()))
        })
    }
}

/// One pull.
#[derive(Clone)]
pub(crate) struct Pull {
    pub shared: Arc<Shared>,
    pub client: Arc<Client>,
    pub session: Arc<Session>,
    pub reference: ImageReference,
    /// For which the image is to be.
    pub platform: Platform,
    pub progress: Progress,
    /// Whether nobody wants it any more.
    pub given_up: watch::Sender<bool>,
}

impl Pull {
    /// Runs the pull to its end, or until it is given up. What it fetched until then stays.
    pub(crate) async fn run(&self) -> Result<ImageId, PullCause> {
        let plan = tokio::select! {
            plan = self.plan() => plan?,
            () = self.when_given_up() => return Err(PullCause::GivenUp),
        };
        match plan {
            Plan::Here(id) => Ok(id),
            Plan::Take { id, config, sources, origin } => self.take(id, config, sources, origin).await,
        }
    }

    async fn when_given_up(&self) {
        let mut given_up = self.given_up.subscribe();
        // The sender is a part of this.
        let _ = given_up.wait_for(|given_up| *given_up).await;
    }

    /// Asks the registry what there is to do.
    async fn plan(&self) -> Result<Plan, PullCause> {
        self.check_pin()?;
        let (manifest, manifests) = self.resolve().await?;
        let admission = self.admit(&manifests).await?;
        let mut origin = self.origin(manifests);
        origin.admissions.extend(admission);
        if manifest.is_artifact() {
            return self.artifact(&manifest, origin).await;
        }
        let id = ImageId::of_config(manifest.config.digest.clone());
        if self.name_existing(&id, &origin).await? {
            return Ok(Plan::Here(id));
        }
        check_types(&manifest)?;
        let limits = &self.shared.config.limits;
        let what = format!("configuration {id}");
        let body = self.session.blob(&what, id.digest(), limits.config_bytes).await?;
        check_size(&what, &body, &manifest.config)?;
        let config = manifest::parse_config(&what, &body)?;
        check_config(&what, &config, manifest.layers.len(), &self.platform)?;
        let layers = manifest.layers.into_iter().zip(config.rootfs.diff_ids);
        let sources = layers.map(|(blob, diff_id)| LayerSource { blob, diff_id, file: None }).collect();
        Ok(Plan::Take { id, config: body, sources, origin })
    }

    /// An artifact: its files, each as a layer.
    async fn artifact(&self, manifest: &Manifest, mut origin: Origin) -> Result<Plan, PullCause> {
        let Artifact { id, config, sources } = artifact::image(&self.reference.to_string(), manifest)?;
        if self.name_existing(&id, &origin).await? {
            return Ok(Plan::Here(id));
        }
        let of = &manifest.config;
        if of.media_type != EMPTY_CONFIG {
            // It means nothing here, but belongs to the artifact when it is sent on.
            let what = format!("configuration {}", of.digest);
            let body = self.session.blob(&what, &of.digest, self.shared.config.limits.config_bytes).await?;
            let (digest, media_type) = (of.digest.clone(), of.media_type.clone());
            origin.manifests.push(StoredManifest { digest, media_type, body: body.into() });
        }
        Ok(Plan::Take { id, config: config.into(), sources, origin })
    }

    /// Fetches what is not here, and makes all of it an image.
    async fn take(
        &self,
        id: ImageId,
        config: Bytes,
        sources: Vec<LayerSource>,
        origin: Origin,
    ) -> Result<ImageId, PullCause> {
        let ids = sources.iter().map(|source| source.diff_id.as_str().to_owned());
        let _lease = self.shared.layers.lease(ids);
        let layers = self.layers(sources).await?;
        self.progress.stage(Stage::Publishing);
        let (shared, image) = (Arc::clone(&self.shared), id.clone());
        blocking(move || shared.publish(&image, &config, &layers, &origin)).await?;
        Ok(id)
    }

    /// The manifest for the platform, and all that was read on the way to it: first what the reference itself leads to, last it.
    async fn resolve(&self) -> Result<(Manifest, Vec<StoredManifest>), PullCause> {
        let config = &self.shared.config;
        let mut reference = self.reference.manifest().to_owned();
        let mut expected = self.reference.digest().cloned();
        let mut entry: Option<Descriptor> = None;
        let mut search = Search::new(&self.platform, config.limits.index_depth);
        let (mut read, mut depth) = (Vec::new(), 0);
        loop {
            let fetched = self
                .session
                .manifest(&reference, expected.as_ref(), manifest::ACCEPT, config.limits.manifest_bytes)
                .await?;
            // A tag says nothing of what was received: the digest does.
            let what = match expected {
                Some(_) => format!("manifest {reference}"),
                None => format!("manifest {reference} ({})", fetched.digest),
            };
            if let Some(entry) = &entry {
                check_size(&what, &fetched.body, entry)?;
            }
            let document = manifest::parse(&what, &fetched.content_type, &fetched.body, &config.limits)?;
            // What an index offered in vain is not on the way to the image.
            read.truncate(depth);
            read.push(StoredManifest {
                digest: fetched.digest,
                media_type: manifest::media_type(&fetched.content_type, &fetched.body),
                body: fetched.body.into(),
            });
            match document {
                Document::Manifest(manifest) => return Ok((*manifest, read)),
                Document::Index(entries) => search.add(&what, depth + 1, entries)?,
            }
            let next = search.next(&self.reference.to_string())?;
            depth = next.depth;
            reference = next.entry.digest.to_string();
            expected = Some(next.entry.digest.clone());
            entry = Some(next.entry);
        }
    }

    /// What will lead to the image. A tag beside a digest was not asked of the registry, so that it leads nowhere.
    fn origin(&self, manifests: Vec<StoredManifest>) -> Origin {
        let by_digest = manifests
            .first()
            .map(|top| catalog::stored_name(&self.reference.with_digest(top.digest.clone())));
        let by_tag = self.reference.digest().is_none().then(|| self.reference.to_string());
        Origin { names: by_tag.into_iter().chain(by_digest).collect(), manifests, admissions: Vec::new() }
    }

    /// Gives an image that is here already its new names; false if it is not here, or damaged.
    async fn name_existing(&self, id: &ImageId, origin: &Origin) -> Result<bool, PullCause> {
        let (shared, id, origin) = (Arc::clone(&self.shared), id.clone(), origin.clone());
        blocking(move || shared.name_existing(&id, &origin)).await
    }

    /// All layers, each fetched unless it is here.
    async fn layers(&self, sources: Vec<LayerSource>) -> Result<Vec<Ready>, PullCause> {
        self.progress.layers(sources.iter().map(|source| &source.blob));
        let at_once = Arc::new(Semaphore::new(self.shared.config.parallel_layers.max(1)));
        let mut ready: Vec<Option<Ready>> = vec![None; sources.len()];
        let mut running = JoinSet::new();
        for (index, source) in sources.into_iter().enumerate() {
            let pull = self.clone();
            let at_once = Arc::clone(&at_once);
            running.spawn(async move {
                let _slot = at_once.acquire_owned().await;
                (index, pull.layer(index, &source).await)
            });
        }
        let mut failed = None;
        loop {
            let joined = tokio::select! {
                joined = running.join_next() => joined,
                () = self.when_given_up(), if failed.is_none() => {
                    failed = Some(PullCause::GivenUp);
                    running.abort_all();
                    continue;
                }
            };
            let Some(joined) = joined else { break };
            match joined {
                Ok((index, Ok(layer))) => ready[index] = Some(layer),
                Ok((_, Err(cause))) => {
                    failed.get_or_insert(cause);
                    running.abort_all();
                }
                // Aborted by us; a panic is a defect, which its own message names.
                Err(error) if error.is_cancelled() => {}
                Err(_) => drop(failed.get_or_insert(PullCause::Interrupted)),
            }
        }
        let Some(cause) = failed else {
            return ready.into_iter().map(|layer| layer.ok_or(PullCause::Interrupted)).collect();
        };
        // What was fetched in vain here need not be fetched again by the next try.
        if !matches!(cause, PullCause::NoSpace { .. }) {
            let (shared, done) = (Arc::clone(&self.shared), partials(ready.iter().flatten()));
            let _ = blocking(move || shared.layers.publish(&done, |_| Ok(()))).await;
        }
        Err(cause)
    }
}

impl Shared {
    /// Gives an image that is here already its new names; false if it is not here, or damaged.
    pub(crate) fn name_existing(&self, id: &ImageId, origin: &Origin) -> Result<bool, PullCause> {
        if !self.is_whole(id) {
            return Ok(false);
        }
        self.catalog.change(&self.layers, || {
            if !self.is_whole(id) {
                return Ok(false);
            }
            self.layers.publish(&[], |tx| catalog::insert_origin(tx, id, origin))?;
            Ok(true)
        })
    }

    /// Grafts, and then the commit of everything.
    pub(crate) fn publish(
        &self,
        id: &ImageId,
        config: &[u8],
        layers: &[Ready],
        origin: &Origin,
    ) -> Result<(), PullCause> {
        let stack = self.stack(layers)?;
        // Claimed until the image's own rows hold them.
        let ids: Vec<String> = stack.iter().map(|layer| layer.id().to_owned()).collect();
        let _lease = self.layers.lease(ids.iter().cloned());
        let partials = partials(stack.iter());
        self.catalog.change(&self.layers, || {
            let image = NewImage { id, config, layers: &ids };
            self.layers.publish(&partials, |tx| catalog::insert(tx, &image, origin))
        })
    }

    /// The layers as they will be stacked, the lowest first: each once, and with grafts where they are needed.
    fn stack(&self, layers: &[Ready]) -> Result<Vec<Ready>, PullCause> {
        let mut stack: Vec<Ready> = Vec::new();
        let mut chain: Option<Digest> = None;
        for layer in layers {
            // A layer that comes again brings everything it has again, so that its lower place shows nothing; overlayfs refuses both.
            stack.retain(|below| below.id() != layer.id());
            let next = chain_id(chain.as_ref(), layer.id());
            let graft = self.graft(&stack, layer, &next)?;
            stack.push(layer.clone());
            stack.extend(graft);
            chain = Some(next);
        }
        Ok(stack)
    }

    fn graft(&self, below: &[Ready], layer: &Ready, chain: &Digest) -> Result<Option<Ready>, PullCause> {
        let loose_ends = layer.loose_ends();
        let in_layer = |why| match why {
            UnpackError::NoSpace { .. } => PullCause::NoSpace { path: self.layers.folder().to_owned() },
            why => PullCause::Layer { digest: chain.clone(), why },
        };
        if loose_ends.is_tied() {
            return Ok(None);
        }
        if below.is_empty() {
            return match loose_ends.links.first() {
                None => Ok(None),
                Some((own, target)) => Err(in_layer(UnpackError::LinkTarget {
                    path: unpack::show(own),
                    target: unpack::show(target),
                })),
            };
        }
        let id = format!("graft:{chain}");
        if let Some(ready) = self.layers.find(&id) {
            return Ok(Some(ready));
        }
        let (path, directory) = self.layers.new_partial(&format!("graft-{}", chain.hex()))?;
        let mut guard = Directory { layers: Arc::clone(&self.layers), path: Some(path) };
        let lower = |layer: &Ready| {
            let lower = self.layers.lower(layer.path());
            lower.map_err(|error| PullCause::io(layer.path(), error))
        };
        let lowers = below.iter().rev().map(lower).collect::<Result<_, _>>()?;
        let view = View::of(&self.layers, lowers, &self.config.root.join("empty/0"))?;
        let user_xattr = self.config.user_xattr;
        let above = Above { below: view.root, layer: lower(layer)?, loose_ends, user_xattr };
        if !graft(above, &directory).map_err(in_layer)? {
            return Ok(None);
        }
        let path = guard.take();
        let io = |error| PullCause::io(&path, error);
        let directory = directory.into();
        let sum = checksum::of_tree(&directory, &LooseEnds::default(), Source::Memory).map_err(io)?;
        let usage = crate::tree::usage(directory).map_err(io)?;
        let unpacked = Unpacked {
            diff_id: chain.clone(),
            bytes: usage.bytes,
            inodes: usage.inodes,
            loose_ends: LooseEnds::default(),
            outline: None,
            checksum: Some(sum.to_string()),
        };
        Ok(Some(Ready::Unpacked(self.layers.unpacked(id, None, path, unpacked))))
    }
}

/// The layers among these that are not published.
fn partials<'a>(layers: impl Iterator<Item = &'a Ready>) -> Vec<Arc<Partial>> {
    let mut found: Vec<Arc<Partial>> = Vec::new();
    for layer in layers {
        if let Ready::Unpacked(partial) = layer
            && !found.iter().any(|known| known.id == partial.id)
        {
            found.push(Arc::clone(partial));
        }
    }
    found
}

/// A layer on top of a chain, as the OCI image specification names it.
fn chain_id(below: Option<&Digest>, diff_id: &str) -> Digest {
    let Some(below) = below else {
        return Digest::parse(diff_id).unwrap_or_else(|_| Digest::sha256([0; 32]));
    };
    let mut hasher = Hasher::new();
    hasher.update(format!("{below} {diff_id}").as_bytes());
    hasher.finish()
}

/// Runs what may wait for the disk on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PullCause> + Send + 'static,
) -> Result<T, PullCause> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(PullCause::Interrupted))
}

/// What has the right digest and another size than was promised is the work of somebody who counts on readers that differ.
pub(crate) fn check_size(what: &str, body: &[u8], promised: &Descriptor) -> Result<(), PullCause> {
    if i64::try_from(body.len()) == Ok(promised.size) {
        return Ok(());
    }
    let why = format!("it has {} bytes, not {} as is said where it is named", body.len(), promised.size);
    Err(PullCause::malformed(what, why))
}

pub(crate) fn check_types(manifest: &Manifest) -> Result<(), PullCause> {
    let refuse = |what: String, media_type: &str| {
        let media_type = media_type.chars().take(120).collect();
        Err(PullCause::UnsupportedMediaType { what, media_type })
    };
    let config = &manifest.config;
    if !manifest::is_image_config(&config.media_type) {
        return refuse(format!("configuration {}", config.digest), &config.media_type);
    }
    for layer in &manifest.layers {
        // What a layer's URLs say is not looked at: only the registry that was named is asked.
        let kind = layer.media_type.as_str();
        let is_archive = kind.is_empty() || kind.contains(".tar") || kind.ends_with("/tar");
        if !is_archive || kind.contains("encrypted") {
            return refuse(format!("layer {}", layer.digest), kind);
        }
    }
    Ok(())
}

/// Whether a configuration belongs to a manifest with `has` layers, and is for a platform that is wanted.
pub(crate) fn check_config(
    what: &str,
    config: &Config,
    has: usize,
    wanted: &Platform,
) -> Result<(), PullCause> {
    let said = config.rootfs.diff_ids.len();
    if said != has {
        let why = format!("it names {said} layers, and the manifest has {has}");
        return Err(PullCause::malformed(what, why));
    }
    let offered = config.platform();
    let silent = config.os.is_empty() || config.architecture.is_empty();
    if !silent && wanted.rank(&offered).is_none() {
        return Err(PullCause::NoMatchingPlatform { wanted: wanted.clone(), offered: vec![offered] });
    }
    Ok(())
}
