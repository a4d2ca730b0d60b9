//! Images that come from elsewhere than a registry: archives, and the stores of other runtimes on this machine.

mod docker;
mod intake;
mod layout;
mod spool;
mod take;

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use model::digest::{Digest, ImageId};
use model::platform::Platform;
use model::reference::{BadReference, ImageReference};

use crate::error::PullCause;
use crate::manifest::LayerSource;
use crate::tar::TarError;
use crate::{Images, Named};

pub(crate) use spool::sweep;

/// How to load.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// Which image of several is taken; none: the one for this machine.
    pub platform: Option<Platform>,
    /// The name that the one image gets, whatever the archive says.
    pub name: Option<String>,
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
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(PullCause::Interrupted.into()))
    }

    fn wish(&self, request: LoadRequest) -> Result<Wish, LoadError> {
        let name = request.name.map(|name| ImageReference::parse(&name)).transpose()?;
        let platform = request.platform.unwrap_or_else(|| self.shared.config.platform.clone());
        Ok(Wish { platform, name })
    }
}
