//! Images: pulls, unpacking, layers, and root file systems made of them.
//!
//! A pull streams each layer from the registry through both digests and the unpacker straight into its final form, a directory that
//! overlayfs stacks; no blob is kept. Layers become visible all at once: one sync of the file system, one rename each, one transaction.
//! Queries are answered from memory. What a registry sends is hostile: it is bounded, checked against its digest, and unpacked by
//! descriptors.

mod admission;
mod artifact;
mod blobs;
mod bulk;
mod catalog;
mod changes;
mod checksum;
mod config;
mod copy;
mod course;
mod damage;
mod disk;
mod error;
mod export;
mod fetch;
mod flight;
mod form;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod graft;
mod inspect;
mod layers;
mod load;
mod manifest;
mod mounts;
mod native;
mod overlay;
mod pieces;
mod pinned;
mod progress;
mod pull;
mod push;
mod quota;
mod readmission;
mod rebuild;
mod record;
mod rootfs;
mod search;
mod signatures;
mod stacking;
mod standing;
mod tag;
mod tar;
mod trash;
mod tree;
mod unfinished;
mod unpack;
mod verify;
mod verity;
mod view;
mod volume;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use model::digest::ImageId;
use model::platform::Platform;
use model::reference::ImageReference;
use store::Store;
use tokio::sync::{Semaphore, watch};

pub use admission::TrustConfig;
pub use catalog::{Ambiguous, Image, ImageUser, StoredManifest};
pub use changes::{Deletions, export_folder, import_folder};
pub use config::{ImageConfig, Limits, Snapshotter};
pub use disk::{Cause, Containers, Hold, Item, Kind, Survey, Verdict};
pub use distribution::{Attempt, Bounds, Credentials, Proxies, RegistryError, RouteError, Sources, Timeouts};
pub use error::{PullCause, PullError, TRIED};
pub use export::{SaveError, SaveRequest, Saving, read_layout, write_layout};
pub use inspect::{ImageDetails, LayerDetails};
pub use load::{ImportRequest, Imported, LoadError, LoadRequest, Loaded, OtherRuntime};
pub use manifest::RunConfig;
pub use pieces::{Piece, Pieces, channel as pieces};
pub use pinned::Pinned;
pub use progress::{LayerProgress, LayerState, PullProgress, Stage};
pub use push::{PushError, PushEvent, PushRequest, Pushed};
pub use rootfs::{RootFilesystems, Rootfs, RootfsError};
pub use tag::{Named, TagError};
pub use tar::{Metadata as TarMetadata, Writer as TarWriter};
pub use tree::Usage;
pub use trust::Distrust;
pub use unpack::{TarError, UnpackError};
pub use verify::{Checked, Finding};

use catalog::Catalog;
use course::Course;
use distribution::Client;
use flight::Flights;
use layers::Layers;
use progress::Progress;
use pull::{Shared, blocking};

/// What to pull.
#[derive(Debug, Clone, Default)]
pub struct PullRequest {
    /// As a person wrote it.
    pub reference: String,
    /// Sent to the registry only if they are for it.
    pub credentials: Option<Credentials>,
    /// For which platform; none: this node's. What is for another can be carried on, and not be run.
    pub platform: Option<Platform>,
}

/// What images take on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsInfo {
    /// A path in the file system that holds them.
    pub mountpoint: PathBuf,
    pub usage: Usage,
}

/// Why an image could not be found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error("{0}")]
    Failed(PullCause),
}

/// Why the images of this node could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("images in {root}: {cause}", root = .root.display())]
    Images { root: PathBuf, cause: PullCause },
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
}

type PullKey = (String, Option<Credentials>, Option<Platform>);
type PullResult = Result<ImageId, PullError>;

/// The images of this node.
pub struct Images {
    shared: Arc<Shared>,
    client: Arc<Client>,
    pulls: Flights<PullKey, PullResult>,
    watched: Arc<Mutex<HashMap<String, watch::Receiver<PullProgress>>>>,
    rootfs: RootFilesystems,
}

