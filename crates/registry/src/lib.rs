//! A small image registry, and images made on the spot to put into it: for tests and for the demonstration.
//!
//! It serves the pull half of the OCI distribution specification from memory or from files: manifests by tag and digest, blobs with
//! `Range`, `HEAD`, basic and bearer authentication. Faults can be injected per request.

mod auth;
mod contents;
mod fault;
pub mod make;
mod server;
pub mod tar;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use auth::Auth;
pub use contents::Blob;
use contents::Contents;
pub use fault::Fault;
use tokio::net::TcpListener;

/// What was asked of the registry, as the fault hook and the log see it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    /// How many requests for the same target came before this one.
    pub before: usize,
}

type Hook = Arc<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// A registry and what it holds.
#[derive(Default)]
pub struct Registry {
    contents: Mutex<Contents>,
    auth: Mutex<Auth>,
    tokens: Mutex<Vec<String>>,
    hook: Mutex<Option<Hook>>,
    log: Mutex<Vec<Asked>>,
    counter: AtomicU64,
}

/// A registry that listens on a port of 127.0.0.1 until this is dropped.
#[derive(Debug)]
pub struct Listening {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Registry {
    /// An empty registry that asks for no credentials.
    pub fn new() -> Arc<Registry> {
        Arc::default()
    }

    /// Serves `image` as `repository:tag` and by its digests. A tag that existed leads to the new image from now on.
    pub fn add(&self, repository: &str, tag: &str, image: &make::Image) {
        let mut contents = lock(&self.contents);
        for (digest, blob) in &image.blobs {
            contents.put_blob(digest, blob.clone());
        }
        for (digest, manifest) in &image.manifests {
            contents.put_manifest(repository, digest, manifest.clone());
        }
        contents.put_tag(repository, tag, &image.digest);
    }

    /// Serves a manifest whatever it is, and returns its digest; `tag` leads to it.
    pub fn add_manifest(&self, repository: &str, tag: &str, media_type: &str, body: &[u8]) -> String {
        let digest = make::sha256(body);
        let mut contents = lock(&self.contents);
        contents.put_manifest(repository, &digest, make::Manifest::new(media_type, body));
        contents.put_tag(repository, tag, &digest);
        digest
    }

    /// Serves a blob whatever it is, under the digest it is said to have.
    pub fn add_blob(&self, digest: &str, blob: Blob) {
        lock(&self.contents).put_blob(digest, blob);
    }

    /// Asks for credentials from now on.
    pub fn set_auth(&self, auth: Auth) {
        *lock(&self.auth) = auth;
    }

    /// Makes every token that was issued invalid.
    pub fn revoke_tokens(&self) {
        lock(&self.tokens).clear();
    }

    /// Consults `hook` at every request; a fault it returns is what the client gets.
    pub fn set_hook(&self, hook: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static) {
        *lock(&self.hook) = Some(Arc::new(hook));
    }

    /// Everything that was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        lock(&self.log).clone()
    }

    /// How many `GET`s had a target that contains `part`.
    pub fn count(&self, part: &str) -> usize {
        lock(&self.log).iter().filter(|asked| asked.method == "GET" && asked.target.contains(part)).count()
    }

    /// Serves connections of `listener` until the returned future is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        server::serve(self, listener).await;
    }

    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn listen(self: &Arc<Self>) -> io::Result<Listening> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(Arc::clone(self).serve(listener));
        Ok(Listening { address, task })
    }

    fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }
}

impl Listening {
    /// The registry as a reference names it, `127.0.0.1:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing here leaves a half-made value behind when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
