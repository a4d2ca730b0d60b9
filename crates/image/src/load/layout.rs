//! Images as OCI has them: an index, manifests, configurations. The same for an archive's layout and for a store of blobs.

use std::collections::BTreeMap;

use model::digest::{Digest, ImageId};
use model::reference::ImageReference;

use super::take::Incoming;
use super::{Contents, LoadError, Wish};
use crate::artifact;
use crate::catalog::{self, Origin, StoredManifest};
use crate::config::Limits;
use crate::export::{NAME, ORIGINALS, REF_NAME, REPO_DIGESTS};
use crate::manifest::{self, Descriptor, Document, LayerSource, Manifest, OCI_INDEX};
use crate::pull::{check_config, check_size, check_types};
use crate::search::Search;

/// How many documents an entry of an index may name beside its own.
const MOST_ORIGINALS: usize = 16;

/// The images of a layout with this `index.json`.
pub(super) fn images(
    contents: &dyn Contents,
    index: &[u8],
    wish: &Wish,
    limits: &Limits,
) -> Result<Vec<Incoming>, LoadError> {
    let entries = match manifest::parse("index.json", OCI_INDEX, index, limits)? {
        Document::Index(entries) => entries,
        Document::Manifest(_) => return Err(LoadError::entry("index.json", "is a manifest and no index")),
    };
    group(entries).into_iter().map(|entries| image(contents, entries, wish, limits)).collect()
}

/// Entries of one name are one image for several platforms. Those without a name are so too, if each is for another platform.
fn group(entries: Vec<Descriptor>) -> Vec<Vec<Descriptor>> {
    let mut named: BTreeMap<String, Vec<Descriptor>> = BTreeMap::new();
    let mut groups = Vec::new();
    for entry in entries.into_iter().filter(|entry| !entry.is_attestation()) {
        let name = entry.annotations.get(NAME).or(entry.annotations.get(REF_NAME));
        named.entry(name.cloned().unwrap_or_default()).or_default().push(entry);
    }
    let nameless = named.remove("").unwrap_or_default();
    let platforms: Vec<_> =
        nameless.iter().map(|entry| entry.platform.as_ref().map(|p| p.platform())).collect();
    let distinct =
        platforms.iter().enumerate().all(|(at, one)| one.is_some() && !platforms[..at].contains(one));
    match distinct && !nameless.is_empty() {
        true => groups.push(nameless),
        false => groups.extend(nameless.into_iter().map(|entry| vec![entry])),
    }
    groups.extend(named.into_values());
    groups
}

/// The one of some entries that is for the platform.
pub(super) fn image(
    contents: &dyn Contents,
    entries: Vec<Descriptor>,
    wish: &Wish,
    limits: &Limits,
) -> Result<Incoming, LoadError> {
    let annotations = entries.first().map(|entry| entry.annotations.clone()).unwrap_or_default();
    let what = annotations.get(NAME).cloned().unwrap_or_else(|| "index.json".into());
    let mut search = Search::new(&wish.platform, limits.index_depth);
    search.add(&what, 0, entries)?;
    let mut read: Vec<StoredManifest> = Vec::new();
    let manifest = loop {
        let next = search.next(&what)?;
        let digest = next.entry.digest.clone();
        let body = contents.document(&digest, limits.manifest_bytes)?;
        let body = body.ok_or_else(|| LoadError::Missing { what: what.clone(), digest: digest.clone() })?;
        let name = format!("manifest {digest}");
        // Another runtime's database says no size.
        if next.entry.size != 0 {
            check_size(&name, &body, &next.entry)?;
        }
        let document = manifest::parse(&name, &next.entry.media_type, &body, limits)?;
        let media_type = manifest::media_type(&next.entry.media_type, &body);
        read.truncate(next.depth);
        read.push(StoredManifest { digest, media_type, body });
        match document {
            Document::Manifest(manifest) => break manifest,
            Document::Index(entries) => search.add(&name, next.depth + 1, entries)?,
        }
    };
    let mut incoming = of_manifest(contents, &manifest, read, wish, limits)?;
    incoming.origin.names = names(&annotations, &mut incoming, contents, wish, limits)?;
    Ok(incoming)
}

