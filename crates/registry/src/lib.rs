//! A small image registry, and images made on the spot to put into it: for tests and for the demonstration.
//!
//! It serves the OCI distribution specification from memory or from files: manifests by tag and digest, blobs with `Range`, referrers by
//! API or by tag, and pushes of every kind; to everybody, for a password, or for tokens; in the clear or over TLS (feature `tls`). What goes
//! wrong with which answer is data: [`Rule`]s of [`Fault`]s. Everything that was asked stands in a log.

mod auth;
mod body;
mod contents;
pub mod corpus;
mod fault;
pub mod make;
mod pull;
mod push;
mod server;
pub mod tar;
#[cfg(feature = "tls")]
pub mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use auth::Auth;
pub use contents::Blob;
use contents::Contents;
pub use fault::{Fault, Rule};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// What was asked of the registry, as the fault hook and the log see it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
    pub user_agent: Option<String>,
    /// Whether the client showed a certificate.
    pub certified: bool,
    /// How many requests for the same target came before this one.
    pub before: usize,
}

type Hook = Arc<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// A registry and what it holds.
#[derive(Default)]
pub struct Registry {
    contents: Mutex<Contents>,
    auth: Mutex<Auth>,
    tokens: Mutex<Vec<auth::Token>>,
    hook: Mutex<Option<Hook>>,
    log: Mutex<Vec<Asked>>,
    forms: Mutex<Vec<String>>,
    counter: AtomicU64,
    no_referrers: AtomicBool,
    link: Mutex<Link>,
}

/// The line to the world that all connections share.
#[derive(Debug, Default)]
struct Link {
    bytes_per_second: Option<u64>,
    /// Until when it is taken by what was sent already.
    busy_until: Option<Instant>,
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
            contents.put_blob(repository, digest, blob.clone());
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

    /// Serves a blob whatever it is in every repository, under the digest it is said to have.
    pub fn add_blob(&self, digest: &str, blob: Blob) {
        lock(&self.contents).put_blob_everywhere(digest, blob);
    }

    /// Serves an artifact by its digest, and where the referrers API is off, also in the index under its subject's tag.
    ///
    /// `subject` is the digest that it was made for with [`make::artifact`].
    pub fn add_referrer(&self, repository: &str, subject: &str, artifact: &make::Image) {
        let mut contents = lock(&self.contents);
        for (digest, blob) in &artifact.blobs {
            contents.put_blob(repository, digest, blob.clone());
        }
        for (digest, manifest) in &artifact.manifests {
            contents.put_manifest(repository, digest, manifest.clone());
        }
        if !self.has_referrers_api() {
            contents.put_fallback(repository, subject);
        }
    }

    /// A manifest as it is served, by tag or digest: its digest and its bytes. Also what was pushed.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, make::Manifest)> {
        lock(&self.contents).manifest(repository, reference)
    }

    /// Whether a repository has a blob, also one that was pushed or mounted.
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        lock(&self.contents).blob(repository, digest).is_some()
    }

    /// Turns the referrers API off or on again. It is on at first.
    pub fn set_referrers_api(&self, on: bool) {
        self.no_referrers.store(!on, Ordering::Relaxed);
    }

    /// Sends and takes at most so many bytes a second from now on, over all connections together.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        *lock(&self.link) = Link { bytes_per_second, busy_until: None };
    }

    /// Asks for credentials from now on.
    pub fn set_auth(&self, auth: Auth) {
        *lock(&self.auth) = auth;
    }

    /// Makes every token that was issued invalid.
    pub fn revoke_tokens(&self) {
        lock(&self.tokens).clear();
    }

    /// Spoils answers by the first rule that applies, from now on; without rules all goes well again.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.set_hook(move |asked| {
            rules.iter().find(|rule| rule.spoils(asked)).map(|rule| rule.fault.clone())
        });
    }

    /// Consults `hook` at every request, where data does not say enough; a fault it returns is what the client gets.
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

    /// The forms that the token endpoint was sent so far: a refresh token stands in there.
    pub fn forms(&self) -> Vec<String> {
        lock(&self.forms).clone()
    }

    /// Forgets what was asked, so that the next request to each target is the first.
    pub fn clear_log(&self) {
        lock(&self.log).clear();
        lock(&self.forms).clear();
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

    fn has_referrers_api(&self) -> bool {
        !self.no_referrers.load(Ordering::Relaxed)
    }

    fn add_form(&self, form: &str) {
        lock(&self.forms).push(form.to_owned());
    }

    fn fault(&self, asked: &Asked) -> Option<Fault> {
        let hook = lock(&self.hook).clone();
        hook.and_then(|hook| hook(asked))
    }

    /// Waits until the line has carried so many bytes.
    async fn pace(&self, bytes: usize) {
        let until = {
            let mut link = lock(&self.link);
            let Some(rate) = link.bytes_per_second else { return };
            let start = link.busy_until.unwrap_or_else(Instant::now).max(Instant::now());
            let until = start + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
            link.busy_until = Some(until);
            until
        };
        tokio::time::sleep_until(until).await;
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
