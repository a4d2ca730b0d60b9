//! Headers, pax records and sparse maps that contradict each other or promise too much.

use super::{Case, Expected, What, a_file, bad, bad_layer, case, file, good, low, of, of_layer, seen_of};
use crate::make::{Compression, Layer};
use crate::tar::{Entry, append, archive, with_checksums};

pub(super) fn cases() -> Vec<Case> {
    let mut all = headers();
    all.extend(pax());
    all.extend(sparse());
    all.extend(attributes());
    all
}

/// An image of an archive that is written by hand.
fn raw(archive: &[u8]) -> crate::make::Image {
    of_layer(Layer::from_archive(archive, Compression::Gzip))
}

/// The archive of one entry, of whose header these bytes are other ones.
fn patched(entry: Entry, at: usize, bytes: &[u8]) -> crate::make::Image {
    let mut archive = archive(&[entry]);
    archive[at..at + bytes.len()].copy_from_slice(bytes);
    raw(&with_checksums(&archive))
}

fn headers() -> Vec<Case> {
    let whole = archive(&[Entry::file("a", 0o644, vec![7; 3000]), file("b")]);
    let mut after_one_block = archive(&[file("a")]);
    after_one_block.truncate(1024 + 512);
    append(&mut after_one_block, &file("hidden"));
    let mut behind_the_end = archive(&[file("a")]);
    behind_the_end.extend(archive(&[file("hidden")]));
    let mut flipped = archive(&[file("a")]);
    flipped[0] ^= 1;
    let claims = |size: u64| Entry { claimed_size: Some(size), ..file("a") };
    let mut link = Entry::symlink("l", "to");
    link.claimed_size = Some(512);
    vec![
        bad_layer("an archive cut in a file", raw(&whole[..2000]), "middle"),
        bad_layer("an archive cut in a header", raw(&whole[..3584 + 100]), "middle"),
        case(
            "an archive without its end",
            raw(&whole[..3584]),
            Expected::Unpacked(seen_of(&[("a", What::File(3000, vec![7; 3000]))])),
        ),
        bad_layer("something after one block of zeros", raw(&after_one_block), "zeros"),
        case(
            "an archive behind the end",
            raw(&behind_the_end),
            Expected::Unpacked(seen_of(&[("a", a_file())])),
        ),
        case("an archive of nothing", raw(b""), Expected::Unpacked(vec![])),
        bad_layer(
            "no archive at all",
            raw(&b"neither here nor there, but longer than a block ".repeat(20)),
            "checksum",
        ),
        bad_layer("a header with a wrong checksum", raw(&flipped), "checksum"),
        bad("a size beyond the end", &[claims(4096)], "middle"),
        bad("the largest size of a header", &[claims(0o77777777777)], ""),
        bad_layer("a negative size", patched(file("a"), 124, &[0xff; 12]), "size"),
        bad_layer(
            "a size over 63 bits",
            patched(file("a"), 124, &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff]),
            "size",
        ),
        bad_layer("a size that is no number", patched(file("a"), 124, b"0x000000001\0"), "size"),
        bad_layer("a negative user", patched(file("a"), 108, &[0xff; 8]), "uid"),
        bad_layer("an unknown type", patched(file("a"), 156, b"Z"), "'Z'"),
        good(
            "a link that claims data",
            &[link, file("after")],
            &[("after", a_file()), ("l", What::Link(b"to".to_vec()))],
        ),
        bad("a device whose first number is out of range", &[Entry::device("d", 4096, 1)], "device"),
        bad("a device whose second number is out of range", &[Entry::device("d", 1, 1 << 20)], "device"),
        low(bad("more entries than there may be", &vec![file("same"); 2001], "2000 entries")),
    ]
}

