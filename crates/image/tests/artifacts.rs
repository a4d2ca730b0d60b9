//! Artifacts, which are files and no layers, pulled and mounted as volumes.

mod common;

use std::path::Path;

use common::*;
use image::PullCause;
use registry::Blob;
use registry::make::sha256;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Serves an artifact of these files, each with its title if it has one.
fn serve(place: &Place, tag: &str, files: &[(Option<&str>, &[u8])], change: impl FnOnce(&mut Value)) {
    let blob = |bytes: &[u8]| {
        let digest = sha256(bytes);
        place.registry.add_blob(&digest, Blob::Memory(bytes.to_vec().into()));
        digest
    };
    let layers: Vec<Value> = files
        .iter()
        .map(|(title, bytes)| {
            let mut layer =
                json!({ "mediaType": "application/x-weights", "digest": blob(bytes), "size": bytes.len() });
            if let Some(title) = title {
                layer["annotations"] = json!({ "org.opencontainers.image.title": title });
            }
            layer
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-model",
        "config": { "mediaType": EMPTY, "digest": blob(b"{}"), "size": 2 },
        "layers": layers,
    });
    change(&mut manifest);
    place.registry.add_manifest("model", tag, MANIFEST, manifest.to_string().as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_a_volume_by_their_titles() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let big = vec![7; 300_000];
    let files: &[(Option<&str>, &[u8])] = &[
        (Some("config.json"), b"{}"),
        (Some("weights/part-1"), &big),
        (Some("weights/part-2"), b""),
        (None, b"untitled"),
    ];
    serve(&place, "1", files, |_| {});
    serve(&place, "2", &files[..1], |manifest| {
        manifest["config"]["mediaType"] = "application/x-own+json".into()
    });
    place.registry.add("root", "1", &image_of(&[]));
    let (root, first) = (place.pull("root:1").await.unwrap(), place.pull("model:1").await.unwrap());
    let second = place.pull("model:2").await.unwrap();
    assert_eq!(place.pull("model:1").await.unwrap(), first);
    assert_ne!(first, second);
    let found = place.images.find(&place.name("model:1")).unwrap().unwrap();
    assert!(found.id == first && found.size > 300_000, "{found:?}");

    let rootfs = place.images.rootfs();
    rootfs.prepare("c", &root, None).unwrap();
    let volume = rootfs.mount_volume("c", &first, Path::new(""), None).unwrap();
    assert_eq!(read(&inside(&volume, "config.json")), "{}");
    assert_eq!(std::fs::read(inside(&volume, "weights/part-1")).unwrap(), big);
    assert_eq!(names(&inside(&volume, "weights")), ["part-1", "part-2"]);
    let untitled = sha256(b"untitled");
    assert_eq!(read(&inside(&volume, untitled.trim_start_matches("sha256:"))), "untitled");
    let part = rootfs.mount_volume("c", &first, Path::new("weights"), None).unwrap();
    assert_eq!(names(&inside(&part, ".")), ["part-1", "part-2"]);
    let volume = rootfs.mount_volume("c", &second, Path::new(""), None).unwrap();
    assert_eq!(names(&inside(&volume, ".")), ["config.json"]);
    // Known after a restart, and gone with its files when nobody needs them.
    assert_eq!(place.reopen().find(first.as_str()).unwrap().unwrap().id, first);
    rootfs.remove("c").unwrap();
    for id in [&first, &second, &root] {
        place.images.remove(id.as_str()).await.unwrap();
    }
    place.images.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_or_leads_out_is_refused_and_leaves_nothing() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let long = "x/".repeat(1000);
    for (tag, title) in
        ["../out", "/etc/passwd", "a/../../b", "", ".", "..", "a\nb", "a\0b", &long].iter().enumerate()
    {
        serve(&place, &format!("t{tag}"), &[(Some(title), b"x")], |_| {});
        let error = place.pull(&format!("model:t{tag}")).await.unwrap_err();
        assert!(matches!(*error.cause, PullCause::Malformed { .. }), "{title:?}: {error}");
    }
    serve(&place, "size", &[(Some("a"), b"12345")], |manifest| manifest["layers"][0]["size"] = 4.into());
    assert!(place.pull("model:size").await.is_err());
    serve(&place, "more", &[(Some("b"), b"12345")], |manifest| manifest["layers"][0]["size"] = 6.into());
    assert!(place.pull("model:more").await.is_err());
    let other = sha256(b"other");
    place.registry.add_blob(&other, Blob::Memory(b"wrong".to_vec().into()));
    serve(&place, "digest", &[(Some("c"), b"wrong")], |manifest| {
        manifest["layers"][0]["digest"] = other.into()
    });
    assert!(place.pull("model:digest").await.is_err());
    // A manifest of no image that does not say what it is.
    let unsaid = |manifest: &mut Value| {
        manifest["config"]["mediaType"] = "application/x-own+json".into();
        manifest.as_object_mut().unwrap().remove("artifactType");
    };
    serve(&place, "unsaid", &[(Some("d"), b"x")], unsaid);
    let error = place.pull("model:unsaid").await.unwrap_err();
    assert!(matches!(*error.cause, PullCause::UnsupportedMediaType { .. }), "{error}");
    assert!(place.images.list().is_empty());
    place.images.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders(), [""; 0]);
}
