//! What an administrator may choose about images, and the limits that hostile ones run into.

use std::path::{Path, PathBuf};
use std::time::Duration;

use distribution::Bounds;
use distribution::{Proxies, Sources, Timeouts};
use model::platform::Platform;

use crate::admission::TrustConfig;
use crate::pinned::Pinned;

/// How images are pulled and where they are kept.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    /// The folder of layers and root file systems; made with mode 0700 if it is absent.
    pub root: PathBuf,
    /// Where this machine says something of registries. By default nowhere.
    pub registries: Sources,
    /// By default none.
    pub proxies: Proxies,
    /// Which image of several in an index is taken.
    pub platform: Platform,
    /// How many layers of one pull are fetched and unpacked at the same time.
    pub parallel_layers: usize,
    /// How long a pull goes on when everybody who asked for it has left, so that a retry finds it done or joins it.
    pub linger: Duration,
    /// How many connections carry layers at the same time, of all pulls together.
    pub connections: Bounds,
    /// What layers and root file systems are on disk.
    pub snapshotter: Snapshotter,
    /// Whether layers' packed blobs are kept below `blobs/`.
    pub keep_blobs: bool,
    /// Whether the overlay's own attributes are `user.overlay.*`: for a daemon in a user namespace.
    pub user_xattr: bool,
    /// Images that garbage collection leaves alone.
    pub pinned: Pinned,
    /// Where what containers write is kept instead of below `root`; made with mode 0700 if it is absent. It may be another file system.
    pub containers_root: Option<PathBuf>,
    /// How many bytes the containers of one pod may write, together; none: as many as the disk has. It takes project quotas.
    pub pod_write_limit: Option<u64>,
    /// Which images are admitted.
    pub trust: TrustConfig,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

impl ImageConfig {
    /// The defaults with this folder.
    pub fn new(root: impl Into<PathBuf>) -> ImageConfig {
        ImageConfig {
            root: root.into(),
            registries: Sources::default(),
            proxies: Proxies::default(),
            platform: Platform::of_this_program(),
            parallel_layers: 4,
            connections: Bounds::default(),
            snapshotter: Snapshotter::Auto,
            keep_blobs: false,
            linger: Duration::from_secs(600),
            user_xattr: false,
            pinned: Pinned::default(),
            containers_root: None,
            pod_write_limit: None,
            trust: TrustConfig::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// The folder below which containers write.
    pub(crate) fn written_root(&self) -> &Path {
        self.containers_root.as_ref().unwrap_or(&self.root)
    }
}

/// What layers and root file systems are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshotter {
    /// The one that is faster and as safe on this kernel.
    Auto,
    /// Layers are directories, which overlayfs stacks.
    Overlayfs,
    /// Layers are files with EROFS images, which are mounted, and which overlayfs stacks.
    Erofs,
    /// Layers are directories, of which every container gets a copy.
    Native,
}

/// What is too much. Sizes are bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    pub manifest_bytes: u64,
    pub config_bytes: u64,
    pub layers: usize,
    /// How deep indexes may be nested.
    pub index_depth: usize,
    /// One layer's archive, unpacked.
    pub layer_bytes: u64,
    /// How many times larger than the packed blob an archive may be, once it is over `ratio_floor_bytes`.
    pub ratio: u64,
    pub ratio_floor_bytes: u64,
    /// Entries of one layer.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            manifest_bytes: 4 << 20,
            config_bytes: 8 << 20,
            // The kernel stacks 500 layers.
            layers: 500,
            index_depth: 3,
            layer_bytes: 256 << 30,
            // Deflate reaches 1030 on zeros; zstd tens of thousands, which nobody's honest layer needs over some gigabytes.
            ratio: 1200,
            ratio_floor_bytes: 4 << 30,
            entries: 10_000_000,
        }
    }
}
