//! Why a pull failed: the cause in its own words, and what every request before it was answered.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use distribution::{Attempt, RegistryError, RouteError};
use model::digest::{BadDigest, Digest, ImageId};
use model::platform::Platform;
use model::reference::BadReference;

use crate::unpack::UnpackError;

/// What comes before the attempts in an error's text.
pub const TRIED: &str = "; tried, in this order: ";

/// A pull that failed. It can be cloned, since everybody who waited for the same pull gets it.
#[derive(Debug, Clone)]
pub struct PullError {
    /// What was to be pulled, as it was asked for.
    pub reference: String,
    /// Boxed, so that a result is small where all went well.
    pub cause: Box<PullCause>,
    /// The requests that were made, oldest first, as far as they failed.
    pub attempts: Vec<Attempt>,
}

impl PullError {
    /// Whether it is the registry that failed, and not the request: what CRI calls `RegistryUnavailable`.
    pub fn is_registry_unavailable(&self) -> bool {
        matches!(&*self.cause, PullCause::Registry(error) if error.is_unavailable())
    }
}

/// The cause of a failed pull.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PullCause {
    #[error("{0}")]
    BadReference(#[from] BadReference),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{what} has media type {media_type:?}, which is not an image's")]
    UnsupportedMediaType { what: String, media_type: String },
    #[error(
        "{what} is a Docker schema 1 manifest, a format given up in 2017; push the image again with a newer tool"
    )]
    Schema1 { what: String },
    #[error("no image for {wanted} among {}", list(.offered))]
    NoMatchingPlatform { wanted: Platform, offered: Vec<Platform> },
    #[error("{what} is larger than {limit} {unit}")]
    TooLarge { what: String, limit: u64, unit: &'static str },
    #[error("{what} is malformed: {why}")]
    Malformed { what: String, why: String },
    #[error("{what}: {why}")]
    BadDigest { what: String, why: BadDigest },
    #[error("layer {digest}: {why}")]
    Layer { digest: Digest, why: UnpackError },
    #[error("image.snapshotter is {name:?}, which this host cannot have: {why}")]
    Snapshotter { name: &'static str, why: String },
    #[error("no space is left for {path}", path = .path.display())]
    NoSpace { path: PathBuf },
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: Arc<io::Error> },
    #[error(
        "image {image} has no name with a digest to pull it by; load it again from where it came, and its damaged layers are replaced"
    )]
    NoOrigin { image: ImageId },
    /// A policy, a verifier or a pin does not admit the image.
    #[error("{0}")]
    Untrusted(Arc<trust::Distrust>),
    #[error("{0}")]
    Rootfs(String),
    #[error("{0}")]
    Store(Arc<store::StoreError>),
    #[error("whoever asked for it had left; what was fetched until then is kept for the next pull")]
    GivenUp,
    #[error("the pull was interrupted: the daemon is going down, or met a defect that its log names")]
    Interrupted,
}

impl PullCause {
    /// An error of the file system about `path`, with a full disk told apart.
    pub(crate) fn io(path: &Path, source: io::Error) -> PullCause {
        if is_no_space(&source) {
            return PullCause::NoSpace { path: path.to_owned() };
        }
        PullCause::Io { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn malformed(what: impl Into<String>, why: impl fmt::Display) -> PullCause {
        PullCause::Malformed { what: what.into(), why: why.to_string() }
    }
}

impl From<store::StoreError> for PullCause {
    fn from(error: store::StoreError) -> Self {
        match error {
            store::StoreError::Full { path } => PullCause::NoSpace { path },
            other => PullCause::Store(Arc::new(other)),
        }
    }
}

/// Whether the disk or a quota is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// How much of the platforms that an index offers is shown.
const LIST_MAX: usize = 2000;

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "no images at all".to_owned();
    }
    let all = platforms.iter().map(Platform::to_string).collect::<Vec<_>>().join(", ");
    // Their names are whatever an index pleases.
    match all.char_indices().nth(LIST_MAX) {
        Some((end, _)) => format!("{}...", &all[..end]),
        None => all,
    }
}

impl fmt::Display for PullError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "pull {:?}: {}", self.reference, self.cause)?;
        for (at, Attempt { url, outcome, times }) in self.attempts.iter().enumerate() {
            let before = if at == 0 { TRIED } else { "; " };
            write!(out, "{before}({}) {url}: {outcome}", at + 1)?;
            if *times > 1 {
                write!(out, " ({times} times)")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for PullError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}
