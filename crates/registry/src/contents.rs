//! What a registry holds: blobs, manifests by repository, tags, and uploads that are under way.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::make::{self, Manifest};

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
    /// Which repository has which blob.
    linked: HashSet<(String, String)>,
    /// Blobs that every repository has.
    everywhere: HashSet<String>,
    manifests: HashMap<(String, String), Manifest>,
    tags: HashMap<(String, String), String>,
    /// By their ids, what came so far.
    pub(crate) uploads: HashMap<String, Vec<u8>>,
}

impl Contents {
    pub(crate) fn put_blob(&mut self, repository: &str, digest: &str, blob: Blob) {
        self.blobs.insert(digest.to_owned(), blob);
        self.linked.insert((repository.to_owned(), digest.to_owned()));
    }

    pub(crate) fn put_blob_everywhere(&mut self, digest: &str, blob: Blob) {
        self.blobs.insert(digest.to_owned(), blob);
        self.everywhere.insert(digest.to_owned());
    }

    pub(crate) fn put_manifest(&mut self, repository: &str, digest: &str, manifest: Manifest) {
        self.manifests.insert((repository.to_owned(), digest.to_owned()), manifest);
    }

    pub(crate) fn put_tag(&mut self, repository: &str, tag: &str, digest: &str) {
        self.tags.insert((repository.to_owned(), tag.to_owned()), digest.to_owned());
    }

    pub(crate) fn blob(&self, repository: &str, digest: &str) -> Option<Blob> {
        let has = self.everywhere.contains(digest)
            || self.linked.contains(&(repository.to_owned(), digest.to_owned()));
        self.blobs.get(digest).filter(|_| has).cloned()
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

    /// Descriptors of the manifests whose subject is `digest`, of one artifact type if that is given.
    pub(crate) fn referrers(
        &self,
        repository: &str,
        digest: &str,
        artifact_type: Option<&str>,
    ) -> Vec<Value> {
        let mut found: Vec<Value> = Vec::new();
        for ((_, own), manifest) in self.manifests.iter().filter(|((name, _), _)| name == repository) {
            let body: Value = serde_json::from_slice(&manifest.body).unwrap_or_default();
            let kind = match &body["artifactType"] {
                Value::String(kind) => kind.clone(),
                _ => body["config"]["mediaType"].as_str().unwrap_or("").to_owned(),
            };
            if body["subject"]["digest"] != digest || artifact_type.is_some_and(|wanted| wanted != kind) {
                continue;
            }
            let mut descriptor = make::descriptor(&manifest.media_type, own, manifest.body.len());
            descriptor["artifactType"] = kind.into();
            if let Value::Object(annotations) = &body["annotations"] {
                descriptor["annotations"] = annotations.clone().into();
            }
            found.push(descriptor);
        }
        found.sort_by_key(|descriptor| descriptor["digest"].to_string());
        found
    }

    /// Writes the index that stands in for the referrers API where that is missing, under the tag `sha256-...` of the subject.
    pub(crate) fn put_fallback(&mut self, repository: &str, digest: &str) {
        let found = self.referrers(repository, digest, None);
        let body = json!({ "schemaVersion": 2, "mediaType": make::INDEX, "manifests": found }).to_string();
        let own = make::sha256(body.as_bytes());
        self.put_manifest(repository, &own, Manifest::new(make::INDEX, body.as_bytes()));
        self.put_tag(repository, &digest.replace(':', "-"), &own);
    }
}
