//! What fuzzers feed: each takes any bytes, and has to come to an end without a panic.

use std::os::fd::BorrowedFd;

use distribution::Hasher;
use model::digest::Digest;
use model::platform::Platform;

use crate::config::Limits;
use crate::manifest::{self, Document};
use crate::rebuild::{RebuildError, rebuild};
use crate::search::Search;
use crate::tar::Reader;
use crate::unpack::{self, Expected, Options, Target, Unpacked};

/// A manifest or an index that came with this media type.
pub fn manifest(media_type: &str, body: &[u8]) {
    match manifest::parse("fuzz", media_type, body, &Limits::default()) {
        Ok(Document::Index(entries)) => {
            let mut search = Search::new(&Platform::new("linux", "amd64", ""), 3);
            if search.add("fuzz", 1, entries).is_ok() {
                while search.next("fuzz").is_ok() {}
            }
        }
        Ok(Document::Manifest(manifest)) => {
            let _ = manifest.is_artifact();
        }
        Err(error) => {
            assert!(error.to_string().len() < 4096, "the message is as long as the attacker pleases")
        }
    }
}

/// An image's configuration.
pub fn config(body: &[u8]) {
    let _ = manifest::parse_config("fuzz", body);
}

/// An archive, every entry and its data. What is read of an entry is never more than the archive has.
pub fn archive(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let mut buffer = [0; 4096];
    while let Ok(Some(_)) = reader.next() {
        let mut sum = 0;
        while let Ok(read @ 1..) = reader.read_data(&mut buffer) {
            sum += read;
        }
        assert!(sum <= bytes.len(), "data out of nowhere");
    }
}

/// A blob, packed or not, unpacked into a directory, and packed into an image. Where that goes well, what was recorded of it makes the
/// same archive again, or says that it cannot.
pub fn layer(bytes: &[u8], root: BorrowedFd<'_>) {
    let limits = Limits { layer_bytes: 1 << 20, entries: 200, ..Limits::default() };
    let expected = expected(bytes);
    let options = Options { limits, user_xattr: false, for_copies: false };
    let unpacked = unpack::unpack(bytes, Target::Directory(root), &expected, &options);
    if let Ok(file) = rustix::fs::memfd_create("layer", rustix::fs::MemfdFlags::CLOEXEC) {
        let _ = unpack::unpack(bytes, Target::Erofs(file.into()), &expected, &options);
    }
    let Ok(Unpacked { outline: Some(outline), diff_id, .. }) = unpacked else { return };
    let mut again = Vec::new();
    match rebuild(&outline.packed, root, &diff_id, &mut again) {
        Ok(()) => assert!(again == bytes, "another archive of the same digest"),
        Err(RebuildError::Outline(why)) => panic!("an outline of our own: {why}"),
        Err(_) => {}
    }
}

/// Pages of containerd's database.
pub fn bolt(pages: &[u8]) {
    crate::load::walk_bolt(pages);
}

/// A packed stream: what comes out of it is bounded.
pub fn packed(bytes: &[u8]) {
    let limits = Limits { layer_bytes: 4 << 20, ratio_floor_bytes: 1 << 20, ratio: 100, ..Limits::default() };
    let _ = unpack::decompress(bytes, &expected(bytes), &limits);
}

fn expected(bytes: &[u8]) -> Expected {
    let mut hasher = Hasher::like(&Digest::sha256([0; 32]));
    hasher.update(bytes);
    let blob = hasher.finish();
    Expected { diff_id: blob.clone(), blob, size: bytes.len() as u64, file: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            super::packed(&bytes);
            super::archive(&bytes);
        }
    }
}
