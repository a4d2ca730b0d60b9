//! Images that come from elsewhere than a registry: archives, and the stores of other runtimes on this machine.

mod bolt;
#[cfg(any(test, fuzzing))]
pub(crate) use bolt::walk_all as walk_bolt;
mod containerd;
mod containers_storage;
mod docker;
mod intake;
mod layout;
mod spool;
mod take;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::digest::{Digest, ImageId};
use model::platform::Platform;
use model::reference::{BadReference, ImageReference};
use trust::Place;

use crate::admission::{came_in, distrust};
use crate::bulk::bulk;
use crate::catalog;
use crate::error::PullCause;
use crate::fetch::is_unsuited;
use crate::manifest::LayerSource;
use crate::pull::Shared;
use crate::tar::TarError;
use crate::{Images, Named};

use containerd::Containerd;
use containers_storage::ContainersStorage;
pub(crate) use spool::sweep;
use take::{merge, take};

/// Where other runtimes have their stores by default, and the namespace of the kubelet's images.
const CONTAINERD: &str = "/var/lib/containerd";
const STORAGE: &str = "/var/lib/containers/storage";
const NAMESPACE: &str = "k8s.io";

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// Which image of several is taken; none: the one for this machine.
    pub platform: Option<Platform>,
    /// The name that the one image gets, whatever the archive says.
    pub name: Option<String>,
}

/// A runtime whose store on this machine is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherRuntime {
    Containerd,
    /// CRI-O, Podman, Buildah.
    ContainersStorage,
}

/// What to take from another runtime's store.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    pub from: OtherRuntime,
    /// Where its store is; none: where it is by default.
    pub root: Option<PathBuf>,
    /// Of containerd; none: the kubelet's, `k8s.io`.
    pub namespace: Option<String>,
    /// Names; none: all that it has.
    pub images: Vec<String>,
    pub platform: Option<Platform>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Imported {
    pub loaded: Vec<Loaded>,
    /// What could not be taken, by name.
    pub failed: Vec<(String, LoadError)>,
}

