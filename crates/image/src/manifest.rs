//! Indexes, manifests and configurations: read from hostile bytes, and bounded before anything is made of them.

use std::collections::BTreeMap;

use model::digest::Digest;
use model::platform::Platform;
use serde::{Deserialize, Deserializer};

use crate::config::Limits;
use crate::error::PullCause;

/// What is asked of a registry for a manifest, the most wanted first.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The configuration of what has none (OCI image specification, "Guidance for an Empty Descriptor").
pub(crate) const EMPTY_CONFIG: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to bytes: what they are, their digest and their size.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: i64,
    /// Not empty: it leads to an artifact, such as a signature, of this type.
    #[serde(default, deserialize_with = "nullable")]
    pub artifact_type: String,
    #[serde(default, deserialize_with = "nullable")]
    pub platform: Option<RawPlatform>,
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RawPlatform {
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    variant: String,
    #[serde(rename = "os.version", default, deserialize_with = "nullable")]
    os_version: String,
    #[serde(rename = "os.features", default, deserialize_with = "nullable")]
    os_features: Vec<String>,
}

impl RawPlatform {
    pub(crate) fn platform(&self) -> Platform {
        let mut platform =
            Platform::new(&shorten(&self.os), &shorten(&self.architecture), &shorten(&self.variant));
        platform.os_version = shorten(&self.os_version);
        platform.os_features = self.os_features.iter().take(16).map(|feature| shorten(feature)).collect();
        platform
    }
}

impl Descriptor {
    /// Of which no more is said.
    pub(crate) fn plain(digest: Digest, size: i64) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest,
            size,
            artifact_type: String::new(),
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether it is about another entry, and no image: what BuildKit adds to say where an image comes from and what is in it.
    pub(crate) fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(|p| p.os == "unknown" || p.architecture == "unknown")
    }
}

/// What a reference led to.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Box<Manifest>),
}

#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    /// What an artifact is; empty for an image.
    pub artifact_type: String,
}

impl Manifest {
    /// Whether its blobs are files and no layers: it says of what type it is, and has no image's configuration.
    pub(crate) fn is_artifact(&self) -> bool {
        let config = self.config.media_type.as_str();
        config == EMPTY_CONFIG || (!self.artifact_type.is_empty() && !is_image_config(config))
    }
}

/// Whether configurations of this type are an image's.
pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
    )
}

/// A blob that becomes a layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerSource {
    pub blob: Descriptor,
    /// The layer's name: the digest of its archive.
    pub diff_id: Digest,
    /// It is no archive but this file.
    pub file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: i64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    artifact_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index. What it says it is has to agree with what it has, so that no two readers see two different images in it.
pub(crate) fn parse(
    what: &str,
    content_type: &str,
    body: &[u8],
    limits: &Limits,
) -> Result<Document, PullCause> {
    let content_type = content_type.split(';').next().unwrap_or("").trim();
    let raw: Raw = from_object(body).map_err(|why| {
        if is_image_type(content_type) || content_type.contains("json") {
            PullCause::malformed(what, why)
        } else {
            // A login page, as a rule.
            PullCause::UnsupportedMediaType { what: what.to_owned(), media_type: shorten(content_type) }
        }
    })?;
    if raw.schema_version == 1 || raw.fs_layers.is_some() {
        return Err(PullCause::Schema1 { what: what.to_owned() });
    }
    if raw.schema_version != 2 {
        return Err(PullCause::malformed(what, format!("schemaVersion is {}", raw.schema_version)));
    }
    // The body's own word counts, since it is under the digest; the header's only where the body has none.
    let media_type = raw.media_type.as_deref().filter(|t| !t.is_empty()).unwrap_or(content_type);
    let has_image = raw.config.is_some() || raw.layers.is_some();
    if has_image && raw.manifests.is_some() {
        return Err(PullCause::malformed(what, "it has both 'manifests' and 'layers' or 'config'"));
    }
    let claims_index = matches!(media_type, OCI_INDEX | DOCKER_LIST);
    let claims_image = matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST);
    if (claims_index && has_image) || (claims_image && raw.manifests.is_some()) {
        return Err(PullCause::malformed(what, format!("its contents are not those of {media_type}")));
    }
    if raw.media_type.is_some() && !claims_index && !claims_image {
        return Err(PullCause::UnsupportedMediaType {
            what: what.to_owned(),
            media_type: shorten(media_type),
        });
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(manifests), None, None) => {
            bounded(what, "images", manifests.len(), 10_000)?;
            Ok(Document::Index(manifests))
        }
        (None, Some(config), Some(layers)) => {
            bounded(what, "layers", layers.len(), limits.layers)?;
            if let Some(bad) = layers.iter().chain([&config]).find(|d| d.size < 0) {
                return Err(PullCause::malformed(what, format!("{} has a negative size", bad.digest)));
            }
            let artifact_type = shorten(&raw.artifact_type);
            Ok(Document::Manifest(Box::new(Manifest { config, layers, artifact_type })))
        }
        _ => Err(PullCause::malformed(what, "it has neither 'manifests' nor 'config' and 'layers'")),
    }
}

/// What a manifest or an index is: its own word counts, since it is under the digest.
pub(crate) fn media_type(content_type: &str, body: &[u8]) -> String {
    let own = from_object::<Raw>(body).ok().and_then(|raw| raw.media_type).filter(|own| !own.is_empty());
    shorten(&own.unwrap_or_else(|| content_type.split(';').next().unwrap_or("").trim().to_owned()))
}

