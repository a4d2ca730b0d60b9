//! `pintle images inspect`: everything that is known of an image, its manifests as they were received.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::output::{Format, show, write_out};
use super::several::Several;
use cri::node_v1::{InspectImageRequest, InspectImageResponse};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images by name, id or the beginning of an id
    #[arg(required = true)]
    images: Vec<String>,
    /// Write only the manifest or index with this digest, or `config`, byte for byte
    #[arg(long, value_name = "DIGEST|config")]
    raw: Option<String>,
    /// How to write the answer
    #[arg(short, long, value_parser = super::inspect::parse_format, default_value = "json", value_name = "json|yaml")]
    output: Format,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let mut values = Vec::new();
    let mut several = Several::default();
    for image in &args.images {
        let request = InspectImageRequest { image: image.clone() };
        let answer = client.own_images().inspect_image(request).await;
        let answer = answer.explain(|| format!("inspecting {image}"));
        several.record(match (&args.raw, answer) {
            (Some(what), answer) => answer.and_then(|answer| raw(&answer, image, what)),
            (None, answer) => answer.map(|answer| values.push(value(&answer))),
        });
    }
    if !values.is_empty() {
        let value = if args.images.len() == 1 { values.remove(0) } else { Value::Array(values) };
        show(args.output, &value, String::new)?;
    }
    several.finish()
}

fn raw(answer: &InspectImageResponse, image: &str, what: &str) -> Result<(), Failure> {
    let body = match what {
        "config" => Some(&answer.config),
        digest => answer.manifests.iter().find(|manifest| manifest.digest == digest).map(|m| &m.body),
    };
    let missing = || Failure::Unknown {
        kind: "manifest",
        given: format!("{what} of {image}"),
        similar: answer.manifests.iter().map(|manifest| manifest.digest.clone()).collect(),
    };
    // All of them are JSON, hence text.
    write_out(&String::from_utf8_lossy(body.ok_or_else(missing)?))
}

fn value(answer: &InspectImageResponse) -> Value {
    let document = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or(Value::Null);
    let manifests = answer.manifests.iter().map(|manifest| {
        json!({
            "digest": manifest.digest,
            "mediaType": manifest.media_type,
            "size": manifest.body.len(),
            "document": document(&manifest.body),
        })
    });
    let layers = answer.layers.iter().map(|layer| {
        json!({
            "diffId": layer.diff_id,
            "blob": layer.blob,
            "bytes": layer.bytes,
            "inodes": layer.inodes,
            "path": layer.path,
        })
    });
    json!({
        "id": answer.id,
        "repoTags": answer.repo_tags,
        "repoDigests": answer.repo_digests,
        "pinned": answer.pinned,
        "pulledAt": super::human::rfc3339(answer.pulled_at),
        "size": answer.size,
        "config": document(&answer.config),
        "manifests": manifests.collect::<Vec<_>>(),
        "layers": layers.collect::<Vec<_>>(),
    })
}