/// An image that is here now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    /// Its names as the source has them, with tags and with digests.
    pub names: Vec<Named>,
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(
        "the archive has neither an index.json nor a manifest.json; an OCI layout or what `docker save` writes is expected"
    )]
    NotAnArchive,
    #[error("there is no image in it")]
    Nothing,
    #[error("the archive cannot be read: {0}")]
    Archive(TarError),
    #[error("the archive cannot be read: {0}")]
    Stream(io::Error),
    #[error("{name:?} in the archive {why}")]
    Entry { name: String, why: String },
    #[error("{what} needs {digest}, which is not there")]
    Missing { what: String, digest: Digest },
    #[error("it holds {count} images, and one name can be given to one only")]
    SeveralForOneName { count: usize },
    #[error(transparent)]
    BadName(#[from] BadReference),
    #[error("{path}: {source}", path = .path.display())]
    Store { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Failed(#[from] PullCause),
}

impl LoadError {
    fn entry(name: impl Into<String>, why: impl Into<String>) -> LoadError {
        LoadError::Entry { name: name.into(), why: why.into() }
    }

    /// Whether a layer was to be packed into a file, and becomes a directory when it is read once more.
    fn is_unsuited(&self) -> bool {
        matches!(self, LoadError::Failed(cause) if is_unsuited(cause))
    }
}

/// Where documents and layers are read from.
trait Contents: Sync {
    /// A manifest, an index or a configuration, checked against its digest; none if it is not there.
    fn document(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, LoadError>;

    /// A layer as it is there, which whoever unpacks it checks.
    fn layer<'a>(&'a self, source: &LayerSource) -> Result<Box<dyn Read + Send + 'a>, LoadError>;
}

/// What was asked, made ready.
struct Wish {
    platform: Platform,
    name: Option<ImageReference>,
}

impl Images {
    /// Takes the images of an archive: an OCI layout or a Docker archive, also packed with gzip or zstd. Where the archive says first
    /// what comes, layers are unpacked as they arrive; else it is spooled on the disk.
    ///
    /// It must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LoadError`]. Images that were complete before the error are here.
    pub async fn load(
        &self,
        request: LoadRequest,
        archive: impl Read + Send + 'static,
    ) -> Result<Vec<Loaded>, LoadError> {
        let wish = self.wish(request)?;
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Handle::current();
        let work = move || intake::archive(&shared, &runtime, archive, &wish);
        bulk(work).await
    }

    /// Takes images from the store of another runtime on this machine, which may run or not and is not changed.
    ///
    /// It must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`LoadError`] if the store cannot be read. Of a single image it is in the answer.
    pub async fn import(&self, request: ImportRequest) -> Result<Imported, LoadError> {
        let wish = self.wish(LoadRequest { platform: request.platform.clone(), name: None })?;
        let shared = Arc::clone(&self.shared);
        let runtime = tokio::runtime::Handle::current();
        let work = move || match request.from {
            OtherRuntime::Containerd => {
                let root = request.root.as_deref().unwrap_or(Path::new(CONTAINERD));
                let store = Containerd::open(root, request.namespace.as_deref().unwrap_or(NAMESPACE))?;
                let names = chosen(store.names(), &request.images);
                let image = |name: &str| store.image(name, &wish, &shared.config.limits);
                Ok(import(&shared, &runtime, names, image, &store))
            }
            OtherRuntime::ContainersStorage => {
                let store = ContainersStorage::open(request.root.as_deref().unwrap_or(Path::new(STORAGE)))?;
                let names = chosen(store.names(), &request.images);
                let image = |name: &str| store.image(name, &wish, &shared.config.limits);
                Ok(import(&shared, &runtime, names, image, &store))
            }
        };
        bulk(work).await
    }

    fn wish(&self, request: LoadRequest) -> Result<Wish, LoadError> {
        let name = request.name.map(|name| ImageReference::parse(&name)).transpose()?;
        let platform = request.platform.unwrap_or_else(|| self.shared.config.platform.clone());
        Ok(Wish { platform, name })
    }
}

/// Of the names of a store those that are asked for, in whatever form; all if none is. One that the store has not stays, and fails.
fn chosen(names: Vec<String>, asked: &[String]) -> Vec<String> {
    if asked.is_empty() {
        return names;
    }
    let stored = |name: &str| ImageReference::parse(name).map(|name| catalog::stored_name(&name)).ok();
    let find = |asked: &String| {
        let whole = stored(asked);
        let same = |name: &&String| *name == asked || (whole.is_some() && stored(name) == whole);
        names.iter().find(same).unwrap_or(asked).clone()
    };
    asked.iter().map(find).collect()
}

/// Takes the images of some names; one that fails does not stop the others.
fn import(
    shared: &Shared,
    runtime: &tokio::runtime::Handle,
    names: Vec<String>,
    image: impl Fn(&str) -> Result<take::Incoming, LoadError>,
    contents: &dyn Contents,
) -> Imported {
    let mut imported = Imported::default();
    let mut images = Vec::new();
    for name in names {
        match image(&name) {
            Ok(image) => images.push(image),
            Err(error) => imported.failed.push((name, error)),
        }
    }
    merge(&mut images);
    for mut image in images {
        if image.origin.names.is_empty() {
            image.origin.admissions.push(came_in(&Place::OciArchive(None)));
        }
        match admit(shared, &image).and_then(|()| take(shared, runtime, &image, contents)) {
            Ok(loaded) => imported.loaded.push(loaded),
            Err(error) => {
                let name = image.origin.names.first().cloned().unwrap_or_else(|| image.id.to_string());
                imported.failed.push((name, error));
            }
        }
    }
    imported
}

/// Whether the policy admits an image under each of its names, as if it came from the registry that the name says, and nothing could vouch
/// for it: who put it into that store is not known. One without a name is like an archive.
fn admit(shared: &Shared, image: &take::Incoming) -> Result<(), LoadError> {
    let names = image.origin.names.iter().filter_map(|name| ImageReference::parse(name).ok());
    let mut places: Vec<Place> = names.map(Place::Registry).collect();
    if places.is_empty() {
        places.push(Place::OciArchive(None));
    }
    let admitted = places.iter().try_for_each(|place| shared.config.trust.admit_file(place));
    admitted.map_err(|why| LoadError::Failed(distrust(why)))
}
