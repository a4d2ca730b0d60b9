//! Looking for an image's signatures: beside its registry (lookaside), and in it, by tag and as referrers, as cosign puts them there.
//! All of it is from strangers: bounded in size and number, and checked against digests where there are some.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use distribution::Fetched;
use model::digest::Digest;
use serde::Deserialize;
use trust::limits::{SIGNATURE_BYTES, SIGNATURES};
use trust::{
    Attachment, BUNDLE, COSIGN_PAYLOAD, COSIGN_SIGNATURE, Distrust, Evidence, Registries, Signature, Store,
    Wanted,
};

use crate::admission::distrust;
use crate::error::PullCause;
use crate::manifest::Descriptor;
use crate::pull::Pull;

/// A search, and what it has found.
pub(crate) struct Search<'a> {
    pull: &'a Pull,
    lookaside: Option<Store>,
    attached: bool,
    pub found: Vec<Evidence>,
    /// The first thing that went wrong. That something does not exist is not wrong.
    pub trouble: Option<PullCause>,
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
            let name = Store::name(&self.pull.reference, digest, number);
            let (from, read) = match store {
                Store::Folder(folder) => {
                    let path = folder.join(name);
                    (path.display().to_string(), read(&path))
                }
                Store::Url(url) => {
                    let url = format!("{url}/{name}");
                    let body = self.document(&url).await;
                    (url, body.map(|body| body.map(|body| body.to_vec())))
                }
            };
            match read {
                Ok(None) => return,
                Err(cause) => return self.trouble(cause),
                Ok(Some(bytes)) => match Signature::from_lookaside(bytes) {
                    Ok(signature) => self.found.push(Evidence { from, signature }),
                    Err(why) => self.trouble(distrust(Distrust::Store { from, why: why.to_string() })),
                },
            }
        }
    }

    /// The tag that cosign derives from the digest.
    async fn by_tag(&mut self, digest: &Digest) {
        let tag = format!("{}.sig", distribution::referrers_tag(digest));
        match self.pull.session.manifest_if_any(&tag, MANIFEST, SIGNATURE_BYTES).await {
            Ok(Some(fetched)) => self.layers(&tag, &fetched).await,
            Ok(None) => {}
            Err(error) => self.trouble(error.into()),
        }
    }

    /// The manifests that have the image as their subject, by the registry's list of them or the tag that stands for it.
    async fn by_reference(&mut self, digest: &Digest) {
        let session = &self.pull.session;
        let body = match session.referrers(digest, SIGNATURE_BYTES).await {
            Ok(None) => {
                let tag = distribution::referrers_tag(digest);
                let fetched = session.manifest_if_any(&tag, INDEX, SIGNATURE_BYTES).await;
                fetched.map(|fetched| fetched.map(|fetched| fetched.body))
            }
            listed => listed,
        };
        let body = match body {
            Ok(Some(body)) => body,
            Ok(None) => return,
            Err(error) => return self.trouble(error.into()),
        };
        let Ok(index) = serde_json::from_slice::<Index>(&body) else { return };
        let is_signature =
            |referrer: &Referrer| matches!(referrer.artifact_type.as_str(), "" | COSIGN_SIGNATURE | BUNDLE);
        for referrer in index.manifests.into_iter().filter(is_signature).take(SIGNATURES) {
            let name = referrer.digest.to_string();
            let fetched = session.manifest(&name, Some(&referrer.digest), MANIFEST, SIGNATURE_BYTES).await;
            match fetched {
                Ok(fetched) => self.layers(&name, &fetched).await,
                Err(error) => self.trouble(error.into()),
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
                    let signature = signature(&layer.media_type, body, layer.annotations);
                    self.found.push(Evidence { from, signature });
                }
                Err(error) => self.trouble(error.into()),
            }
        }
    }

    /// A document at a URL of the administrator's, asked for without credentials.
    async fn document(&self, url: &str) -> Result<Option<Bytes>, PullCause> {
        let (folder, name) = url.rsplit_once('/').unwrap_or((url, ""));
        let session = distribution::session_at(Arc::clone(&self.pull.client), folder)?;
        Ok(session.document_if_any(name, SIGNATURE_BYTES).await?)
    }

    fn trouble(&mut self, cause: PullCause) {
        tracing::debug!(reference = %self.pull.reference, %cause, "a signature could not be read");
        self.trouble.get_or_insert(cause);
    }
}

fn signature(media_type: &str, body: Bytes, annotations: BTreeMap<String, String>) -> Signature {
    match media_type {
        BUNDLE => Signature::Bundle(body.to_vec()),
        _ => Signature::Sigstore(Attachment { payload: body.to_vec(), annotations }),
    }
}

/// A file of a store; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, PullCause> {
    let mut bytes = Vec::new();
    let done =
        std::fs::File::open(path).and_then(|file| file.take(SIGNATURE_BYTES + 1).read_to_end(&mut bytes));
    match done {
        Ok(length) if length as u64 > SIGNATURE_BYTES => {
            let (from, why) =
                (path.display().to_string(), format!("it is larger than {SIGNATURE_BYTES} bytes"));
            Err(distrust(Distrust::Store { from, why }))
        }
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PullCause::io(path, error)),
    }
}
