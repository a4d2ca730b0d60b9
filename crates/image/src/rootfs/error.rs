//! Why there is no root file system.

use std::io;
use std::path::PathBuf;

use model::digest::ImageId;
use store::StoreError;

use crate::unpack::UnpackError;

/// Why a root file system could not be made, mounted or removed.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("image {image} is not here; pull it first")]
    NoImage { image: ImageId },
    #[error("there is no root file system for {owner}")]
    Absent { owner: String },
    #[error("there is a root file system for {owner} already")]
    Exists { owner: String },
    #[error("{owner:?} cannot own a root file system: a name of letters, digits, '.', '_' and '-' can")]
    BadOwner { owner: String },
    #[error("a layer of {owner} is missing: {layer}")]
    NoLayer { owner: String, layer: String },
    #[error("image.pod_write_limit is set, which the file system of {path} cannot keep: {why}", path = .path.display())]
    NoQuota { path: PathBuf, why: String },
    #[error(
        "{owner} cannot have the SELinux label {label}: without overlayfs, which is not possible here, its files have their own"
    )]
    NoLabel { owner: String, label: String },
    #[error(
        "{owner} can be neither saved nor restored: without overlayfs, which is not possible here, its root file system is a copy, and nothing tells what was changed in it"
    )]
    NoChanges { owner: String },
    #[error("image {image} has no {path}", path = .path.display())]
    NoPath { image: ImageId, path: PathBuf },
    #[error("mounting the root file system of {owner} on {layers} layers: {source}")]
    Mount { owner: String, layers: usize, source: io::Error },
    #[error("root file system of {owner} in {path}: {source}", path = .path.display())]
    Io { owner: String, path: PathBuf, source: io::Error },
    #[error("what {owner} is to find changed in its root file system: {source}")]
    Changes { owner: String, source: UnpackError },
    #[error(transparent)]
    Store(#[from] StoreError),
}
