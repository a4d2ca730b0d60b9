//! Giving an image one more name.

use std::sync::Arc;

use model::digest::ImageId;
use model::reference::{BadReference, ImageReference};

use crate::Images;
use crate::catalog::{self, Ambiguous, Origin};
use crate::error::PullCause;
use crate::pull::{Shared, blocking};

/// A name that now leads to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub image: ImageId,
    /// The whole name.
    pub name: String,
    /// The other image that it led to before.
    pub moved_from: Option<ImageId>,
}

/// Why an image was not given a name.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    #[error("there is no image {name:?}; `pintle images` shows those there are")]
    Absent { name: String },
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    #[error(transparent)]
    BadName(#[from] BadReference),
    #[error(
        "{name:?} has a digest, which is no name that can be given: a digest follows from what the image is"
    )]
    Digest { name: String },
    #[error("{0}")]
    Failed(#[from] PullCause),
}

impl Images {
    /// Makes `name` lead to `image`, also if it led to another one. Without a tag it is `latest`.
    ///
    /// # Errors
    /// [`TagError`]; nothing has changed then.
    pub async fn tag(&self, image: &str, name: &str) -> Result<Named, TagError> {
        let reference = ImageReference::parse(name)?;
        if reference.digest().is_some() {
            return Err(TagError::Digest { name: name.to_owned() });
        }
        let found = self.find(image)?.ok_or_else(|| TagError::Absent { name: image.to_owned() })?;
        let (shared, id) = (Arc::clone(&self.shared), found.id.clone());
        let named = blocking(move || give(&shared, &id, &reference)).await?;
        named.ok_or_else(|| TagError::Absent { name: image.to_owned() })
    }
}

/// Gives a name; none if the image has gone meanwhile.
fn give(shared: &Shared, id: &ImageId, reference: &ImageReference) -> Result<Option<Named>, PullCause> {
    let name = catalog::stored_name(reference);
    shared.catalog.change(&shared.layers, || {
        let snapshot = shared.catalog.snapshot();
        if !snapshot.by_id.contains_key(id) {
            return Ok(None);
        }
        let before = snapshot.by_reference(reference).map(|image| image.id.clone());
        let origin = Origin { names: vec![name.clone()], ..Origin::default() };
        shared.layers.publish(&[], |tx| catalog::insert_origin(tx, id, &origin))?;
        Ok(Some(Named { image: id.clone(), name, moved_from: before.filter(|before| before != id) }))
    })
}
