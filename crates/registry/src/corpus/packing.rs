//! Packed streams that are bombs, cut, damaged, or go on after their end; and digests and sizes that are not theirs.

use bytes::Bytes;

use super::{Case, Expected, What, bad_layer, case, low, of_layer, seen_of};
use crate::make::{Compression, Image, ImageBuilder, Layer, sha256};
use crate::tar::{Entry, archive};

fn contents() -> Vec<u8> {
    archive(&[Entry::file("a", 0o644, vec![7; 3000])])
}

/// An image whose one layer is these bytes, of which `archive` is to come out.
fn packed(bytes: Vec<u8>, archive: &[u8]) -> Image {
    of_layer(Layer {
        digest: sha256(&bytes),
        diff_id: sha256(archive),
        packed: bytes.into(),
        compression: Compression::Gzip,
    })
}

pub(super) fn cases() -> Vec<Case> {
    let whole = contents();
    let pack = |compression, bytes: &[u8]| Layer::from_archive(bytes, compression).packed.to_vec();
    let (gzip, zstd) = (pack(Compression::Gzip, &whole), pack(Compression::Zstd, &whole));
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 6].to_vec();
    let joined = |parts: &[&[u8]]| parts.concat();
    let mut damaged = gzip.clone();
    let crc = damaged.len() - 8;
    damaged[crc] ^= 1;
    let zeros = vec![0; 6 << 20];
    let seen = Expected::Unpacked(seen_of(&[("a", What::File(3000, vec![7; 100]))]));
    let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip";
    let halves =
        |compression| joined(&[&pack(compression, &whole[..1000]), &pack(compression, &whole[1000..])]);
    // A frame whose window is two gigabytes.
    let window = joined(&[b"\x28\xb5\x2f\xfd\x00\xa8", &[0x01, 0, 0]]);
    let mut all = vec![
        bad_layer("gzip that is cut", packed(cut(&gzip), &whole), "decompressed"),
        bad_layer("zstd that is cut", packed(cut(&zstd), &whole), "decompressed"),
        bad_layer("gzip with a wrong checksum", packed(damaged, &whole), "decompressed"),
        bad_layer("gzip and then garbage", packed(joined(&[&gzip, b"garbage"]), &whole), "decompressed"),
        bad_layer("zstd and then garbage", packed(joined(&[&zstd, b"garbage"]), &whole), "decompressed"),
        bad_layer("a head of gzip and nothing behind it", packed(gzip[..10].to_vec(), &whole), ""),
        bad_layer("zstd with a window of gigabytes", packed(window, &whole), "decompressed"),
        low(bad_layer("a bomb in gzip", packed(pack(Compression::Gzip, &zeros), &zeros), "bombs")),
        low(bad_layer("a bomb in zstd", packed(pack(Compression::Zstd, &zeros), &zeros), "bombs")),
        low(bad_layer(
            "a bomb behind an archive",
            {
                let all = [whole.clone(), zeros.clone()].concat();
                packed(pack(Compression::Gzip, &all), &all)
            },
            "bombs",
        )),
        low(bad_layer(
            "a layer larger than one may be",
            {
                // Noise enough not to be a bomb.
                let noise = noise(9 << 20);
                packed(pack(Compression::Zstd, &noise), &noise)
            },
            "",
        )),
        case("gzip of several members", packed(halves(Compression::Gzip), &whole), seen.clone()),
        case("zstd of several frames", packed(halves(Compression::Zstd), &whole), seen.clone()),
        case("zstd behind a frame to be skipped", packed(joined(&[skippable, &zstd]), &whole), seen.clone()),
        case("a plain archive under gzip's media type", packed(whole.clone(), &whole), seen),
    ];
    all.extend(lies());
    all
}

/// What the manifest and the configuration say of a layer is not so.
fn lies() -> Vec<Case> {
    let layer = Layer::from_archive(&contents(), Compression::Gzip);
    let with = |digest: &str, diff_id: &str| {
        let layer = Layer { digest: digest.into(), diff_id: diff_id.into(), ..layer.clone() };
        of_layer(layer)
    };
    let sized = |by: i64| {
        let image = of_layer(layer.clone());
        let size = layer.packed.len() as i64;
        image.edited(|manifest| manifest["layers"][0]["size"] = (size + by).into())
    };
    let other = sha256(b"another");
    let twice = ImageBuilder::new()
        .layer(layer.clone())
        .layer(Layer {
            packed: Bytes::from_static(b"nonsense"),
            digest: sha256(b"nonsense"),
            ..layer.clone()
        })
        .build();
    vec![
        bad_layer("a blob that has another digest", with(&other, &layer.diff_id), "not what was asked for"),
        bad_layer("an archive that has another digest", with(&layer.digest, &other), "configuration says"),
        bad_layer("a blob longer than it is said to be", sized(-1), "manifest says"),
        case(
            "a blob shorter than it is said to be",
            sized(1),
            Expected::Refused { code: "Unavailable", says: vec![layer.digest.clone()] },
        ),
        case(
            "a blob of a negative size",
            sized(-1_000_000),
            Expected::Refused { code: "DataLoss", says: vec![layer.digest.clone(), "negative".into()] },
        ),
        case(
            "the same layer a thousand times less five hundred",
            (0..500).fold(ImageBuilder::new(), |image, _| image.layer(layer.clone())).build(),
            Expected::Unpacked(seen_of(&[("a", What::File(3000, vec![7; 100]))])),
        ),
        case("a layer's archive promised by two blobs", twice, Expected::Harmless),
    ]
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252u64;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}
