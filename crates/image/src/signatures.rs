//! Looking for an image's signatures: beside its registry (lookaside), and in it, by tag and as referrers, as cosign puts them there.
//! All of it is from strangers: bounded in size and number, and checked against digests where there are some.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use distribution::{Fetched, RegistryError};
use model::digest::Digest;
use serde::Deserialize;
use trust::limits::{LIST_BYTES, SIGNATURE_BYTES, SIGNATURES};
use trust::{
    Attachment, BUNDLE, COSIGN_PAYLOAD, COSIGN_SIGNATURE, Distrust, Evidence, Registries, Signature, Store,
    Wanted,
};

use crate::manifest::Descriptor;
use crate::pull::Pull;

/// A search, and what it has found.
pub(crate) struct Search<'a> {
    pull: &'a Pull,
    lookaside: Option<Store>,
    attached: bool,
    pub found: Vec<Evidence>,
    /// The first who did not answer.
    pub trouble: Option<RegistryError>,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest of signatures.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Referrer {
    digest: Digest,
    #[serde(default)]
    artifact_type: String,
}

impl<'a> Search<'a> {
    /// A search for what is wanted, where the configuration says that it may be.
    pub(crate) fn new(pull: &'a Pull, wanted: Wanted) -> Result<Search<'a>, Distrust> {
        let folder = &pull.shared.config.trust.registries_dir;
        let store = |from: &Path, why: String| Distrust::Store { from: from.display().to_string(), why };
        let registries = Registries::read(folder).map_err(|error| store(&error.path, error.why))?;
        let stores = registries.stores(&pull.reference).map_err(|why| store(folder, why))?;
        Ok(Search {
            pull,
            lookaside: stores.lookaside.filter(|_| wanted.lookaside),
            attached: wanted.attached && stores.attachments != Some(false),
            found: Vec::new(),
            trouble: None,
        })
    }

    /// Looks for the signatures of `digest`.
    pub(crate) async fn look(&mut self, digest: &Digest) {
        if let Some(store) = self.lookaside.clone() {
            self.beside(&store, digest).await;
        }
        if self.attached {
            self.by_tag(digest).await;
            self.by_reference(digest).await;
        }
    }

    /// `signature-1`, `signature-2` and so on, until there is none.
    async fn beside(&mut self, store: &Store, digest: &Digest) {
        for number in 1..=SIGNATURES {
            if self.found.len() >= SIGNATURES {
                return;
            }
            let name = Store::name(&self.pull.reference, digest, number);
            match store {
                Store::Folder(folder) => {
                    let path = folder.join(name);
                    let signature = match read(&path) {
                        Ok(None) => return,
                        Ok(Some(bytes)) => Signature::from_lookaside(bytes),
                        Err(error) => Signature::Unreadable(error.to_string()),
                    };
                    self.take(path.display().to_string(), signature);
                }
                Store::Url(url) => {
                    let url = format!("{url}/{name}");
                    match self.document(&url).await {
                        Ok(None) => return,
                        Ok(Some(bytes)) => self.take(url, Signature::from_lookaside(bytes.to_vec())),
                        Err(error) => return self.failed(&url, error),
                    }
                }
            }
        }
    }

    /// The tag that cosign derives from the digest.
    async fn by_tag(&mut self, digest: &Digest) {
        let tag = format!("{}.sig", distribution::referrers_tag(digest));
        match self.pull.session.manifest_if_any(&tag, MANIFEST, LIST_BYTES).await {
            Ok(Some(fetched)) => self.layers(&tag, &fetched).await,
            Ok(None) => {}
            Err(error) => self.failed(&tag, error),
        }
    }

    /// The manifests that have the image as their subject, by the registry's list of them or the tag that stands for it.
    async fn by_reference(&mut self, digest: &Digest) {
        let session = &self.pull.session;
        let body = match session.referrers(digest, LIST_BYTES).await {
            Ok(None) => {
                let tag = distribution::referrers_tag(digest);
                let fetched = session.manifest_if_any(&tag, INDEX, LIST_BYTES).await;
                fetched.map(|fetched| fetched.map(|fetched| fetched.body))
            }
            listed => listed,
        };
        let body = match body {
            Ok(Some(body)) => body,
            Ok(None) => return,
            Err(error) => return self.failed("the list of referrers", error),
        };
        let Ok(index) = serde_json::from_slice::<Index>(&body) else { return };
        let is_signature =
            |referrer: &Referrer| matches!(referrer.artifact_type.as_str(), "" | COSIGN_SIGNATURE | BUNDLE);
        for referrer in index.manifests.into_iter().filter(is_signature).take(SIGNATURES) {
            let name = referrer.digest.to_string();
            let fetched = session.manifest(&name, Some(&referrer.digest), MANIFEST, LIST_BYTES).await;
            match fetched {
                Ok(fetched) => self.layers(&name, &fetched).await,
                Err(error) => self.failed(&name, error),
            }
        }
    }

    /// The signatures that are layers of a manifest.
    async fn layers(&mut self, name: &str, fetched: &Fetched) {
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&fetched.body) else { return };
        for layer in manifest.layers {
            if self.found.len() >= SIGNATURES || !matches!(layer.media_type.as_str(), COSIGN_PAYLOAD | BUNDLE)
            {
                continue;
            }
            let from = format!("{name} {}", layer.digest);
            let what = format!("signature {}", layer.digest);
            match self.pull.session.blob(&what, &layer.digest, SIGNATURE_BYTES).await {
                Ok(body) => {
                    self.take(from, signature(&layer.media_type, body, layer.annotations));
                }
                Err(error) => self.failed(&from, error),
            }
        }
    }

    /// A document at a URL of the administrator's, asked for without credentials.
    async fn document(&self, url: &str) -> Result<Option<Bytes>, RegistryError> {
        let (folder, name) = url.rsplit_once('/').unwrap_or((url, ""));
        let session = distribution::session_at(Arc::clone(&self.pull.client), folder)?;
        session.document_if_any(name, SIGNATURE_BYTES).await
    }

    fn take(&mut self, from: String, signature: Signature) {
        self.found.push(Evidence { from, signature });
    }

    /// Who does not answer may well have one. What is wrong with an answer is for the verdict to tell.
    fn failed(&mut self, from: &str, error: RegistryError) {
        tracing::debug!(reference = %self.pull.reference, from, %error, "a signature could not be fetched");
        let is_passing =
            matches!(error, RegistryError::TooManyRequests { .. } | RegistryError::Unauthorized { .. });
        if is_passing || error.is_unavailable() {
            self.trouble.get_or_insert(error);
        } else if self.found.len() < SIGNATURES {
            self.take(from.to_owned(), Signature::Unreadable(error.to_string()));
        }
    }
}

fn signature(media_type: &str, body: Bytes, annotations: BTreeMap<String, String>) -> Signature {
    match media_type {
        BUNDLE => Signature::Bundle(body.to_vec()),
        _ => Signature::Sigstore(Attachment { payload: body.to_vec(), annotations }),
    }
}

/// A file of a store; `None` if it is not there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let done = File::open(path).and_then(|file| file.take(SIGNATURE_BYTES + 1).read_to_end(&mut bytes));
    match done {
        Ok(length) if length as u64 > SIGNATURE_BYTES => {
            let why = format!("it is larger than {SIGNATURE_BYTES} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, why))
        }
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
