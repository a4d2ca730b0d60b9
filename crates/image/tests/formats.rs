//! The forms a layer may be packed in: those for lazy pulling are ordinary streams to who reads them from the beginning.

mod common;

use std::io::Write;

use common::{Place, image_of, inside, names, read, skip_unless_root};
use flate2::{Compression as Level, GzBuilder};
use registry::make::{Compression, ImageBuilder, Layer, sha256};
use registry::tar::{Entry, archive};

fn layer(archive: &[u8], packed: Vec<u8>, compression: Compression) -> Layer {
    Layer { digest: sha256(&packed), diff_id: sha256(archive), packed: packed.into(), compression }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), Level::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A member for each entry, one for the table of contents, and an empty one whose extra field says where that is.
fn estargz() -> (Vec<u8>, Vec<u8>) {
    let parts = [
        archive(&[Entry::directory("d/", 0o755)])[..512].to_vec(),
        archive(&[Entry::file("d/a", 0o644, b"estargz".to_vec())])[..1024].to_vec(),
        archive(&[Entry::file("stargz.index.json", 0o644, b"{\"version\":1,\"entries\":[]}".to_vec())]),
    ];
    let mut packed: Vec<u8> = parts.iter().flat_map(|part| gzip(part)).collect();
    let footer = GzBuilder::new().extra(format!("SG\x16\0{:016x}STARGZ", packed.len()));
    packed.extend(footer.write(Vec::new(), Level::none()).finish().unwrap());
    (parts.concat(), packed)
}

fn skippable(bytes: &[u8]) -> Vec<u8> {
    [&[0x50, 0x2a, 0x4d, 0x18][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

/// A frame for each chunk, and its manifest and footer in frames that decoders skip.
fn zstd_chunked() -> (Vec<u8>, Vec<u8>) {
    let whole = archive(&[Entry::directory("d/", 0o755), Entry::file("d/a", 0o644, b"chunked".to_vec())]);
    let mut packed: Vec<u8> = whole.chunks(700).flat_map(|part| zstd::encode_all(part, 3).unwrap()).collect();
    packed.extend(skippable(&zstd::encode_all(&b"{\"version\":1,\"entries\":[]}"[..], 3).unwrap()));
    packed.extend(skippable(&[&[0; 56][..], b"GNUlInUx"].concat()));
    (whole, packed)
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_for_lazy_pulling_are_ordinary_layers() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let forms = [
        ("estargz", estargz(), Compression::Gzip),
        ("chunked", zstd_chunked(), Compression::Zstd),
        ("padded", (archive(&[]), [gzip(&archive(&[])), vec![0; 999]].concat()), Compression::Gzip),
    ];
    for (name, (archive, packed), compression) in forms {
        place.registry.add(
            name,
            "1",
            &ImageBuilder::new().layer(layer(&archive, packed, compression)).build(),
        );
        let id = place.pull(&format!("{name}:1")).await.unwrap();
        if name == "padded" {
            continue;
        }
        place.images.rootfs().prepare(name, &id, None).unwrap();
        let mount = place.images.rootfs().mount(name, None).unwrap();
        assert_eq!(read(&inside(&mount, "d/a")), name);
        assert_eq!(names(&inside(&mount, "d")), ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_packed_layer_is_refused() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let whole = archive(&[Entry::file("a", 0o644, b"a".to_vec())]);
    let forms = [
        (gzip(&whole), Compression::Gzip),
        (zstd::encode_all(&whole[..], 3).unwrap(), Compression::Zstd),
        (whole.clone(), Compression::Plain),
    ];
    for (packed, compression) in forms {
        let packed = [packed.as_slice(), b"behind it"].concat();
        let made = layer(&whole, packed, compression);
        place.registry.add("a", "1", &ImageBuilder::new().layer(made.clone()).build());
        let error = place.pull("a:1").await.unwrap_err().to_string();
        assert!(error.contains(&made.digest), "{compression:?}: {error}");
        assert!(place.images.list().is_empty());
    }
}

/// A file that is nearly all hole keeps its layer from being one file itself; what comes through a pipe cannot be asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_cannot_be_a_file_is_loaded_all_the_same() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let request = || image::LoadRequest { name: Some("r.example/a:1".into()), ..Default::default() };
    for (byte, has_layout) in [(7, true), (8, false)] {
        let sparse = Entry::file("sparse", 0o600, b"abcdefgh".to_vec())
            .pax("GNU.sparse.map", b"0,4,50000000,4".to_vec())
            .pax("GNU.sparse.size", b"90000000".to_vec());
        let before = Entry::file("before", 0o644, vec![byte; 3_000_000]);
        let image = image_of(&[&[before, sparse], &[Entry::file("above", 0o644, b"x".to_vec())]]);
        let archive = common::signing::archive(&image, has_layout, !has_layout);
        let loaded = place.images.load(request(), std::io::Cursor::new(archive)).await.unwrap();
        place.images.rootfs().prepare("c", &loaded[0].id, None).unwrap();
        let mount = place.images.rootfs().mount("c", None).unwrap();
        assert_eq!(std::fs::metadata(inside(&mount, "sparse")).unwrap().len(), 90_000_000);
        assert_eq!(std::fs::read(inside(&mount, "before")).unwrap(), vec![byte; 3_000_000]);
        assert!(place.packed(&image, 0).is_none(), "its holes would be stored");
        drop(mount);
        place.images.rootfs().remove("c").unwrap();
        place.images.remove(loaded[0].id.as_str()).await.unwrap();
    }
    assert!(names(&place.root().join("spool")).is_empty());
}
