//! What a registry holds: blobs, manifests by repository, and tags.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;

use crate::make::Manifest;

/// The bytes of a layer or a configuration.
#[derive(Debug, Clone)]
pub enum Blob {
    Memory(Bytes),
    /// Read as it is served.
    File(PathBuf),
}

#[derive(Debug, Default)]
pub(crate) struct Contents {
    blobs: HashMap<String, Blob>,
    manifests: HashMap<(String, String), Manifest>,
    tags: HashMap<(String, String), String>,
}

impl Contents {
    pub(crate) fn put_blob(&mut self, digest: &str, blob: Blob) {
        self.blobs.insert(digest.to_owned(), blob);
    }

    pub(crate) fn put_manifest(&mut self, repository: &str, digest: &str, manifest: Manifest) {
        self.manifests.insert((repository.to_owned(), digest.to_owned()), manifest);
    }

    pub(crate) fn put_tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.tags.insert((repository.to_owned(), tag.to_owned()), digest.to_owned());
    }

    pub(crate) fn blob(&self, digest: &str) -> Option<Blob> {
        self.blobs.get(digest).cloned()
    }

    /// By tag or digest: the digest and the manifest.
    pub(crate) fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Manifest)> {
        let tag = (repository.to_owned(), reference.to_owned());
        let digest = self.tags.get(&tag).map_or(reference, String::as_str).to_owned();
        let manifest = self.manifests.get(&(tag.0, digest.clone()))?.clone();
        Some((digest, manifest))
    }

    pub(crate) fn tags(&self, repository: &str) -> Vec<String> {
        let mut tags: Vec<String> =
            self.tags.keys().filter(|(name, _)| name == repository).map(|(_, tag)| tag.clone()).collect();
        tags.sort();
        tags
    }
}