fn pax() -> Vec<Case> {
    let hidden = archive(&[file("hidden")]);
    let mut outer = Entry::file("outer", 0o644, hidden[..1024].to_vec()).pax("size", "1024");
    outer.claimed_size = Some(0);
    let mut inner = file("inner").pax("size", "0");
    inner.claimed_size = Some(1);
    let begins = |text: &str| Entry::file("a", 0o644, text.as_bytes().to_vec());
    let extended = |body: &[u8]| {
        let mut out = Vec::new();
        append(&mut out, &Entry { kind: b'x', ..Entry::file("PaxHeaders/x", 0o644, body.to_vec()) });
        append(&mut out, &file("a"));
        raw(&out)
    };
    let global =
        Entry { kind: b'g', ..Entry::file("g", 0o644, b"15 path=stolen\n20 linkpath=/passwd\n".to_vec()) };
    let giant = Entry { kind: b'x', ..Entry::file("x", 0o644, vec![b' '; (1 << 20) + 1]) };
    let long = Entry { kind: b'L', ..Entry::file("././@LongLink", 0o644, b"from/elsewhere\0".to_vec()) };
    let mut all = vec![
        good(
            "a size by pax over the header's",
            &[outer, Entry::fifo("after")],
            &[("after", What::Other), ("outer", What::File(1024, hidden[..8].to_vec()))],
        ),
        // What another reader takes for data is the next header here, and no good one.
        bad("a size of nothing by pax", &[inner], "checksum"),
        bad("a name with a NUL", &[file("a").pax("path", b"a\0b".to_vec())], "pax"),
        bad("a link with a NUL", &[Entry::symlink("l", "x").pax("linkpath", b"a\0b".to_vec())], "pax"),
        bad("a size with a sign", &[file("a").pax("size", "-1")], "pax"),
        bad("a size over 64 bits", &[file("a").pax("size", "99999999999999999999")], "pax"),
        bad("a size over 63 bits by pax", &[file("a").pax("size", "18446744073709551615")], "size"),
        low(bad(
            "a size over what a layer may have",
            &[file("a").pax("size", "9223372036854775807")],
            "more than",
        )),
        bad_layer("a record that is longer than its header", extended(b"99 path=a\n"), "pax"),
        bad_layer("a record of no length", extended(b"0 path=a\n"), "pax"),
        bad_layer("a record without a value", extended(b"7 path\n"), "pax"),
        bad_layer("a record without its end", extended(b"10 path=a"), "pax"),
        bad("an extended header over a megabyte", &[giant, file("a")], "1 MiB"),
        good("a global header", &[global, file("a")], &[("a", a_file())]),
        good(
            "a long name of GNU",
            &[long, file("short")],
            &[("from", What::Directory), ("from/elsewhere", a_file())],
        ),
        good(
            "times out of all ages",
            &[
                begins("x").pax("mtime", "9223372036854775807"),
                file("b").pax("mtime", "-9223372036854775807.9"),
            ],
            &[("a", a_file()), ("b", a_file())],
        ),
    ];
    for id in ["4294967295", "4294967296", "-1", "99999999999999999999", "0x0", "1:", "1.5"] {
        all.push(bad(&format!("the user {id}"), &[file("a").pax("uid", id)], ""));
        all.push(bad(&format!("the group {id}"), &[file("a").pax("gid", id)], ""));
    }
    all
}