fn bounded(what: &str, unit: &'static str, count: usize, limit: usize) -> Result<(), PullCause> {
    if count <= limit {
        return Ok(());
    }
    Err(PullCause::TooLarge { what: what.to_owned(), limit: limit as u64, unit })
}

pub(crate) fn is_image_type(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | OCI_MANIFEST | DOCKER_LIST | DOCKER_MANIFEST)
}

fn shorten(text: &str) -> String {
    text.chars().take(120).collect()
}

/// What an image's configuration says about running it. Fields the image leaves out are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(default, deserialize_with = "nullable")]
    pub user: String,
    #[serde(default, deserialize_with = "nullable")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub cmd: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub working_dir: String,
    #[serde(default, deserialize_with = "nullable")]
    pub stop_signal: String,
    #[serde(default, deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// The keys are paths.
    #[serde(default, deserialize_with = "nullable")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// The keys are `port/protocol`.
    #[serde(default, deserialize_with = "nullable")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
}

/// An image's configuration as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    #[serde(default, deserialize_with = "nullable")]
    pub os: String,
    #[serde(default, deserialize_with = "nullable")]
    pub architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    pub variant: String,
    #[serde(rename = "os.version", default, deserialize_with = "nullable")]
    pub os_version: String,
    #[serde(rename = "os.features", default, deserialize_with = "nullable")]
    pub os_features: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    pub config: RunConfig,
    #[serde(default, deserialize_with = "nullable")]
    pub rootfs: RootFs,
}

impl Config {
    pub(crate) fn platform(&self) -> Platform {
        let raw = RawPlatform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
        };
        raw.platform()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default, deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

/// Go writes `null` for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Reads a configuration.
pub(crate) fn parse_config(what: &str, body: &[u8]) -> Result<Config, PullCause> {
    from_object(body).map_err(|why| PullCause::malformed(what, why))
}

/// Reads a JSON object. serde would take an array as well, its items as the fields in order, which nobody else reads so.
fn from_object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, serde_json::Error> {
    match body.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(body),
        _ => Err(serde::de::Error::custom("it is not a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(media_type: &str, body: &str) -> Result<Document, PullCause> {
        parse("test", media_type, body.as_bytes(), &Limits::default())
    }

    fn descriptor(platform: &str) -> String {
        format!("{{\"digest\":\"sha256:{}\",\"size\":1{platform}}}", "0".repeat(64))
    }

    #[test]
    fn indexes_and_manifests_are_not_confused() {
        let d = descriptor("");
        let image = format!("{{\"schemaVersion\":2,\"config\":{d},\"layers\":[{d}]}}");
        assert!(matches!(read(OCI_MANIFEST, &image), Ok(Document::Manifest(_))));
        let index = format!("{{\"schemaVersion\":2,\"manifests\":[{d}]}}");
        assert!(matches!(read(OCI_INDEX, &index), Ok(Document::Index(_))));
        let both = format!("{{\"schemaVersion\":2,\"manifests\":[{d}],\"config\":{d},\"layers\":[]}}");
        assert!(matches!(read(OCI_INDEX, &both), Err(PullCause::Malformed { .. })));
        assert!(matches!(read(OCI_INDEX, &image), Err(PullCause::Malformed { .. })));
        assert!(matches!(read(OCI_MANIFEST, &index), Err(PullCause::Malformed { .. })));
        let claims =
            format!("{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"config\":{d},\"layers\":[]}}");
        assert!(matches!(read(OCI_MANIFEST, &claims), Err(PullCause::Malformed { .. })));
    }

    #[test]
    fn what_is_no_image_is_named() {
        assert!(matches!(
            read("text/html", "<html>log in</html>"),
            Err(PullCause::UnsupportedMediaType { .. })
        ));
        assert!(matches!(
            read(OCI_MANIFEST, "{\"schemaVersion\":1,\"fsLayers\":[]}"),
            Err(PullCause::Schema1 { .. })
        ));
        assert!(matches!(read(OCI_MANIFEST, "{}"), Err(PullCause::Malformed { .. })));
        let bad = descriptor("").replace("sha256:", "sha256:../");
        let bad = format!("{{\"schemaVersion\":2,\"config\":{bad},\"layers\":[]}}");
        assert!(read(OCI_MANIFEST, &bad).unwrap_err().to_string().contains("hexadecimal"));
        let d = descriptor("");
        let many = vec![d.clone(); 10_000].join(",");
        let many = format!("{{\"schemaVersion\":2,\"config\":{d},\"layers\":[{many}]}}");
        assert!(matches!(read(OCI_MANIFEST, &many), Err(PullCause::TooLarge { .. })));
    }

    #[test]
    fn configurations_of_go_programs_are_read() {
        let config = parse_config(
            "test",
            br#"{"config":{"Cmd":["sh"],"Env":null,"Volumes":null,"Labels":null,"User":"1:2","Healthcheck":{}},"rootfs":null,"x":1}"#,
        )
        .unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert_eq!(config.config.user, "1:2");
        assert!(parse_config("test", br#"{"config":null}"#).is_ok());
        assert!(parse_config("test", b"[]").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200), kind in ".{0,20}") {
            let _ = parse("test", &kind, &body, &Limits::default());
            let _ = parse_config("test", &body);
        }
    }
}