impl Images {
    /// Opens the images below `config.root`, and sweeps what a killed process left half-done.
    ///
    /// If the database was lost, images and root file systems are recorded again from what lies beside them, and directories that nothing
    /// explains stay where they are, since containers may be standing on them.
    ///
    /// # Errors
    /// [`OpenError`] with the path that cannot be read or made.
    pub fn open(config: ImageConfig, store: Arc<Store>) -> Result<Arc<Images>, OpenError> {
        let fail = |cause| OpenError::Images { root: config.root.clone(), cause };
        for root in [config.root.as_path(), config.written_root()] {
            make_private(root).map_err(|error| fail(PullCause::io(root, error)))?;
        }
        let records =
            record::Records::open(&config.root).map_err(|e| fail(PullCause::io(&config.root, e)))?;
        let lost = store.quarantined().is_some();
        if lost {
            let images = records.restore(&config.root, &store).map_err(fail)?;
            tracing::warn!(images, "the database was lost; images were restored from their records");
        }
        let sweep = !lost && disk::is_explained(&config, &store).map_err(fail)?;
        let layers = Layers::open(&config, Arc::clone(&store), sweep).map_err(fail)?;
        load::sweep(&config.root);
        let blobs = blobs::Blobs::open(&config.root).map_err(|e| fail(PullCause::io(&config.root, e)))?;
        let catalog = Arc::new(
            Catalog::open(Arc::clone(&store), records, config.pinned.clone(), &layers).map_err(fail)?,
        );
        catalog.copy_records(&layers);
        let rootfs = RootFilesystems::open(&config, store, Arc::clone(&layers), lost)?;
        admission::check_at_start(&config.trust);
        let client = Arc::new(
            Client::new(config.proxies.clone(), config.timeouts.clone()).bounded(config.connections),
        );
        let short_names = config.registries.registries_conf().map(|conf| conf.short_names);
        let short_names = short_names.unwrap_or_else(|error| {
            tracing::warn!(%error, "what names without a registry stand for is not known; every pull says so too");
            Default::default()
        });
        let shared = Shared {
            short_names: ArcSwap::from_pointee(short_names),
            slots: Semaphore::new(config.parallel_layers.max(1) * 2),
            config,
            layers,
            blobs,
            catalog,
            fetching: Flights::new(),
        };
        Ok(Arc::new(Images {
            shared: Arc::new(shared),
            client,
            pulls: Flights::new(),
            watched: Arc::default(),
            rootfs,
        }))
    }

