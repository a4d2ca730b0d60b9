//! Whole pulls over HTTP from a registry on loopback.

mod common;

use common::{Place, image_of, inside, read, skip_unless_root};
use registry::make::{Compression, Flavour, ImageBuilder, Layer, index};
use registry::tar::Entry;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_root_file_system() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = ImageBuilder::new()
        .layer(Layer::new(
            &[
                Entry::directory("./", 0o755),
                Entry::directory("etc/", 0o755),
                Entry::file("etc/motd", 0o644, b"first".to_vec()),
                Entry::file("etc/gone", 0o644, b"x".to_vec()),
                Entry::directory("opaque/", 0o755),
                Entry::file("opaque/below", 0o644, b"x".to_vec()),
            ],
            Compression::Gzip,
        ))
        .layer(Layer::new(
            &[
                Entry::directory("etc/", 0o750),
                Entry::file("etc/motd", 0o640, b"second".to_vec()).owner(1000, 1001),
                Entry::file("etc/.wh.gone", 0o644, b"".to_vec()),
            ],
            Compression::Zstd,
        ))
        .layer(Layer::new(
            &[
                Entry::directory("opaque/", 0o755),
                Entry::file("opaque/.wh..wh..opq", 0o644, b"".to_vec()),
                Entry::file("opaque/above", 0o644, b"x".to_vec()),
            ],
            Compression::Plain,
        ))
        .run(json!({ "Cmd": ["sh", "-c", "true"], "Env": ["A=b"], "User": "1002:7", "WorkingDir": "/w" }))
        .build();
    place.registry.add("a/b", "v1", &image);
    let id = place.pull("a/b:v1").await.unwrap();
    assert_eq!(id.as_str(), image.id);

    let found = place.images.find(&place.name("a/b:v1")).unwrap().unwrap();
    assert_eq!(found.id, id);
    assert_eq!(found.repo_tags, [place.name("a/b:v1")]);
    assert_eq!(found.repo_digests, [format!("{}@{}", place.name("a/b"), image.digest)]);
    assert_eq!(found.config.cmd, ["sh", "-c", "true"]);
    assert_eq!(found.user, image::ImageUser::Uid(1002));
    assert!(found.size > 0);
    for name in [image.id.as_str(), &image.id[7..], &image.id[7..20], &image.id[..20], &found.repo_digests[0]]
    {
        assert_eq!(place.images.find(name).unwrap().unwrap().id, id, "{name}");
    }

    let rootfs = place.images.rootfs();
    rootfs.prepare("container", &id, None).unwrap();
    let mount = rootfs.mount("container", None).unwrap();
    assert_eq!(read(&inside(&mount, "etc/motd")), "second");
    assert!(!inside(&mount, "etc/gone").exists());
    assert!(!inside(&mount, "opaque/below").exists());
    assert!(inside(&mount, "opaque/above").exists());
    let meta = std::fs::metadata(inside(&mount, "etc/motd")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1000, 1001, 0o640));
    assert_eq!(meta.mtime(), 1_600_000_000);

    let before = rootfs.usage("container").unwrap();
    std::fs::write(inside(&mount, "written"), vec![7; 100_000]).unwrap();
    let after = rootfs.usage("container").unwrap();
    assert!(
        after.inodes == before.inodes + 1 && after.bytes >= before.bytes + 100_000,
        "{before:?} {after:?}"
    );

    // The image goes, the container goes on.
    assert!(place.images.remove(&image.id).await.unwrap());
    assert!(place.images.list().is_empty());
    place.images.collect_garbage().await.unwrap();
    assert_eq!(read(&inside(&mount, "etc/motd")), "second");
    assert_eq!(place.layer_folders().len(), 3);
    drop(mount);
    rootfs.remove("container").unwrap();
    rootfs.remove("container").unwrap();
    place.images.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders(), [""; 0]);
    assert_eq!(place.images.fs_info().usage.bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_types_and_indexes_are_understood() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let docker = ImageBuilder::new()
        .layer(Layer::new(&[Entry::file("a", 0o644, b"docker".to_vec())], Compression::Gzip))
        .flavour(Flavour::Docker)
        .build();
    let other = image_of(&[&[Entry::file("a", 0o644, b"other".to_vec())]]);
    let foreign = ImageBuilder::new().architecture("s390x").build();
    let platform = model::platform::Platform::of_this_program().to_string();
    let whole = index(&[("linux/s390x", foreign.clone()), (&platform, docker.clone())]);
    place.registry.add("multi", "1", &whole);
    assert_eq!(place.pull("multi:1").await.unwrap().as_str(), docker.id);
    let found = place.images.find(&docker.id).unwrap().unwrap();
    assert_eq!(found.repo_digests, [format!("{}@{}", place.name("multi"), whole.digest)]);
    // The same again by digest, and another image under the same tag.
    place.pull(&format!("multi@{}", whole.digest)).await.unwrap();
    place.registry.add("multi", "1", &other);
    place.pull("multi:1").await.unwrap();
    assert!(place.images.find(&docker.id).unwrap().unwrap().repo_tags.is_empty());
    assert_eq!(place.images.find(&place.name("multi:1")).unwrap().unwrap().id.as_str(), other.id);

    place.registry.add("foreign", "1", &index(&[("linux/s390x", foreign.clone())]));
    let error = place.pull("foreign:1").await.unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
    place.registry.add("foreign", "2", &foreign);
    assert!(place.pull("foreign:2").await.unwrap_err().to_string().contains("linux/s390x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_blobs_spare_the_registry_and_are_not_believed() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| config.keep_blobs = true).await;
    let image =
        image_of(&[&[Entry::file("a", 0o644, b"a".to_vec())], &[Entry::file("b", 0o644, b"b".to_vec())]]);
    place.registry.add("a", "1", &image);
    let id = place.pull("a:1").await.unwrap();
    let folder = place.root().join("blobs");
    let names: Vec<String> = image.layers.iter().map(|layer| layer.digest.replace(':', "-")).collect();
    for (name, layer) in names.iter().zip(&image.layers) {
        assert!(std::fs::read(folder.join(name)).unwrap() == layer.packed);
    }
    assert_eq!(common::names(&folder).len(), 2, "nothing else is there");
    // One of the two is damaged: it alone is fetched again.
    let damaged = folder.join(&names[1]);
    let mut bytes = std::fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    assert!(place.images.remove(id.as_str()).await.unwrap());
    place.pull("a:1").await.unwrap();
    assert_eq!(place.registry.count(&image.layers[0].digest), 1);
    assert_eq!(place.registry.count(&image.layers[1].digest), 2);
    assert!(std::fs::read(&damaged).unwrap() == image.layers[1].packed, "and kept as it should be");
}
