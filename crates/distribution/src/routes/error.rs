//! Why there is no plan for a reference.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::reference::BadReference;

use crate::place::Place;

/// Why there is no plan. What a file is to blame for names the file and the line.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    #[error("{0}")]
    BadReference(#[from] BadReference),
    #[error("{path}: {source}", path = .path.display())]
    Unreadable { path: PathBuf, source: Arc<io::Error> },
    #[error("{place}: {why}")]
    Wrong { place: Place, why: String },
    #[error("{reference} is blocked by {place}")]
    Blocked { reference: String, place: Place },
    #[error("{place} leads {reference} to {to:?}, which names no repository: {why}")]
    LeadsNowhere { place: Place, reference: String, to: String, why: String },
    #[error(
        "{name:?} names no registry, {place} has several to look in, and short-name-mode is \"enforcing\": write which one is meant, or give it an alias"
    )]
    SeveralRegistries { name: String, place: Place },
}

impl RouteError {
    pub(crate) fn unreadable(path: &Path, source: io::Error) -> RouteError {
        RouteError::Unreadable { path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn wrong(place: Place, why: impl Into<String>) -> RouteError {
        RouteError::Wrong { place, why: why.into() }
    }
}