    /// Pulls an image and returns its id, which is `Image.id` of CRI.
    ///
    /// The same request while one is running joins it. Dropping the future ends the waiting, not the pull: that goes on for
    /// [`ImageConfig::linger`] after the last who waited has left. It must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`PullError`] with the cause and what was tried.
    pub async fn pull(&self, request: PullRequest) -> PullResult {
        let fail = |cause| PullError {
            reference: request.reference.clone(),
            cause: Box::new(cause),
            attempts: Vec::new(),
        };
        let reference = ImageReference::parse(&request.reference).map_err(|why| fail(why.into()))?;
        let key = (catalog::stored_name(&reference), request.credentials.clone(), request.platform.clone());
        let mut result = match self.pulls.join(key) {
            Err(running) => running,
            Ok(lead) => {
                let result = lead.subscribe();
                let course = self.start(&reference, &request);
                let watched = Arc::clone(&self.watched);
                let linger = self.shared.config.linger;
                tokio::spawn(async move {
                    // Taken back also if the pull panics.
                    let watched =
                        Watch { watched, name: course.progress.subscribe().borrow().reference.clone() };
                    let done = {
                        let run = course.run();
                        tokio::pin!(run);
                        tokio::select! {
                            done = &mut run => done,
                            () = lead.deserted(linger) => {
                                course.give_up();
                                run.await
                            }
                        }
                    };
                    course.progress.stage(if done.is_ok() { Stage::Done } else { Stage::Failed });
                    drop(watched);
                    lead.finish(done);
                });
                result
            }
        };
        match result.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or_else(|| Err(fail(PullCause::Interrupted))),
            Err(_) => Err(fail(PullCause::Interrupted)),
        }
    }

    /// How far the running pull of a reference is; none: nobody pulls it.
    pub fn progress(&self, reference: &str) -> Option<watch::Receiver<PullProgress>> {
        let name = catalog::stored_name(&ImageReference::parse(reference).ok()?);
        lock(&self.watched).get(&name).cloned()
    }

    /// All pulls that are running.
    pub fn pulls(&self) -> Vec<watch::Receiver<PullProgress>> {
        lock(&self.watched).values().cloned().collect()
    }

    /// All images, in no order.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.shared.catalog.snapshot().by_id.values().cloned().collect()
    }

    /// The image that a reference, an id or the beginning of an id of at least three digits leads to.
    ///
    /// # Errors
    /// [`Ambiguous`] if the beginning is that of several ids.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Image>>, Ambiguous> {
        self.shared.catalog.snapshot().find(name, &self.shared.short_names.load())
    }

    /// What this node runs, if the image's programs are for something else: such an image can be carried on, and not be run.
    pub fn cannot_run(&self, image: &Image) -> Option<&Platform> {
        let node = &self.shared.config.platform;
        image.platform.as_ref().filter(|of_image| node.rank(of_image).is_none()).map(|_| node)
    }

    /// Removes an image with all its names, whichever of them is given, and says whether it was there. It is gone from every list at
    /// once; its layers go in the background as soon as no image and no container needs them.
    ///
    /// # Errors
    /// [`ImageError`]; the image is still there then.
    pub async fn remove(&self, name: &str) -> Result<bool, ImageError> {
        let Some(image) = self.find(name)? else { return Ok(false) };
        let shared = Arc::clone(&self.shared);
        let removed = blocking(move || {
            let removed = shared.catalog.remove(&image.id, &shared.layers)?;
            tokio::task::spawn_blocking(move || disk::after_removal(&shared, &image.layers));
            Ok(removed)
        });
        removed.await.map_err(ImageError::Failed)
    }

    /// Sets by which names images are pinned, from now on.
    ///
    /// # Errors
    /// What the database says.
    pub async fn pin_like(&self, pinned: Pinned) -> Result<(), ImageError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.catalog.pin_like(pinned, &shared.layers)).await.map_err(ImageError::Failed)
    }

    /// Sets whether garbage collection, the kubelet's too, leaves an image alone whatever it is called.
    ///
    /// # Errors
    /// [`ImageError::Ambiguous`], or what the database says. An image that is not here is ignored.
    pub async fn pin(&self, name: &str, pinned: bool) -> Result<(), ImageError> {
        let Some(image) = self.find(name)? else { return Ok(()) };
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.catalog.pin(&image.id, pinned, &shared.layers))
            .await
            .map_err(ImageError::Failed)
    }

    /// What images take on disk, summed from what was recorded when they were unpacked.
    pub fn fs_info(&self) -> FsInfo {
        FsInfo { mountpoint: self.shared.config.root.clone(), usage: self.shared.layers.usage() }
    }

    /// The root file systems of containers.
    pub fn rootfs(&self) -> &RootFilesystems {
        &self.rootfs
    }

    fn start(&self, reference: &ImageReference, request: &PullRequest) -> Course {
        let name = catalog::stored_name(reference);
        let progress = Progress::new(name.clone());
        lock(&self.watched).insert(name, progress.subscribe());
        Course {
            shared: Arc::clone(&self.shared),
            client: Arc::clone(&self.client),
            asked: request.reference.clone(),
            credentials: request.credentials.clone(),
            platform: request.platform.clone().unwrap_or_else(|| self.shared.config.platform.clone()),
            progress,
            given_up: watch::Sender::new(false),
        }
    }
}

impl std::fmt::Debug for Images {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Images").field("root", &self.shared.config.root).finish_non_exhaustive()
    }
}

/// Takes a running pull out of the list of those when it ends.
struct Watch {
    watched: Arc<Mutex<HashMap<String, watch::Receiver<PullProgress>>>>,
    name: String,
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock(&self.watched).remove(&self.name);
    }
}

/// Nobody but root may walk into layers: they have set-uid programs of strangers.
fn make_private(root: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    std::fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
