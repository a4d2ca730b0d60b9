//! Why a plugin keeps something from happening, and why NRI is not there.

use std::path::PathBuf;

/// Why a request of the kubelet fails because of plugins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The plugin answered with an error.
    #[error("NRI plugin {plugin} refused {request}: {why}")]
    Plugin { plugin: String, request: &'static str, why: String },
    /// The plugin did not answer, and had said that the request has to fail then.
    #[error("NRI plugin {plugin} failed at {request}, without which it must not go on: {why}")]
    Failed { plugin: String, request: &'static str, why: String },
    /// Two plugins want different things of one container.
    #[error("NRI plugins {plugin:?} and {other:?} both set {field} of container {container}")]
    Conflict { plugin: String, other: String, field: String, container: String },
    /// A plugin wants to update the container that is being created.
    #[error(
        "NRI plugin {plugin} asks for an update of container {container}, which is being created; it may adjust it instead"
    )]
    UpdateOfNew { plugin: String, container: String },
    /// A validator does not accept what the others want.
    #[error("NRI validator {plugin} rejects the adjustments of container {container}: {why}")]
    Rejected { plugin: String, container: String, why: String },
}

/// What of an adjustment cannot be put into a container's spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("NRI plugins adjust {what}, which cannot be done: {why}")]
pub struct SpecError {
    pub what: String,
    pub why: String,
}

/// Why plugins cannot connect.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the NRI socket's folder {path}: {source}", path = path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("the NRI socket {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: std::io::Error },
    #[error("the NRI socket {path} is served by somebody else; give `nri.socket` another path, or end that", path = path.display())]
    Taken { path: PathBuf },
    #[error("the NRI plugin folder {path}: {source}", path = path.display())]
    Plugins { path: PathBuf, source: std::io::Error },
}
