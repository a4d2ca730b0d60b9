//! Docker archives: a `manifest.json` that names a configuration and the layers' archives by their paths.

use std::collections::HashMap;

use model::digest::{Digest, ImageId};
use model::reference::ImageReference;
use serde::Deserialize;

use super::take::Incoming;
use super::{Contents, LoadError, Wish};
use crate::catalog::{self, Origin};
use crate::config::Limits;
use crate::manifest::{self, Descriptor, LayerSource};
use crate::pull::check_config;

/// How many images an archive may have, and names one of them.
const MOST_IMAGES: usize = 1000;
const MOST_NAMES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Where the archive's files are: their digest and size by their path.
pub(super) type Files = HashMap<String, (Digest, u64)>;

/// The images of an archive with this `manifest.json`.
pub(super) fn images(
    contents: &dyn Contents,
    text: &[u8],
    files: &Files,
    wish: &Wish,
    limits: &Limits,
) -> Result<Vec<Incoming>, LoadError> {
    let bad = |why: String| LoadError::entry("manifest.json", why);
    let images: Vec<Image> =
        serde_json::from_slice(text).map_err(|error| bad(format!("is malformed: {error}")))?;
    if images.len() > MOST_IMAGES {
        return Err(bad(format!("has more than {MOST_IMAGES} images")));
    }
    images.into_iter().map(|image| one(contents, image, files, wish, limits)).collect()
}

fn one(
    contents: &dyn Contents,
    image: Image,
    files: &Files,
    wish: &Wish,
    limits: &Limits,
) -> Result<Incoming, LoadError> {
    let file = |path: &str| {
        let shown: String = path.chars().take(256).collect();
        let missing = || LoadError::entry("manifest.json", format!("names {shown:?}, which is not there"));
        files.get(path).cloned().ok_or_else(missing)
    };
    let layers = image.layers.unwrap_or_default();
    if layers.len() > limits.layers {
        return Err(LoadError::entry(
            "manifest.json",
            format!("has an image of more than {} layers", limits.layers),
        ));
    }
    let (digest, _) = file(&image.config)?;
    let config = contents.document(&digest, limits.config_bytes)?;
    let config =
        config.ok_or_else(|| LoadError::Missing { what: "manifest.json".into(), digest: digest.clone() })?;
    let what = format!("configuration {digest}");
    let parsed = manifest::parse_config(&what, &config)?;
    check_config(&what, &parsed, layers.len(), &wish.platform)?;
    let mut sources = Vec::new();
    for (path, diff_id) in layers.iter().zip(parsed.rootfs.diff_ids) {
        let (digest, size) = file(path)?;
        let blob = Descriptor::plain(digest, i64::try_from(size).unwrap_or(i64::MAX));
        sources.push(LayerSource { blob, diff_id, file: None });
    }
    let tags = image.repo_tags.unwrap_or_default();
    let said = tags.iter().take(MOST_NAMES).filter_map(|tag| ImageReference::parse(tag).ok());
    let mut names: Vec<String> = match &wish.name {
        Some(name) => vec![catalog::stored_name(name)],
        None => said.filter(|tag| tag.digest().is_none()).map(|tag| catalog::stored_name(&tag)).collect(),
    };
    names.dedup();
    let origin = Origin { names, ..Origin::default() };
    Ok(Incoming { id: ImageId::of_config(digest), config, sources, origin })
}
