//! Images that leave a node in an archive and come to another: there and back, with other programs' archives, and with hostile ones.

mod common;

use std::io::Write;
use std::process::Command;

use common::{Place, skip_unless_root};
use image::{LoadError, LoadRequest, Loaded, SaveError, SaveRequest};
use registry::make::{Compression, Image, ImageBuilder, Layer, sha256};
use registry::tar::Entry;
use serde_json::json;

async fn save(place: &Place, names: &[&str]) -> Result<Vec<u8>, SaveError> {
    let images = names.iter().map(|name| (*name).to_owned()).collect();
    let mut stream = place.images.save(SaveRequest { images, ..Default::default() }).await?.stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.recv().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

async fn load(place: &Place, bytes: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    place.images.load(LoadRequest::default(), std::io::Cursor::new(bytes.to_vec())).await
}

fn layered() -> Image {
    ImageBuilder::new()
        .layer(Layer::new(
            &[
                Entry::directory("./", 0o755),
                Entry::directory("etc/", 0o755),
                Entry::file("etc/motd", 0o644, b"first".to_vec()).xattr("user.a", b"b".to_vec()),
                Entry::file("etc/gone", 0o644, b"x".to_vec()),
                Entry::file("large", 0o600, vec![7; 3_000_000]).owner(7, 8),
            ],
            Compression::Gzip,
        ))
        .layer(Layer::new(
            &[
                Entry::file("etc/motd", 0o640, b"second".to_vec()),
                Entry::file("etc/.wh.gone", 0o644, b"".to_vec()),
                Entry::hard_link("etc/again", "large"),
            ],
            Compression::Zstd,
        ))
        .run(json!({ "Cmd": ["sh"] }))
        .build()
}

/// What is in the archive, by name.
fn members(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .args(["-x", "-C"])
        .arg(folder.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(tar.wait().unwrap().success());
    let mut found = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
                    found.push((name, std::fs::read(&path).unwrap()));
                }
            }
        }
    }
    found
}

/// The uncompressed layers come again byte for byte, the names and the id with them, and no byte of it is spooled.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_to_another_node() {
    if skip_unless_root() {
        return;
    }
    let (from, to) = (Place::new().await, Place::new().await);
    let image = layered();
    from.registry.add("a/b", "v1", &image);
    from.pull("a/b:v1").await.unwrap();
    let name = from.name("a/b:v1");
    let bytes = save(&from, &[&name]).await.unwrap();
    for (name, content) in members(&bytes) {
        if let Some(digits) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(sha256(&content), format!("sha256:{digits}"));
        }
    }
    let loaded = load(&to, &bytes).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id.as_str(), image.id);
    let found = to.images.find(&name).unwrap().unwrap();
    assert_eq!(found.id.as_str(), image.id);
    assert_eq!(found.repo_tags, [name.clone()]);
    // The digest that the image was pulled by leads to it on the other node as well, and the manifest is there to prove it.
    let by_digest = format!("{}@{}", from.name("a/b"), image.digest);
    assert!(found.repo_digests.contains(&by_digest), "{:?}", found.repo_digests);
    let details = to.images.details(&name).await.unwrap().unwrap();
    assert!(details.manifests.iter().any(|manifest| manifest.digest.as_str() == image.digest));
    assert_eq!(details.layers.len(), 2);
    let spool: Vec<_> = std::fs::read_dir(to.root().join("spool")).unwrap().collect();
    assert!(spool.is_empty());
    // What came in an archive leaves in one that is the same.
    assert!(save(&to, &[&name]).await.unwrap() == bytes);
    // A second time nothing moves, and nothing is unpacked.
    let again = load(&to, &bytes).await.unwrap();
    assert!(again[0].names.iter().all(|named| named.moved_from.is_none()));
}
