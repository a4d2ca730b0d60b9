//! Why the daemon does not start, or ended by itself.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::observe::{ExporterError, ExpositionError};

#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("it has to run as root: it makes namespaces, mounts and cgroups. Try: sudo pintle serve")]
    NotRoot,
    #[error("{what} {path}: {source}", path = path.display())]
    Folder { what: &'static str, path: PathBuf, source: io::Error },
    #[error("another daemon uses {path}; give this one a --root, --state and --socket of its own", path = path.display())]
    Taken { path: PathBuf },
    #[error("socket {path}: {source}", path = path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("socket {path}: another daemon answers there; stop it first, or give this one a --socket of its own", path = path.display())]
    SocketTaken { path: PathBuf },
    #[error(
        "runtime.cgroup_driver is \"systemd\", and systemd does not run on this machine (there is no /run/systemd/system): set it to \"auto\", and the kubelet's cgroupDriver to cgroupfs"
    )]
    NoSystemd,
    #[error("control groups: {0}")]
    Cgroups(cgroup::DetectError),
    #[error("the database: {0}")]
    Store(store::OpenError),
    #[error("the image store: {0}")]
    Images(image::OpenError),
    #[error("the network's state folder: {0}")]
    Network(io::Error),
    #[error("the shim's program cannot be put into sealed memory: {0}")]
    Shim(io::Error),
    #[error(
        "streaming.tls_cert and streaming.tls_key go together, and streaming.tls_client_ca goes with them: {missing} is not set"
    )]
    HalfTls { missing: &'static str },
    #[error("{0}")]
    Streaming(stream::StartError),
    #[error(transparent)]
    Metrics(#[from] ExpositionError),
    #[error(transparent)]
    Tracing(#[from] ExporterError),
    #[error("the node: {0}")]
    Node(node::OpenNodeError),
    #[error("threads and signals: {0}")]
    Threads(io::Error),
}
