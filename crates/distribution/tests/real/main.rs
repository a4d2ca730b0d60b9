//! The client against real registries, in this process and by other programs' reading of the same files.

mod endpoints;
mod peers;
mod proxies;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use distribution::{Client, Credentials, Fetched, Proxies, RegistryError, Session, Sources, Timeouts};
use model::digest::Digest;
use registry::make::{Compression, Image, ImageBuilder, Layer};
use registry::tar::Entry;
use registry::{Listening, Registry};

/// Files that say something of registries, and a client.
struct Machine {
    folder: tempfile::TempDir,
    sources: Sources,
    proxies: Proxies,
    timeouts: Timeouts,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let sources = Sources {
            insecure: Vec::new(),
            certs_dirs: vec![path("certs.d")],
            registries_conf: Some(path("registries.conf")),
            auth_files: vec![path("auth.json")],
        };
        let timeouts = Timeouts {
            mirror: Duration::from_millis(400),
            headers: Duration::from_secs(3),
            backoff: Duration::from_millis(5),
            tries: 2,
            ..Timeouts::default()
        };
        Machine { folder, sources, proxies: Proxies::default(), timeouts }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn session(&self, reference: &str, given: Option<&Credentials>) -> Arc<Session> {
        let client = Arc::new(Client::new(self.proxies.clone(), self.timeouts.clone()));
        let plan = self.sources.plan(reference).unwrap();
        Arc::new(plan.candidates[0].session(client, given))
    }

    async fn manifest(&self, reference: &str) -> Result<Fetched, RegistryError> {
        manifest(&self.session(reference, None), "1").await
    }
}

const ACCEPT: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

async fn manifest(session: &Session, tag: &str) -> Result<Fetched, RegistryError> {
    session.manifest(tag, None, ACCEPT, 1 << 20).await
}

/// All of a blob.
async fn download(session: &Arc<Session>, digest: &str, size: u64) -> Result<Vec<u8>, RegistryError> {
    let digest = Digest::parse(digest).unwrap();
    let mut download = session.download("layer", &digest, size);
    let mut bytes = Vec::new();
    while let Some(more) = download.next().await? {
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// An image with one layer of some 300 kB that do not compress.
fn image() -> Image {
    let mut state = 88_172_645_463_325_252_u64;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    let entry = Entry::file("a", 0o644, noise.take(300_000).collect::<Vec<_>>());
    ImageBuilder::new().layer(Layer::new(&[entry], Compression::Gzip)).build()
}

/// A registry that has the image as `app:1`.
async fn serving(repository: &str) -> (Arc<Registry>, Listening, Image) {
    let (registry, image) = (Registry::new(), image());
    registry.add(repository, "1", &image);
    let listening = registry.listen().await.unwrap();
    (registry, listening, image)
}
