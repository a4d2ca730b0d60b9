//! What may be there or not: lists of what refers to a manifest, tags that somebody derived from a digest, and documents that lie in stores
//! beside registries. Signatures are found so.

use std::sync::Arc;

use bytes::Bytes;
use http::Uri;
use model::digest::Digest;

use crate::client::Client;
use crate::endpoint::{Capability, Endpoint, Scheme};
use crate::error::RegistryError;
use crate::session::{Fetched, Session};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Session {
    /// The index of the manifests that have `digest` as their subject, of at most `limit` bytes (OCI distribution specification, "Listing
    /// Referrers"). Nobody vouches for it: it is under no digest. None from registries that have no such list; then it may be under
    /// [`referrers_tag`].
    ///
    /// # Errors
    /// As of [`Session::manifest`], but for what is only not there.
    pub async fn referrers(&self, digest: &Digest, limit: u64) -> Result<Option<Bytes>, RegistryError> {
        let what = format!("referrers of {digest}");
        let list = format!("referrers/{digest}");
        let fetched = self.seek(Capability::Referrers, &what, &list, Some(INDEX), None, limit).await?;
        Ok(fetched.map(|fetched| fetched.body))
    }

    /// A manifest by tag, if there is one.
    ///
    /// # Errors
    /// As of [`Session::manifest`], but for what is only not there.
    pub async fn manifest_if_any(
        &self,
        tag: &str,
        accept: &str,
        limit: u64,
    ) -> Result<Option<Fetched>, RegistryError> {
        let (what, of) = (format!("manifest {tag}"), format!("manifests/{tag}"));
        self.seek(Capability::Resolve, &what, &of, Some(accept), None, limit).await
    }

    /// A document, if there is one.
    ///
    /// # Errors
    /// As of [`Session::manifest`], but for what is only not there.
    pub async fn document_if_any(&self, name: &str, limit: u64) -> Result<Option<Bytes>, RegistryError> {
        let fetched = self.seek(Capability::Pull, name, name, None, None, limit).await?;
        Ok(fetched.map(|fetched| fetched.body))
    }

    /// Asks every endpoint until one has it. That one has it not says nothing against that endpoint.
    async fn seek(
        &self,
        capability: Capability,
        what: &str,
        of: &str,
        accept: Option<&str>,
        expected: Option<&Digest>,
        limit: u64,
    ) -> Result<Option<Fetched>, RegistryError> {
        let mut turns = match self.turns(what, capability) {
            Ok(turns) => turns,
            // Nobody may be asked for such things: there are none.
            Err(RegistryError::NoEndpoint { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut failure = None;
        while let Some(turn) = turns.next() {
            match turn.fetch(what, of, accept, expected, limit).await {
                Ok(fetched) => return Ok(Some(fetched)),
                Err(why) if is_absent(&why) => {}
                Err(why) => {
                    turns.failed(turn, why.clone());
                    failure = Some(why);
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// Registries say in many ways that they have something not.
fn is_absent(why: &RegistryError) -> bool {
    matches!(
        why,
        RegistryError::NotFound { .. }
            | RegistryError::Forbidden { .. }
            | RegistryError::Status { status: 400..=499, .. }
    )
}

/// The tag under which registries without the referrers API have the list ("Referrers Tag Schema").
pub fn referrers_tag(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// A conversation about documents below a URL that the administrator chose, without any credential.
///
/// # Errors
/// [`RegistryError::Malformed`] if it is no URL of HTTP.
pub fn session_at(client: Arc<Client>, url: &str) -> Result<Session, RegistryError> {
    let bad = || RegistryError::Malformed {
        what: format!("the URL {url}"),
        why: "http or https is expected".to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let scheme = match uri.scheme_str() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => return Err(bad()),
    };
    let host = uri.authority().ok_or_else(bad)?.as_str();
    let (path, folder) = uri.path().trim_end_matches('/').rsplit_once('/').unwrap_or_default();
    let endpoint = Endpoint {
        path: path.to_owned(),
        registry: None,
        ..Endpoint::of_registry(host, host, folder, scheme)
    };
    Ok(Session::new(client, vec![endpoint], None))
}
