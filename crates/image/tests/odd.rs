//! Odd layers that have to come out right: links, attributes, whiteouts, and what leans on the layers below. The hostile ones are in
//! `corpus.rs`.

mod common;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use common::{Place, image_of, inside, names, read, skip_unless_root};
use registry::tar::Entry;

/// Pulls an image of one layer and returns the layer's directory.
async fn unpack(place: &Place, entries: &[Entry]) -> Result<PathBuf, String> {
    let image = image_of(&[entries]);
    place.registry.add("hostile", "1", &image);
    place.pull("hostile:1").await.map_err(|error| error.to_string())?;
    Ok(place.layer(&image, 0))
}

#[tokio::test(flavor = "multi_thread")]
async fn links_within_the_layer_lead_within_it() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let layer = unpack(
        &place,
        &[
            Entry::directory("usr/", 0o755),
            Entry::directory("usr/lib/", 0o755),
            Entry::symlink("lib", "usr/lib"),
            Entry::symlink("absolute", "/usr"),
            Entry::symlink("usr/up", "../../../usr/lib"),
            Entry::symlink("dangling", "made/on/the/way"),
            Entry::file("lib/one", 0o644, b"1".to_vec()),
            Entry::file("absolute/lib/two", 0o644, b"2".to_vec()),
            Entry::file("usr/up/three", 0o644, b"3".to_vec()),
            Entry::file("dangling/four", 0o644, b"4".to_vec()),
            Entry::hard_link("five", "lib/one"),
            Entry::hard_link("six", "lib"),
        ],
    )
    .await
    .unwrap();
    assert_eq!(names(&layer.join("usr/lib")), ["one", "three", "two"]);
    assert_eq!(read(&layer.join("made/on/the/way/four")), "4");
    assert_eq!(std::fs::metadata(layer.join("five")).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(layer.join("six")).unwrap(), Path::new("usr/lib"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_survive() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let layer = unpack(
        &place,
        &[
            Entry::directory("./", 0o711).mtime(1),
            Entry::file("suid", 0o6755, b"x".to_vec()).owner(4_000_000_000, 7),
            Entry::directory("sticky/", 0o1777).mtime(1_000_000_000),
            Entry::file("sticky/later", 0o000, b"x".to_vec()).pax("mtime", b"-1.5".to_vec()),
            Entry::device("null", 1, 3),
            Entry::fifo("fifo"),
            Entry::file("caps", 0o755, b"x".to_vec())
                .xattr("security.capability", capability.clone())
                .xattr("user.note", b"\0bin".to_vec())
                .xattr("security.selinux", b"label".to_vec())
                .owner(1, 1),
            Entry::directory("tricky/", 0o755)
                .xattr("trusted.overlay.opaque", b"y".to_vec())
                .xattr("trusted.overlay.redirect", b"/etc".to_vec())
                .xattr("user.overlay.opaque", b"y".to_vec()),
            Entry::file("sparse", 0o644, b"headtail".to_vec())
                .pax("GNU.sparse.map", b"0,4,1048576,4".to_vec())
                .pax("GNU.sparse.size", b"2097152".to_vec()),
            Entry::symlink("owned", "x").owner(5, 6).mtime(77),
            Entry::directory("ro/", 0o555),
            Entry::file("ro/file", 0o444, b"x".to_vec()),
            Entry::file("twice", 0o644, b"first".to_vec()),
            Entry::directory("twice", 0o700),
            Entry::file("twice/inner", 0o644, b"x".to_vec()),
            Entry::file("twice", 0o600, b"last".to_vec()),
        ],
    )
    .await
    .unwrap();
    let meta = |name: &str| std::fs::symlink_metadata(layer.join(name)).unwrap();
    assert_eq!(
        (meta("suid").mode() & 0o7777, meta("suid").uid(), meta("suid").gid()),
        (0o6755, 4_000_000_000, 7)
    );
    assert_eq!((meta(".").mode() & 0o7777, meta(".").mtime()), (0o711, 1));
    assert_eq!((meta("sticky").mode() & 0o7777, meta("sticky").mtime()), (0o1777, 1_000_000_000));
    assert_eq!((meta("sticky/later").mtime(), meta("sticky/later").mtime_nsec()), (-2, 500_000_000));
    assert_eq!((meta("null").rdev(), meta("null").mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o600));
    assert!(meta("fifo").file_type().is_fifo());
    let xattr = |name: &str, key: &str| {
        let mut value = vec![0; 100];
        let length = rustix::fs::lgetxattr(layer.join(name), key, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    };
    assert_eq!(xattr("caps", "security.capability"), Some(capability));
    assert_eq!(xattr("caps", "user.note"), Some(b"\0bin".to_vec()));
    assert_ne!(xattr("caps", "security.selinux"), Some(b"label".to_vec()));
    for key in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque"] {
        assert_eq!(xattr("tricky", key), None, "{key}");
    }
    assert_eq!(meta("sparse").len(), 2 << 20);
    // In a file the holes of a small file are zeros.
    let packed = layer.starts_with("/proc");
    assert!(packed || meta("sparse").blocks() * 512 < 1 << 20, "{}", meta("sparse").blocks());
    let sparse = std::fs::read(layer.join("sparse")).unwrap();
    assert_eq!((&sparse[..5], &sparse[1048576..1048581]), (&b"head\0"[..], &b"tail\0"[..]));
    assert_eq!((meta("owned").uid(), meta("owned").gid(), meta("owned").mtime()), (5, 6, 77));
    assert_eq!(meta("ro").mode() & 0o7777, 0o555);
    assert_eq!(read(&layer.join("twice")), "last");
    assert_eq!(meta("twice").mode() & 0o7777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn whiteouts_are_for_the_layers_below_alone() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let base = [
        Entry::directory("dir/", 0o755),
        Entry::file("dir/below", 0o644, b"".to_vec()),
        Entry::directory("again/", 0o755),
        Entry::file("again/below", 0o644, b"".to_vec()),
        Entry::file("file", 0o644, b"below".to_vec()),
        Entry::directory("kind/", 0o755),
        Entry::file("kind/below", 0o644, b"".to_vec()),
    ];
    let top = [
        // What the layer brings itself stays, whichever comes first.
        Entry::directory("dir/", 0o755),
        Entry::file("dir/own", 0o644, b"".to_vec()),
        Entry::file(".wh.dir", 0, b"".to_vec()),
        Entry::file(".wh.again", 0, b"".to_vec()),
        Entry::file("again/own", 0o644, b"".to_vec()),
        Entry::file(".wh.file", 0, b"".to_vec()),
        Entry::file("file", 0o644, b"own".to_vec()),
        Entry::file(".wh..wh.plnk", 0, b"".to_vec()),
        // A file, and then a directory: what was below the file's name stays hidden.
        Entry::file("kind", 0o644, b"".to_vec()),
        Entry::directory("kind", 0o755),
        Entry::file("kind/own", 0o644, b"".to_vec()),
    ];
    let image = image_of(&[&base, &top]);
    place.registry.add("w", "1", &image);
    let id = place.pull("w:1").await.unwrap();
    place.images.rootfs().prepare("c", &id, None).unwrap();
    let mount = place.images.rootfs().mount("c", None).unwrap();
    for folder in ["dir", "again", "kind"] {
        assert_eq!(names(&inside(&mount, folder)), ["own"], "{folder}");
    }
    assert_eq!(read(&inside(&mount, "file")), "own");
    assert!(!names(&inside(&mount, "")).iter().any(|name| name.starts_with(".wh.")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_may_lean_on_those_below() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let base = [
        Entry::directory("tmp/", 0o1777).owner(3, 4),
        Entry::directory("usr/", 0o755),
        Entry::directory("usr/lib/", 0o751),
        Entry::symlink("lib", "usr/lib"),
        Entry::file("usr/lib/old", 0o644, b"old".to_vec()),
        Entry::file("bin", 0o4755, b"program".to_vec()).owner(0, 9),
    ];
    // No entry for tmp or lib, and links to what only the base has.
    let top = [
        Entry::file("tmp/file", 0o644, b"x".to_vec()),
        Entry::file("lib/new", 0o644, b"new".to_vec()),
        Entry::hard_link("other", "bin"),
        Entry::hard_link("third", "other"),
    ];
    let image = image_of(&[&base, &top]);
    place.registry.add("lean", "1", &image);
    let id = place.pull("lean:1").await.unwrap();
    let check = |images: &image::Images, owner: &str| {
        images.rootfs().prepare(owner, &id, None).unwrap();
        let mount = images.rootfs().mount(owner, None).unwrap();
        let meta = |name: &str| std::fs::symlink_metadata(inside(&mount, name)).unwrap();
        assert_eq!((meta("tmp").mode() & 0o7777, meta("tmp").uid(), meta("tmp").gid()), (0o1777, 3, 4));
        assert!(meta("lib").is_symlink());
        assert_eq!(names(&inside(&mount, "usr/lib")), ["new", "old"]);
        assert_eq!(meta("usr/lib").mode() & 0o7777, 0o751);
        assert_eq!((meta("other").mode() & 0o7777, meta("other").gid()), (0o4755, 9));
        assert_eq!((meta("bin").nlink(), meta("bin").ino()), (3, meta("other").ino()));
        assert_eq!(read(&inside(&mount, "third")), "program");
    };
    check(&place.images, "c1");
    check(&place.reopen(), "c2");
    // The same layer above another base, where its links lead elsewhere, or nowhere.
    let other_base = [Entry::file("bin", 0o755, b"another".to_vec())];
    let second = image_of(&[&other_base, &top]);
    place.registry.add("lean", "2", &second);
    let second = place.pull("lean:2").await.unwrap();
    place.images.rootfs().prepare("c3", &second, None).unwrap();
    let mount = place.images.rootfs().mount("c3", None).unwrap();
    assert_eq!(read(&inside(&mount, "other")), "another");
    assert!(std::fs::symlink_metadata(inside(&mount, "lib")).unwrap().is_dir());
    let third = image_of(&[&[Entry::file("x", 0o644, b"".to_vec())], &top]);
    place.registry.add("lean", "3", &third);
    let error = place.pull("lean:3").await.unwrap_err().to_string();
    assert!(error.contains("other") && error.contains("bin"), "{error}");
}
