//! A node under a policy, and images that are signed.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageConfig, PullCause, PullError};
use rcgen::{KeyPair, SigningKey as _};
use registry::make::{self, Image};
use registry::tar::Entry;
use serde_json::{Value, json};

use super::{Place, image_of};

pub const COSIGN: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub const COSIGN_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A node with a policy file, which the test writes.
pub struct Guarded {
    pub place: Place,
    pub policy: PathBuf,
    /// Goes with the test.
    pub files: tempfile::TempDir,
}

impl Guarded {
    pub async fn new() -> Guarded {
        Guarded::with(|_, _| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut ImageConfig, &std::path::Path)) -> Guarded {
        let files = tempfile::tempdir().unwrap();
        let policy = files.path().join("policy.json");
        let place = Place::with(|config| {
            config.trust.policy = Some(policy.clone());
            config.trust.registries_dir = files.path().join("registries.d");
            change(config, files.path());
        })
        .await;
        Guarded { place, policy, files }
    }

    pub fn allow(&self, requirements: &Value) {
        let policy =
            json!({ "default": [{ "type": "reject" }], "transports": { "docker": { "": requirements } } });
        std::fs::write(&self.policy, serde_json::to_string_pretty(&policy).unwrap()).unwrap();
    }

    /// Admits what `key` signed for the image's repository.
    pub fn require(&self, key: &KeyPair) {
        self.allow(&signed_by(key, json!({ "type": "matchRepository" })));
    }

    pub async fn refused(&self, reference: &str) -> String {
        let error = self.place.pull(reference).await.unwrap_err();
        untrusted(&error)
    }
}

pub fn untrusted(error: &PullError) -> String {
    assert!(matches!(*error.cause, PullCause::Untrusted(_)), "{error}");
    error.to_string()
}

pub fn signed_by(key: &KeyPair, identity: Value) -> Value {
    json!([{ "type": "sigstoreSigned", "keyData": STANDARD.encode(key.public_key_pem()), "signedIdentity": identity }])
}

pub fn small(name: &str) -> Image {
    image_of(&[&[Entry::file(name, 0o644, name.as_bytes())]])
}

pub fn payload(name: &str, digest: &str) -> Vec<u8> {
    let critical = json!({
        "identity": { "docker-reference": name },
        "image": { "docker-manifest-digest": digest },
        "type": "cosign container image signature",
    });
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

/// What cosign pushes: a manifest of one signature.
pub fn signature(key: &KeyPair, payload: &[u8], subject: Option<&Image>) -> Image {
    let signature = STANDARD.encode(key.sign(payload).unwrap());
    let annotations = json!({ "dev.cosignproject.cosign/signature": signature });
    make::artifact(COSIGN_ARTIFACT, subject, &[(COSIGN, payload, annotations)])
}

/// Sigstore's bundle with an in-toto statement.
pub fn bundle(key: &KeyPair, image: &Image, predicate: &str) -> Image {
    let hex = image.digest.trim_start_matches("sha256:");
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "digest": { "sha256": hex } }],
        "predicateType": predicate,
        "predicate": {},
    })
    .to_string();
    let kind = "application/vnd.in-toto+json";
    let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
    let bundle = json!({
        "mediaType": BUNDLE,
        "verificationMaterial": { "publicKey": { "hint": "x" } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&statement),
            "payloadType": kind,
            "signatures": [{ "sig": STANDARD.encode(key.sign(signed.as_bytes()).unwrap()) }],
        },
    });
    make::artifact(BUNDLE, Some(image), &[(BUNDLE, bundle.to_string().as_bytes(), Value::Null)])
}

pub fn sig_tag(image: &Image) -> String {
    format!("{}.sig", image.digest.replace(':', "-"))
}

pub fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// What `docker save` writes, with an OCI layout, without it, and a layout alone.
pub fn archive(image: &Image, has_layout: bool, has_docker: bool) -> Vec<u8> {
    let mut entries = Vec::new();
    let bytes = |blob: &registry::Blob| match blob {
        registry::Blob::Memory(bytes) => bytes.to_vec(),
        _ => panic!("small images are in memory"),
    };
    if has_layout {
        let (digest, manifest) = image.manifests.last().unwrap();
        let entry = make::descriptor(&manifest.media_type, digest, manifest.body.len());
        let index = json!({ "schemaVersion": 2, "mediaType": make::INDEX, "manifests": [entry] });
        entries.push(Entry::file("index.json", 0o644, index.to_string()));
        let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
        entries.push(Entry::file(&blob(digest), 0o644, manifest.body.to_vec()));
        entries
            .extend(image.blobs.iter().map(|(digest, bits)| Entry::file(&blob(digest), 0o644, bytes(bits))));
    }
    if has_docker {
        let name = |digest: &str, end: &str| format!("{}{end}", digest.trim_start_matches("sha256:"));
        let of = |wanted: &str| bytes(&image.blobs.iter().find(|(digest, _)| digest == wanted).unwrap().1);
        let layers: Vec<String> = image.layers.iter().map(|layer| name(&layer.digest, ".tar.gz")).collect();
        let manifest = json!([{ "Config": name(&image.id, ".json"), "RepoTags": ["a:1"], "Layers": layers }]);
        entries.push(Entry::file("manifest.json", 0o644, manifest.to_string()));
        entries.push(Entry::file(&name(&image.id, ".json"), 0o644, of(&image.id)));
        entries.extend(
            image
                .layers
                .iter()
                .map(|layer| Entry::file(&name(&layer.digest, ".tar.gz"), 0o644, of(&layer.digest))),
        );
    }
    registry::tar::archive(&entries)
}
