//! Images that go from a registry into an archive without coming to this node: for any platform, and bit for bit.

use std::sync::Arc;

use distribution::{Credentials, Session};
use model::digest::{Digest, ImageId};
use model::reference::ImageReference;
use tokio::runtime::Handle;

use super::outgoing::{Outgoing, OutgoingLayer, Source, empty};
use super::{Names, SaveError, SaveRequest, Saving};
use crate::Images;
use crate::catalog::{self, StoredManifest};
use crate::error::PullCause;
use crate::manifest::{self, Descriptor, Document, EMPTY_CONFIG};
use crate::pull::{Shared, blocking, check_size};
use crate::search::Search;

impl Images {
    /// Looks at images of registries that are to be saved as they are there. Nothing of them is kept.
    ///
    /// # Errors
    /// [`SaveError`].
    pub async fn save_from_registry(
        &self,
        request: SaveRequest,
        credentials: Option<Credentials>,
    ) -> Result<Saving, SaveError> {
        if request.images.is_empty() {
            return Err(SaveError::Nothing);
        }
        let mut images = Vec::new();
        for name in &request.images {
            images.push(self.remote(name, &request, credentials.as_ref()).await?);
        }
        let shared = Arc::clone(&self.shared);
        let _lease = shared.layers.lease([]);
        Ok(Saving { shared, images, _lease })
    }

    /// The image of the first reference that a name stands for and that a registry has.
    async fn remote(
        &self,
        name: &str,
        request: &SaveRequest,
        credentials: Option<&Credentials>,
    ) -> Result<Outgoing, SaveError> {
        let (sources, asked) = (self.shared.config.registries.clone(), name.to_owned());
        let plan = blocking(move || sources.plan(&asked).map_err(PullCause::from)).await?;
        let mut failed = SaveError::Absent { name: name.to_owned() };
        for candidate in plan.candidates {
            let session = Arc::new(candidate.session(Arc::clone(&self.client), credentials));
            match read(&self.shared, &session, &candidate.reference, request).await {
                Ok(image) => return Ok(image),
                Err(error @ PullCause::Registry(_)) => failed = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(failed)
    }
}

/// Reads everything but the layers.
async fn read(
    shared: &Shared,
    session: &Arc<Session>,
    reference: &ImageReference,
    request: &SaveRequest,
) -> Result<Outgoing, PullCause> {
    let limits = &shared.config.limits;
    let platform = request.platform.as_ref().unwrap_or(&shared.config.platform);
    let mut search = Search::new(platform, limits.index_depth);
    let (mut originals, mut depth): (Vec<StoredManifest>, _) = (Vec::new(), 0);
    let (mut of, mut expected) = (reference.manifest().to_owned(), reference.digest().cloned());
    let mut entry: Option<Descriptor> = None;
    let (document, parsed) = loop {
        let fetched =
            session.manifest(&of, expected.as_ref(), manifest::ACCEPT, limits.manifest_bytes).await?;
        let what = format!("manifest {of}");
        if let Some(entry) = &entry {
            check_size(&what, &fetched.body, entry)?;
        }
        let parsed = manifest::parse(&what, &fetched.content_type, &fetched.body, limits)?;
        let media_type = manifest::media_type(&fetched.content_type, &fetched.body);
        let document = StoredManifest { digest: fetched.digest, media_type, body: fetched.body.into() };
        match parsed {
            Document::Manifest(manifest) => break (document, manifest),
            Document::Index(entries) => {
                originals.truncate(depth);
                originals.push(document);
                search.add(&what, depth + 1, entries)?;
            }
        }
        let next = search.next(&reference.to_string())?;
        (depth, of, expected) = (next.depth, next.entry.digest.to_string(), Some(next.entry.digest.clone()));
        entry = Some(next.entry);
    };
    originals.truncate(depth);
    originals.push(document.clone());
    let config = config(shared, session, &parsed.config.digest, &parsed.config.media_type).await?;
    let offered = match parsed.is_artifact() {
        true => None,
        false => Some(manifest::parse_config("the configuration", &config.body)?.platform()),
    };
    if let Some(offered) = offered.as_ref().filter(|offered| platform.rank(offered).is_none()) {
        let (wanted, offered) = (platform.clone(), vec![offered.clone()]);
        return Err(PullCause::NoMatchingPlatform { wanted, offered });
    }
    let layers = parsed.layers.into_iter().map(|blob| OutgoingLayer {
        size: u64::try_from(blob.size).unwrap_or(0),
        media_type: blob.media_type,
        came_from: Some(blob.digest.clone()),
        digest: blob.digest,
        source: Source::Remote { session: Arc::clone(session), runtime: Handle::current() },
    });
    let top = originals.first().map(|top| catalog::stored_name(&reference.with_digest(top.digest.clone())));
    let tag = reference.digest().is_none().then(|| reference.to_string());
    Ok(Outgoing {
        id: ImageId::of_config(config.digest.clone()),
        layers: layers.collect(),
        names: Names { tags: tag.into_iter().collect(), digests: top.into_iter().collect() },
        came_with: Some(document.clone()),
        is_original: true,
        manifest: document,
        config,
        originals,
        platform: offered,
    })
}

async fn config(
    shared: &Shared,
    session: &Session,
    digest: &Digest,
    media_type: &str,
) -> Result<StoredManifest, PullCause> {
    let none = empty();
    if media_type == EMPTY_CONFIG && *digest == none.digest {
        return Ok(none);
    }
    let what = format!("configuration {digest}");
    let body = session.blob(&what, digest, shared.config.limits.config_bytes).await?;
    Ok(StoredManifest { digest: digest.clone(), media_type: media_type.to_owned(), body: body.into() })
}
