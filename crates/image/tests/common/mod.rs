//! What the tests of images have in common: a registry on loopback, and images opened in a folder that goes with the test.

// Each test file is a program of its own, and none uses all of this.
#![allow(dead_code, unreachable_pub)]

pub mod signing;

use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use image::{Credentials, ImageConfig, Images, PullError, PullRequest, Snapshotter};
use model::digest::ImageId;
use registry::make::{Compression, Image, ImageBuilder, Layer};
use registry::tar::Entry;
use registry::{Listening, Registry};
use store::Store;

/// The form of layers that the environment names: these tests hold for each.
pub fn config(root: PathBuf) -> ImageConfig {
    let mut config = ImageConfig::new(root);
    config.snapshotter = match std::env::var("PINTLE_TEST_SNAPSHOTTER").as_deref() {
        Err(_) => Snapshotter::Auto,
        Ok("overlayfs") => Snapshotter::Overlayfs,
        Ok("erofs") => Snapshotter::Erofs,
        Ok("native") => Snapshotter::Native,
        Ok(other) => panic!("PINTLE_TEST_SNAPSHOTTER: {other:?}"),
    };
    config
}

/// A node with images, and a registry to pull from.
pub struct Place {
    pub registry: Arc<Registry>,
    pub listening: Listening,
    pub images: Arc<Images>,
    pub folder: tempfile::TempDir,
}

impl Place {
    pub async fn new() -> Place {
        Place::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ImageConfig)) -> Place {
        Place::below(&std::env::temp_dir(), change).await
    }

    /// In a file system in memory, where there is one: for many small pulls, of which nobody wants to wait for the disk.
    pub async fn in_memory(change: impl FnOnce(&mut ImageConfig)) -> Place {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Place::below(memory, change).await } else { Place::with(change).await }
    }

    async fn below(above: &Path, change: impl FnOnce(&mut ImageConfig)) -> Place {
        let folder = tempfile::tempdir_in(above).unwrap();
        let registry = Registry::new();
        let listening = registry.listen().await.unwrap();
        let mut config = config(folder.path().join("root"));
        config.timeouts.backoff = Duration::from_millis(5);
        change(&mut config);
        let images = open(&folder, config);
        Place { registry, listening, images, folder }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.listening.host())
    }

    pub async fn pull(&self, rest: &str) -> Result<ImageId, PullError> {
        self.images.pull(PullRequest { reference: self.name(rest), ..Default::default() }).await
    }

    pub async fn pull_as(&self, rest: &str, credentials: Credentials) -> Result<ImageId, PullError> {
        self.images
            .pull(PullRequest { reference: self.name(rest), credentials: Some(credentials), platform: None })
            .await
    }

    /// The same folder with another database handle, as after a restart.
    pub fn reopen(&self) -> Arc<Images> {
        open(&self.folder, config(self.root()))
    }

    /// What stands in `layers/`.
    pub fn layer_folders(&self) -> Vec<String> {
        names(&self.root().join("layers"))
    }

    /// The file of an image's layer, if it is one.
    pub fn packed(&self, image: &Image, index: usize) -> Option<PathBuf> {
        let name = image.layers[index].diff_id.trim_start_matches("sha256:");
        Some(self.root().join("layers").join(format!("{name}.erofs"))).filter(|path| path.is_file())
    }

    /// The folder of an image's layer, by its index. Of a layer that is a file it is a mount, which lasts as long as the test.
    pub fn layer(&self, image: &Image, index: usize) -> PathBuf {
        let Some(packed) = self.packed(image, index) else {
            return self
                .root()
                .join("layers")
                .join(image.layers[index].diff_id.trim_start_matches("sha256:"));
        };
        PathBuf::from(format!("/proc/self/fd/{}", mount(&packed).into_raw_fd()))
    }
}

fn open(folder: &tempfile::TempDir, config: ImageConfig) -> Arc<Images> {
    let store = Arc::new(Store::open(&folder.path().join("pintle.db")).unwrap());
    Images::open(config, store).unwrap()
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// An image of these layers, gzipped.
pub fn image_of(layers: &[&[Entry]]) -> Image {
    let mut builder = ImageBuilder::new();
    for entries in layers {
        builder = builder.layer(Layer::new(entries, Compression::Gzip));
    }
    builder.build()
}

/// A layer's file, mounted.
pub fn mount(packed: &Path) -> OwnedFd {
    let source = [sys::mount::Parameter::Value("source", packed.to_str().unwrap())];
    sys::mount::new_filesystem("erofs", &source, 0).unwrap()
}

/// A path by which the contents of a detached mount can be reached while `mount` is open.
pub fn inside(mount: &OwnedFd, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{path}", mount.as_raw_fd()))
}

pub fn read(path: &Path) -> String {
    std::io::read_to_string(File::open(path).unwrap()).unwrap()
}

/// True, with a line that says so, if this user cannot do what the test needs.
pub fn skip_unless_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root for owners, devices and overlay mounts");
    }
    !root
}