fn sparse() -> Vec<Case> {
    let one = |map: &str, size: &str| {
        Entry::file("s", 0o644, b"abcdefgh".to_vec()).pax("GNU.sparse.map", map).pax("GNU.sparse.size", size)
    };
    let zero = |pairs: &[(&str, &str)], size: &str| {
        let entry = Entry::file("s", 0o644, b"abcdefgh".to_vec())
            .pax("GNU.sparse.size", size)
            .pax("GNU.sparse.numblocks", "2");
        pairs.iter().fold(entry, |entry, (key, value)| entry.pax(&format!("GNU.sparse.{key}"), *value))
    };
    let in_data = |map: &str, size: &str| {
        let mut data = map.as_bytes().to_vec();
        data.resize(data.len().next_multiple_of(512), 0);
        data.extend_from_slice(b"abcdefgh");
        Entry::file("GNUSparseFile.0/s", 0o644, data)
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "s")
            .pax("GNU.sparse.realsize", size)
    };
    let spread = |size| [("s", What::File(size, b"abcd\0".to_vec()))];
    let mut all = vec![
        good(
            "sparse 0.0",
            &[zero(&[("offset", "0"), ("numbytes", "4"), ("offset", "100"), ("numbytes", "4")], "1000")],
            &spread(1000),
        ),
        good("sparse 0.1", &[one("0,4,100,4", "1000")], &spread(1000)),
        good(
            "sparse 1.0",
            &[in_data("2\n0\n4\n100\n4\n", "1000"), Entry::fifo("z")],
            &[("s", What::File(1000, b"abcd\0".to_vec())), ("z", What::Other)],
        ),
        low(bad("a hole larger than a layer", &[one("0,8", "1099511627776")], "more than")),
        bad("sparse 0.0 in another order", &[zero(&[("numbytes", "4"), ("offset", "0")], "1000")], "sparse"),
        bad("sparse 1.0 with more parts than there is data", &[in_data("999999999999\n", "1000")], "sparse"),
        bad("sparse 1.0 with a number without end", &[in_data(&"9".repeat(600), "1000")], "sparse"),
        bad("sparse 2.0", &[in_data("1\n0\n8\n", "8").pax("GNU.sparse.major", "2")], "sparse"),
        bad(
            "sparse without a size",
            &[Entry::file("s", 0o644, b"x".to_vec()).pax("GNU.sparse.map", "0,1")],
            "sparse",
        ),
    ];
    for (map, size) in [
        ("0,4,2,4", "1000"),
        ("100,4,0,4", "1000"),
        ("0,4,998,4", "1000"),
        ("0,4", "1000"),
        ("0,4,100", "1000"),
        ("18446744073709551615,8", "1000"),
        ("0,18446744073709551615", "1000"),
        ("a", "1000"),
        ("", "1000"),
    ] {
        all.push(bad(&format!("the sparse map {map:?}"), &[one(map, size)], "sparse"));
    }
    all.push(bad("a sparse file over 63 bits", &[one("0,8", "18446744073709551615")], ""));
    // GNU's own header: one part of 8 bytes at 100, and a real size of 1000.
    let mut old = Entry { kind: b'S', ..Entry::file("s", 0o644, b"abcdefgh".to_vec()) };
    old.mode = 0o600;
    let header = [b"00000000144\0".as_slice(), b"00000000010\0"].concat();
    let mut bytes = archive(&[old]);
    bytes[386..386 + 24].copy_from_slice(&header);
    bytes[483..495].copy_from_slice(b"00000001750\0");
    all.push(case(
        "GNU's old sparse header",
        raw(&with_checksums(&bytes)),
        Expected::Unpacked(seen_of(&[("s", What::File(1000, vec![0; 100]))])),
    ));
    // It says that another block of parts follows, which is the file's data and then its end.
    bytes[482] = 1;
    all.push(bad_layer("GNU's old sparse header that goes on", raw(&with_checksums(&bytes)), ""));
    all
}

fn attributes() -> Vec<Case> {
    let flood = (0..129).fold(file("a"), |entry, n| entry.xattr(&format!("user.n{n}"), "x"));
    let huge = (0..17).fold(file("a"), |entry, n| entry.xattr(&format!("user.n{n}"), vec![b'v'; 60_000]));
    vec![
        bad("more attributes than there may be", &[flood], "128"),
        bad("an attribute over 64 KiB", &[file("a").xattr("user.big", vec![0; 70_000])], "64 KiB"),
        bad(
            "an attribute whose name is too long",
            &[file("a").xattr(&format!("user.{}", "n".repeat(260)), "x")],
            "name",
        ),
        case("attributes of a megabyte", of(&[huge]), Expected::Harmless),
        good(
            "attributes that overlayfs or the host would believe",
            &[
                Entry::directory("d", 0o755)
                    .xattr("trusted.overlay.opaque", "y")
                    .xattr("trusted.overlay.redirect", "/etc")
                    .xattr("user.overlay.opaque", "y")
                    .xattr("security.selinux", "system_u:object_r:etc_t:s0")
                    .xattr("security.ima", "x"),
                file("metacopy").xattr("trusted.overlay.metacopy", "").xattr("security.evm", "x"),
            ],
            &[("d", What::Directory), ("metacopy", a_file())],
        ),
        case(
            "capabilities that are none",
            of(&[file("a").xattr("security.capability", "x")]),
            Expected::Harmless,
        ),
        case(
            "an ACL that is none",
            of(&[file("a").xattr("system.posix_acl_access", "x")]),
            Expected::Harmless,
        ),
    ]
}
