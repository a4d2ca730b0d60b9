//! Why a pod could not be attached or detached, or no pod can be attached at all.

use std::io;
use std::path::PathBuf;

use crate::cni::config::Skipped;
use crate::cni::exec::PluginError;
use crate::cni::record::RecordError;
use crate::cni::result::BadResult;

/// Why no pod can be attached now.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    #[error(
        "no network configuration in {}{}; write one or run `pintle network init`",
        folder.display(), skipped_files(skipped)
    )]
    NoConfiguration { folder: PathBuf, skipped: Vec<Skipped> },
    #[error(
        "network {network} ({}) waits for the pod CIDR from the kubelet; without a kubelet put \"subnets\" into the file or run `pintle network init`",
        path.display()
    )]
    NoPodCidr { network: String, path: PathBuf },
    #[error("network {network} ({}) is not ready: {source}", path.display())]
    Plugin { network: String, path: PathBuf, source: Box<PluginError> },
}

fn skipped_files(skipped: &[Skipped]) -> String {
    skipped.iter().map(|file| format!("; {} is skipped: {}", file.path.display(), file.why)).collect()
}

/// A pod could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("pod {pod}: {field} {value:?} cannot be passed to network plugins: {why}")]
    BadField { pod: String, field: &'static str, value: String, why: &'static str },
    #[error(transparent)]
    NotReady(#[from] NotReady),
    #[error("pod {pod}, network {network}: {source}{}", owed_note(undo))]
    Plugin { pod: String, network: String, source: Box<PluginError>, undo: Vec<PluginError> },
    #[error(
        "pod {pod}, network {network}: the result gives the pod no address on {interface}{}",
        owed_note(undo)
    )]
    NoAddress { pod: String, network: String, interface: String, undo: Vec<PluginError> },
    #[error("pod {pod}: {source}")]
    Result { pod: String, source: BadResult },
    #[error("pod {pod}: its network namespace cannot be used: {source}")]
    Netns { pod: String, source: io::Error },
    #[error("pod {pod}: an earlier attachment could not be undone: {source}")]
    Stale { pod: String, source: Box<DetachError> },
    #[error("pod {pod}: {source}")]
    Record { pod: String, source: RecordError },
}

/// An attachment could not be undone wholly; it stays owed.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    #[error("{0:?} is not a pod id")]
    BadId(String),
    #[error("pod {pod}, network {network}: DEL failed and is still owed: {}", joined(errors))]
    Plugins { pod: String, network: String, errors: Vec<PluginError> },
    #[error("pod {pod}: {source}")]
    Record { pod: String, source: RecordError },
}

fn joined(errors: &[PluginError]) -> String {
    errors.iter().map(|error| error.to_string()).collect::<Vec<_>>().join("; ")
}

fn owed_note(undo: &[PluginError]) -> String {
    if undo.is_empty() {
        String::new()
    } else {
        format!("; undoing it failed and is still owed: {}", joined(undo))
    }
}

/// The kubelet's pod CIDR cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PodCidrError {
    #[error("pod CIDR {0:?} is not a list of subnets such as \"10.1.2.0/24,fd00:1::/64\"")]
    Malformed(String),
    #[error("the pod CIDR could not be kept: {0}")]
    Io(#[from] io::Error),
}
