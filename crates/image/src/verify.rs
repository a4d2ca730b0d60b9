//! Whether layers still have the bytes that they were unpacked with. One that has not is marked: the next pull of an image that has it
//! fetches it again, and nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use crate::bulk::bulk;
use crate::catalog::Image;
use crate::checksum::{self, Source, Sum};
use crate::error::PullCause;
use crate::form::{FileSum, Form};
use crate::layers::Layer;
use crate::pull::Shared;
use crate::tree::Usage;
use crate::{ImageError, Images, PullError, PullRequest};

/// What was found of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The layer's diff id, or another name of it.
    pub layer: String,
    /// The images that have it, as people know them.
    pub images: Vec<String>,
    pub usage: Usage,
    pub finding: Finding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It is what was unpacked.
    Whole,
    /// It is not, and why this is known.
    Damaged(String),
    /// An earlier release unpacked it and recorded nothing: nobody can tell.
    Unrecorded,
}

impl Images {
    /// The layers of an image, or of all images, each once; the order is that in which they are to be checked.
    pub fn layers_of(&self, images: &[Arc<Image>]) -> Vec<(String, Vec<String>)> {
        let mut layers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for image in images {
            for layer in &image.layers {
                layers.entry(layer).or_default().push(image.name().to_owned());
            }
        }
        layers.into_iter().map(|(layer, images)| (layer.to_owned(), images)).collect()
    }

    /// Reads a layer from the disk, holds it against what it was, and records what was found. The layer stays while this goes on.
    ///
    /// # Errors
    /// What the database says. A layer that cannot be read is damaged.
    pub async fn check_layer(&self, layer: String, images: Vec<String>) -> Result<Checked, ImageError> {
        let shared = Arc::clone(&self.shared);
        bulk(move || check(&shared, layer, images)).await.map_err(ImageError::Failed)
    }

    /// Pulls an image again by the digest that it was pulled by, so that its damaged layers are fetched and nothing else is.
    ///
    /// # Errors
    /// [`PullError`]: that the image has no name to pull it by, too.
    pub async fn repair(&self, image: &Image) -> Result<(), PullError> {
        let Some(name) = image.repo_digests.first() else {
            let cause = PullCause::NoOrigin { image: image.id.clone() };
            let reference = image.name().to_owned();
            return Err(PullError { reference, cause: Box::new(cause), attempts: Vec::new() });
        };
        let platform = self.cannot_run(image).and(image.platform.clone());
        self.pull(PullRequest { reference: name.clone(), credentials: None, platform }).await.map(drop)
    }
}

fn check(shared: &Shared, id: String, images: Vec<String>) -> Result<Checked, PullCause> {
    let _lease = shared.layers.lease([id.clone()]);
    let Some(layer) = shared.layers.published(&id) else {
        let finding = Finding::Damaged("it is not there".to_owned());
        return Ok(Checked { layer: id, images, usage: Usage::default(), finding });
    };
    let finding = examine(&layer);
    let damage = match &finding {
        Finding::Whole => None,
        Finding::Damaged(why) => Some(why.as_str()),
        Finding::Unrecorded => layer.damage.as_deref(),
    };
    if damage != layer.damage.as_deref() {
        if let Some(why) = damage {
            tracing::warn!(layer = id, path = %layer.path.display(), why, "a layer is damaged; the next pull of its image fetches it again");
        }
        shared.layers.mark(&layer, damage)?;
    }
    Ok(Checked { layer: id, images, usage: layer.usage, finding })
}

fn examine(layer: &Layer) -> Finding {
    let Some(recorded) = &layer.checksum else { return Finding::Unrecorded };
    let is_same = match Form::of(&layer.path) {
        Form::Directory | Form::Tree => {
            Sum::parse(recorded).map(|recorded| Ok(sum(&layer.path, layer)? == recorded))
        }
        Form::Erofs => {
            FileSum::parse(recorded).map(|recorded| Ok(FileSum::of(File::open(&layer.path)?)? == recorded))
        }
    };
    match is_same {
        // A later release recorded it in a way of its own.
        None => Finding::Unrecorded,
        Some(Ok(true)) => Finding::Whole,
        Some(Ok(false)) => Finding::Damaged("its files are not what was unpacked".to_owned()),
        Some(Err::<_, std::io::Error>(error)) => Finding::Damaged(format!("it cannot be read: {error}")),
    }
}

fn sum(path: &Path, layer: &Layer) -> std::io::Result<Sum> {
    checksum::of_tree(&File::open(path)?.into(), &layer.loose_ends, Source::Disk)
}
