//! Layers that are damaged: found, named, fetched again alone, and left under whoever stands on them.

mod common;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use common::{Place, image_of, inside, names, read, skip_unless_root};
use image::{Checked, Finding};
use registry::tar::Entry;

async fn check_all(place: &Place) -> Vec<Checked> {
    let mut found = Vec::new();
    for (layer, images) in place.images.layers_of(&place.images.list()) {
        found.push(place.images.check_layer(layer, images).await.unwrap());
    }
    found
}

/// Turns one bit of a layer's file, which has this content: as a disk does.
fn rot_layer(place: &Place, image: &registry::make::Image, index: usize, name: &str, content: &[u8]) {
    let Some(packed) = place.packed(image, index) else { return rot(&place.layer(image, index).join(name)) };
    let bytes = std::fs::read(&packed).unwrap();
    let at = bytes.windows(content.len()).position(|window| window == content).unwrap();
    let file = std::fs::File::options().write(true).open(packed).unwrap();
    file.write_all_at(&[content[0] ^ 4], at as u64).unwrap();
    file.sync_all().unwrap();
}

/// Turns one bit of a file, and leaves its times as they were.
fn rot(path: &Path) {
    let before = std::fs::metadata(path).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, before.size() / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 4], before.size() / 2).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    file.sync_all().unwrap();
}

/// Every kind of entry, in odd orders.
fn odd() -> Vec<Entry> {
    vec![
        Entry::file("implied/deep/file", 0o4755, b"set-uid".to_vec()).owner(7, 8),
        Entry::directory("later", 0o700),
        Entry::file("later/a", 0o644, vec![1; 300_000]),
        Entry::directory("later", 0o1777),
        Entry::file("twice", 0o644, b"first".to_vec()),
        Entry::file("twice", 0o600, b"second".to_vec()),
        Entry::hard_link("link", "later/a"),
        Entry::symlink("soft", "later/a"),
        Entry::hard_link("soft-too", "soft"),
        Entry::fifo("fifo"),
        Entry::file("gone/x", 0o644, b"x".to_vec()),
        Entry::symlink("gone", "later"),
        Entry::file(".wh.below", 0o644, Vec::new()),
        Entry::file("opaque/.wh..wh..opq", 0o644, Vec::new()),
        Entry::directory(".", 0o755),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_unpacked_is_what_is_there() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let base = [Entry::directory("implied", 0o711), Entry::file("below", 0o644, b"b".to_vec())];
    let orders = [odd(), odd().into_iter().rev().collect::<Vec<_>>(), vec![Entry::file("a", 0o644, vec![])]];
    for (number, entries) in orders.iter().enumerate() {
        // In the other order, a link comes before what it leads to.
        let entries: Vec<Entry> = entries.clone();
        let image = image_of(&[&base, &entries]);
        place.registry.add("odd", &number.to_string(), &image);
        if let Err(error) = place.pull(&format!("odd:{number}")).await {
            assert!(number == 1, "{error}");
        }
    }
    let found = check_all(&place).await;
    assert!(found.len() >= 3);
    for checked in found {
        assert_eq!(checked.finding, Finding::Whole, "{checked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_damaged_layer_is_fetched_again() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = image_of(&[
        &[Entry::file("good", 0o644, vec![1; 5000])],
        &[Entry::file("bad", 0o644, b"a word of some length".to_vec()), Entry::file("other", 0o644, vec![])],
    ]);
    place.registry.add("app", "1", &image);
    let id = place.pull("app:1").await.unwrap();
    // One container stands on it before, with the path it has then.
    let rootfs = place.images.rootfs();
    rootfs.prepare("before", &id, None).unwrap();
    let standing = rootfs.mount("before", None).unwrap();
    rot_layer(&place, &image, 1, "bad", b"a word of some length");
    let damaged: Vec<Checked> =
        check_all(&place).await.into_iter().filter(|checked| checked.finding != Finding::Whole).collect();
    let [damaged] = damaged.as_slice() else { panic!("{damaged:?}") };
    assert_eq!(damaged.layer, image.layers[1].diff_id);
    assert_eq!(damaged.images, [place.name("app:1")]);
    assert!(matches!(&damaged.finding, Finding::Damaged(why) if why.contains("not what was unpacked")));
    // It is still listed, also by the next daemon.
    let again = place.reopen();
    assert_eq!(again.list().len(), 1);
    drop(again);
    place.registry.clear_log();
    let found = place.images.find(id.as_str()).unwrap().unwrap();
    place.images.repair(&found).await.unwrap();
    assert_eq!(place.registry.count(&image.layers[1].digest), 1);
    assert_eq!(place.registry.count(&image.layers[0].digest), 0);
    assert!(check_all(&place).await.iter().all(|checked| checked.finding == Finding::Whole));
    // Who stood on the old one still does; who comes now gets the new one.
    // Of a file that is mounted the kernel remembers what it was.
    if place.packed(&image, 1).is_none() {
        assert_ne!(read(&inside(&standing, "bad")), "a word of some length");
    }
    rootfs.prepare("after", &id, None).unwrap();
    let mount = rootfs.mount("after", None).unwrap();
    assert_eq!(read(&inside(&mount, "bad")), "a word of some length");
    assert_eq!(place.layer_folders().len(), 3);
    place.images.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders().len(), 3, "the old one has somebody on it");
    // Another daemon gives each container its own.
    let again = place.reopen();
    let mount = again.rootfs().mount("after", None).unwrap();
    assert_eq!(read(&inside(&mount, "bad")), "a word of some length");
    drop((mount, again, standing));
    rootfs.remove("before").unwrap();
    place.images.collect_garbage().await.unwrap();
    assert_eq!(place.layer_folders().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_repairs_and_a_lost_file_is_damage() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image =
        image_of(&[&[Entry::file("a", 0o644, b"a".to_vec()), Entry::file("b", 0o644, b"b".to_vec())]]);
    place.registry.add("app", "1", &image);
    let id = place.pull("app:1").await.unwrap();
    match place.packed(&image, 0) {
        Some(file) => std::fs::remove_file(file).unwrap(),
        None => std::fs::remove_file(place.layer(&image, 0).join("a")).unwrap(),
    }
    assert!(matches!(check_all(&place).await[0].finding, Finding::Damaged(_)));
    assert_eq!(place.pull("app:1").await.unwrap(), id);
    assert_eq!(check_all(&place).await[0].finding, Finding::Whole);
    place.images.collect_garbage().await.unwrap();
    assert_eq!(names(&place.root().join("layers")).len(), 1);
    // The record beside the layers knows the new place, should the database be lost.
    drop(place.images.list());
    let record = read(&place.root().join("images").join(format!("{}.json", id.digest().hex())));
    assert!(record.contains(&place.layer_folders()[0]), "{record}");
}
