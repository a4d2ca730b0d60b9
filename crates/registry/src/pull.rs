//! The pull half: manifests, blobs with ranges, tags and referrers.

use std::io;
use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};
use serde_json::json;

use crate::body::{self, Answer, feed, full};
use crate::{Blob, Fault, Registry, auth, lock, make};

pub(crate) fn manifest(
    registry: &Arc<Registry>,
    repository: &str,
    reference: &str,
    head: bool,
    fault: Option<Fault>,
) -> Answer {
    let Some((digest, manifest)) = lock(&registry.contents).manifest(repository, reference) else {
        return body::refuse(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
    };
    let length = manifest.body.len() as u64;
    let response = Response::builder()
        .header(header::CONTENT_TYPE, manifest.media_type)
        .header("Docker-Content-Digest", digest)
        .header(header::CONTENT_LENGTH, length);
    let body = match head {
        true => full(Vec::new()),
        false => feed(registry, Blob::Memory(manifest.body), 0, length, fault),
    };
    response.body(body).map_err(io::Error::other)
}

pub(crate) async fn blob(
    registry: &Arc<Registry>,
    repository: &str,
    digest: &str,
    headers: &HeaderMap,
    head: bool,
    fault: Option<Fault>,
) -> Answer {
    let Some(blob) = lock(&registry.contents).blob(repository, digest) else {
        return body::refuse(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
    };
    let size = match &blob {
        Blob::Memory(bytes) => bytes.len() as u64,
        Blob::File(path) => tokio::fs::metadata(path).await?.len(),
    };
    let range = headers
        .get(header::RANGE)
        .filter(|_| !matches!(fault, Some(Fault::IgnoreRange)))
        .and_then(|v| v.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'))
        .and_then(|(from, to)| {
            let to = if to.is_empty() { size.checked_sub(1)? } else { to.parse().ok()? };
            Some((from.parse::<u64>().ok()?, to.min(size.checked_sub(1)?)))
        });
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("Docker-Content-Digest", digest)
        .header(header::ACCEPT_RANGES, "bytes");
    let (from, end) = match range {
        None => (0, size),
        Some((from, to)) if from <= to => {
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, format!("bytes {from}-{to}/{size}"));
            (from, to + 1)
        }
        Some(_) => return body::refuse(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID"),
    };
    response = response.header(header::CONTENT_LENGTH, end - from);
    let body = if head { full(Vec::new()) } else { feed(registry, blob, from, end, fault) };
    response.body(body).map_err(io::Error::other)
}

pub(crate) fn tags(registry: &Registry, repository: &str) -> Answer {
    let tags = lock(&registry.contents).tags(repository);
    body::json(StatusCode::OK, json!({ "name": repository, "tags": tags }))
}

pub(crate) fn referrers(registry: &Registry, repository: &str, digest: &str, query: &str) -> Answer {
    if !registry.has_referrers_api() {
        return body::refuse(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    }
    let fields = auth::fields(query);
    let wanted = fields.iter().find(|(name, _)| name == "artifactType").map(|(_, value)| value.as_str());
    let found = lock(&registry.contents).referrers(repository, digest, wanted);
    let body = json!({ "schemaVersion": 2, "mediaType": make::INDEX, "manifests": found }).to_string();
    let mut response = Response::builder().header(header::CONTENT_TYPE, make::INDEX);
    if wanted.is_some() {
        response = response.header("OCI-Filters-Applied", "artifactType");
    }
    response.body(full(body)).map_err(io::Error::other)
}
