//! The push half: uploads at once, in pieces or by mounting from another repository, and manifests. What is pushed stays in memory.

use http::request::Parts;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::body::{self, Answer};
use crate::make::{Manifest, sha256, sha512};
use crate::server::{What, small};
use crate::{Blob, Registry, auth, lock};

pub(crate) async fn answer(
    registry: &Registry,
    repository: &str,
    what: &What<'_>,
    parts: &Parts,
    body: Incoming,
) -> Answer {
    match (&parts.method, what) {
        (&Method::POST, What::Upload("")) => begin(registry, repository, parts, body).await,
        (&Method::PATCH, What::Upload(id)) => piece(registry, repository, id, parts, body).await,
        (&Method::PUT, What::Upload(id)) => finish(registry, repository, id, parts, body).await,
        (&Method::GET, What::Upload(id)) => match received(registry, id) {
            Some(count) => under_way(repository, id, count, StatusCode::NO_CONTENT),
            None => unknown_upload(),
        },
        (&Method::DELETE, What::Upload(id)) => match lock(&registry.contents).uploads.remove(*id) {
            Some(_) => body::bare(StatusCode::NO_CONTENT, &[]),
            None => unknown_upload(),
        },
        (&Method::PUT, What::Manifest(reference)) => {
            manifest(registry, repository, reference, parts, body).await
        }
        _ => body::refuse(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
    }
}

async fn begin(registry: &Registry, repository: &str, parts: &Parts, body: Incoming) -> Answer {
    let fields = auth::fields(parts.uri.query().unwrap_or(""));
    let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if let (Some(digest), Some(from)) = (field("mount"), field("from")) {
        let mut contents = lock(&registry.contents);
        if let Some(blob) = contents.blob(from, digest) {
            contents.put_blob(repository, digest, blob);
            return stored(repository, digest);
        }
    }
    let id = format!("upload-{}", registry.next());
    lock(&registry.contents).uploads.insert(id.clone(), Vec::new());
    match field("digest") {
        Some(_) => finish(registry, repository, &id, parts, body).await,
        None => under_way(repository, &id, 0, StatusCode::ACCEPTED),
    }
}

async fn piece(registry: &Registry, repository: &str, id: &str, parts: &Parts, body: Incoming) -> Answer {
    let Some(have) = received(registry, id) else { return unknown_upload() };
    let range = parts.headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.trim_start_matches("bytes ").split('-').next()?.parse().ok());
    if range.is_some() && start != Some(have) {
        return under_way(repository, id, have, StatusCode::RANGE_NOT_SATISFIABLE);
    }
    take(registry, id, body).await?;
    under_way(repository, id, received(registry, id).unwrap_or(0), StatusCode::ACCEPTED)
}

async fn finish(registry: &Registry, repository: &str, id: &str, parts: &Parts, body: Incoming) -> Answer {
    if received(registry, id).is_none() {
        return unknown_upload();
    }
    take(registry, id, body).await?;
    let bytes = lock(&registry.contents).uploads.remove(id).unwrap_or_default();
    let fields = auth::fields(parts.uri.query().unwrap_or(""));
    let digest = fields.iter().find(|(name, _)| name == "digest").map_or("", |(_, value)| value.as_str());
    if !has_digest(&bytes, digest) {
        return body::refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    lock(&registry.contents).put_blob(repository, digest, Blob::Memory(bytes.into()));
    stored(repository, digest)
}

async fn manifest(
    registry: &Registry,
    repository: &str,
    reference: &str,
    parts: &Parts,
    body: Incoming,
) -> Answer {
    let bytes = small(body).await;
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return body::refuse(StatusCode::BAD_REQUEST, "MANIFEST_INVALID");
    };
    let by_digest = reference.contains(':');
    if by_digest && !has_digest(&bytes, reference) {
        return body::refuse(StatusCode::BAD_REQUEST, "DIGEST_INVALID");
    }
    let digest = if by_digest { reference.to_owned() } else { sha256(&bytes) };
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut contents = lock(&registry.contents);
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let named = |thing: &Value| thing["digest"].as_str().unwrap_or_default().to_owned();
    // Blobs of foreign layers need not be here.
    let mut blobs = list("layers").into_iter().filter(|layer| layer["urls"].is_null()).collect::<Vec<_>>();
    blobs.extend(value.get("config").cloned());
    let missing = blobs.iter().any(|blob| contents.blob(repository, &named(blob)).is_none())
        || list("manifests").iter().any(|entry| contents.manifest(repository, &named(entry)).is_none());
    if missing {
        return body::refuse(StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN");
    }
    contents.put_manifest(repository, &digest, Manifest::new(kind, &bytes));
    if !by_digest {
        contents.put_tag(repository, reference, &digest);
    }
    let location = format!("/v2/{repository}/manifests/{digest}");
    let mut headers = vec![("Location", location.as_str()), ("Docker-Content-Digest", &digest)];
    if let Some(subject) = value["subject"]["digest"].as_str()
        && registry.has_referrers_api()
    {
        headers.push(("OCI-Subject", subject));
    }
    body::bare(StatusCode::CREATED, &headers)
}

/// How many bytes of an upload have come.
fn received(registry: &Registry, id: &str) -> Option<usize> {
    lock(&registry.contents).uploads.get(id).map(Vec::len)
}

/// Takes a body as it comes, so that what arrived before a cut is there.
async fn take(registry: &Registry, id: &str, mut body: Incoming) -> Result<(), std::io::Error> {
    while let Some(frame) = body.frame().await {
        let bytes = frame.map_err(std::io::Error::other)?.into_data().unwrap_or_default();
        registry.pace(bytes.len()).await;
        if let Some(upload) = lock(&registry.contents).uploads.get_mut(id) {
            upload.extend_from_slice(&bytes);
        }
    }
    Ok(())
}

fn has_digest(bytes: &[u8], digest: &str) -> bool {
    digest == if digest.starts_with("sha512:") { sha512(bytes) } else { sha256(bytes) }
}

fn stored(repository: &str, digest: &str) -> Answer {
    let location = format!("/v2/{repository}/blobs/{digest}");
    body::bare(StatusCode::CREATED, &[("Location", &location), ("Docker-Content-Digest", digest)])
}

fn under_way(repository: &str, id: &str, count: usize, status: StatusCode) -> Answer {
    let location = format!("/v2/{repository}/blobs/uploads/{id}");
    let range = format!("0-{}", count.saturating_sub(1));
    let headers = [("Location", location.as_str()), ("Range", &range), ("Docker-Upload-UUID", id)];
    body::bare(status, &headers)
}

fn unknown_upload() -> Answer {
    body::refuse(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN")
}
