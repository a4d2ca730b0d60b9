//! Volumes made of images, and images whose owners are those of a user namespace.

mod common;

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use common::*;
use image::RootfsError;
use model::request::{IdMapping, UserNamespace};
use registry::tar::Entry;

fn users() -> (UserNamespace, std::os::fd::OwnedFd) {
    let map = |host_id| vec![IdMapping { host_id, container_id: 0, length: 2000 }];
    let range = |outside| [sys::users::IdRange { inside: 0, outside, count: 2000 }];
    let namespace = sys::users::new(&range(300_000), &range(400_000)).unwrap();
    (UserNamespace { uids: map(300_000), gids: map(400_000) }, namespace)
}

async fn two_images(place: &Place) -> [model::digest::ImageId; 2] {
    place.registry.add(
        "root",
        "1",
        &image_of(&[&[Entry::directory(".", 0o1755), Entry::file("r", 0o644, b"r".to_vec())]]),
    );
    let entries = [
        Entry::directory("data", 0o755),
        Entry::file("data/file", 0o644, b"below".to_vec()),
        Entry::symlink("inner", "/data"),
        Entry::symlink("outer", "../../../../../../etc"),
        Entry::symlink("circle", "circle"),
        Entry::symlink("magic", "/proc/self/root/etc"),
        Entry::fifo("pipe"),
    ];
    place.registry.add("volume", "1", &image_of(&[&entries]));
    [place.pull("root:1").await.unwrap(), place.pull("volume:1").await.unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_read_only_and_keeps_its_layers_as_long_as_its_owner_is_there() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let [root, volume] = two_images(&place).await;
    let rootfs = place.images.rootfs();
    assert!(matches!(
        rootfs.mount_volume("c", &volume, Path::new(""), None),
        Err(RootfsError::Absent { .. })
    ));
    rootfs.prepare("c", &root, None).unwrap();
    rootfs.prepare("c2", &root, None).unwrap();
    let whole = rootfs.mount_volume("c", &volume, Path::new(""), None).unwrap();
    let part = rootfs.mount_volume("c", &volume, Path::new("data"), None).unwrap();
    rootfs.mount_volume("c2", &root, Path::new("r"), None).unwrap();
    assert_eq!(read(&inside(&whole, "data/file")), "below");
    assert_eq!(read(&inside(&part, "file")), "below");
    for mount in [&whole, &part] {
        let error = std::fs::write(inside(mount, "new"), "").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    // The image goes; also after a restart its layers stay for the volume.
    assert!(place.images.remove(&volume.to_string()).await.unwrap());
    place.images.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders().len(), 2);
    let again = place.reopen();
    again.collect_garbage().await.unwrap();
    assert_eq!(again.rootfs().owners().len(), 2, "a volume is no owner");
    assert_eq!(read(&inside(&part, "file")), "below");
    drop((whole, part));
    again.rootfs().remove("c").unwrap();
    again.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_image() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let [root, volume] = two_images(&place).await;
    let rootfs = place.images.rootfs();
    rootfs.prepare("c", &root, None).unwrap();
    let inner = rootfs.mount_volume("c", &volume, Path::new("inner"), None).unwrap();
    assert_eq!(read(&inside(&inner, "file")), "below");
    let file = rootfs.mount_volume("c", &volume, Path::new("inner/file"), None).unwrap();
    assert_eq!(
        read(Path::new(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)))),
        "below"
    );
    for path in ["absent", "outer", "circle", "magic", "data/file/x", "../../etc", "/etc", "pipe"] {
        match rootfs.mount_volume("c", &volume, Path::new(path), None) {
            Err(RootfsError::NoPath { path: named, .. }) => assert_eq!(named, Path::new(path)),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_those_of_a_user_namespace() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let [root, volume] = two_images(&place).await;
    let rootfs = place.images.rootfs();
    assert!(rootfs.can_map_ids());
    let (users, namespace) = users();
    let made = rootfs.prepare("c", &root, Some(&users)).unwrap();
    let mount = rootfs.mount("c", Some(namespace.as_fd())).unwrap();
    let owner = |metadata: std::fs::Metadata| (metadata.uid(), metadata.gid());
    for path in ["", "r"] {
        assert_eq!(owner(std::fs::metadata(inside(&mount, path)).unwrap()), (300_000, 400_000), "{path:?}");
    }
    let upper = std::fs::metadata(&made.upper).unwrap();
    assert_eq!((upper.uid(), upper.mode() & 0o7777), (300_000, 0o1755));
    for path in ["", "data"] {
        let volume = rootfs.mount_volume("c", &volume, Path::new(path), Some(namespace.as_fd())).unwrap();
        assert_eq!(owner(of_root(&volume)), (300_000, 400_000), "{path:?}");
    }
}

fn of_root(mount: &std::os::fd::OwnedFd) -> std::fs::Metadata {
    std::fs::metadata(inside(mount, ".")).unwrap()
}