fn of_manifest(
    contents: &dyn Contents,
    manifest: &Manifest,
    mut manifests: Vec<StoredManifest>,
    wish: &Wish,
    limits: &Limits,
) -> Result<Incoming, LoadError> {
    let digest = &manifest.config.digest;
    let what = format!("configuration {digest}");
    let body = contents.document(digest, limits.config_bytes)?;
    if manifest.is_artifact() {
        let artifact = artifact::image("an artifact", manifest)?;
        manifests.extend(body.map(|body| StoredManifest {
            digest: digest.clone(),
            media_type: manifest.config.media_type.clone(),
            body,
        }));
        let origin = Origin { manifests, ..Origin::default() };
        return Ok(Incoming { id: artifact.id, config: artifact.config, sources: artifact.sources, origin });
    }
    check_types(manifest)?;
    let config =
        body.ok_or_else(|| LoadError::Missing { what: "an image".into(), digest: digest.clone() })?;
    check_size(&what, &config, &manifest.config)?;
    let parsed = manifest::parse_config(&what, &config)?;
    check_config(&what, &parsed, manifest.layers.len(), &wish.platform)?;
    let layers = manifest.layers.iter().cloned().zip(parsed.rootfs.diff_ids);
    let sources = layers.map(|(blob, diff_id)| LayerSource { blob, diff_id, file: None }).collect();
    let origin = Origin { manifests, ..Origin::default() };
    Ok(Incoming { id: ImageId::of_config(digest.clone()), config, sources, origin })
}

/// The names that an entry gives validly: a tag that it says, and digests that the image really has.
///
/// An image that was saved by us may have come with other manifests than it travels with. Then those are its manifests: it is here as it
/// was there.
fn names(
    annotations: &BTreeMap<String, String>,
    incoming: &mut Incoming,
    contents: &dyn Contents,
    wish: &Wish,
    limits: &Limits,
) -> Result<Vec<String>, LoadError> {
    let top = incoming.origin.manifests.first().map(|top| top.digest.clone());
    let originals = originals(annotations, incoming, contents, limits)?;
    let travels = originals.is_empty();
    if !travels {
        incoming.origin.manifests = originals;
    }
    let known = |digest: &Digest| incoming.origin.manifests.iter().any(|manifest| manifest.digest == *digest);
    let mut names = Vec::new();
    if let Some(reference) = wish.name.clone().or_else(|| said(annotations)) {
        match reference.digest() {
            None => names.push(catalog::stored_name(&reference)),
            // A name with a digest holds only of what has the digest.
            Some(digest) if top.as_ref() == Some(digest) || known(digest) => {}
            Some(_) => return Ok(names),
        }
        let top = top.filter(|_| travels);
        names.extend(top.map(|top| catalog::stored_name(&reference.with_digest(top))));
    }
    let digests = annotations.get(REPO_DIGESTS).map(String::as_str).unwrap_or_default();
    for name in digests.split(',').take(MOST_ORIGINALS) {
        let reference = ImageReference::parse(name).ok().filter(|name| name.digest().is_some_and(known));
        if let Some(name) = reference.map(|reference| catalog::stored_name(&reference))
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// The whole name that an entry says. What tools leave in OCI's own annotation is often a tag alone, which is no name.
fn said(annotations: &BTreeMap<String, String>) -> Option<ImageReference> {
    let name = annotations.get(NAME);
    let or_else = || annotations.get(REF_NAME).filter(|name| name.contains([':', '/']));
    // An id is no name, although it could be read as one.
    ImageReference::parse(name.or_else(or_else).filter(|name| !name.starts_with("sha256:"))?).ok()
}

/// The documents that the image came with before it was saved. Each leads to the same configuration, hence to the same contents.
fn originals(
    annotations: &BTreeMap<String, String>,
    incoming: &Incoming,
    contents: &dyn Contents,
    limits: &Limits,
) -> Result<Vec<StoredManifest>, LoadError> {
    let listed = annotations.get(ORIGINALS).map(String::as_str).unwrap_or_default();
    let mut candidates = Vec::new();
    for digest in listed.split(',').take(MOST_ORIGINALS).filter_map(|digest| Digest::parse(digest).ok()) {
        let known = incoming.origin.manifests.iter().any(|known| known.digest == digest);
        if let Some(body) = contents.document(&digest, limits.manifest_bytes)?.filter(|_| !known) {
            let media_type = manifest::media_type("", &body);
            if let Ok(document) = manifest::parse("an original manifest", &media_type, &body, limits) {
                candidates.push((StoredManifest { digest, media_type, body }, document));
            }
        }
    }
    let mut held: Vec<StoredManifest> = Vec::new();
    // Each round may prove an index by what was proved before it.
    for _ in 0..=limits.index_depth {
        for (candidate, document) in &candidates {
            let is_ours = match document {
                Document::Manifest(manifest) => manifest.config.digest == *incoming.id.digest(),
                Document::Index(entries) => entries.iter().any(|entry| {
                    held.iter().chain(&incoming.origin.manifests).any(|known| known.digest == entry.digest)
                }),
            };
            if is_ours && !held.contains(candidate) {
                held.push(candidate.clone());
            }
        }
    }
    Ok(held)
}

/// What is said of an image in a place that is no index, such as another runtime's database.
pub(super) fn entry(name: &str, digest: Digest, media_type: String) -> Descriptor {
    let annotations = [(NAME.to_owned(), name.to_owned())].into();
    Descriptor { media_type, annotations, ..Descriptor::plain(digest, 0) }
}
