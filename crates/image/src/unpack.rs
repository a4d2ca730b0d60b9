//! Unpacking: a layer's blob becomes a directory that overlayfs can stack, while its digests are computed. Synchronous.
//!
//! Every name in an archive is hostile. A path is cut into names and walked name by name from the layer's own directory, by descriptors,
//! and no symbolic link is ever followed by the kernel: [`dirs`] reads it and walks on within the layer.

mod attributes;
#[cfg(test)]
mod both;
mod decompress;
mod dirs;
mod extract;
mod frames;
mod members;
mod pack;
#[cfg(test)]
mod race;
mod xattrs;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use distribution::Hasher;
use model::digest::Digest;
use serde::{Deserialize, Serialize};

pub(crate) use attributes::{clear as clear_xattrs, copy_directory, copy_xattrs, is_implied, time_spec};

use crate::config::Limits;
use crate::error::is_no_space;
pub use crate::tar::TarError;
use crate::tar::outline::{Outline, Recorder};

/// Why a blob did not become a layer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    #[error("{why}, after {entries} entries")]
    Archive { why: TarError, entries: u64 },
    #[error("it cannot be decompressed: {0}")]
    Compression(String),
    #[error("entry {path:?} {why}")]
    Entry { path: String, why: &'static str },
    #[error("entry {path:?}: {source}")]
    EntryIo { path: String, source: Arc<io::Error> },
    #[error("no space is left for entry {path:?}")]
    NoSpace { path: String },
    #[error("{path:?} is a hard link to {target:?}, which neither the layer nor one below it has")]
    LinkTarget { path: String, target: String },
    #[error("it has more than {0} entries")]
    TooManyEntries(u64),
    #[error("it unpacks to more than {0} bytes")]
    TooLarge(u64),
    #[error("it unpacks to more than {0} times its size, as only bombs do")]
    Bomb(u64),
    #[error("the blob has digest {actual}, not {expected}: what the registry sent is not what was asked for")]
    BlobDigest { expected: Digest, actual: Digest },
    #[error("the blob has {actual} bytes, not {expected} as the manifest says")]
    BlobSize { expected: u64, actual: u64 },
    #[error("the archive has digest {actual}, and the image's configuration says {expected}")]
    DiffId { expected: Digest, actual: Digest },
    /// The download failed; its own error says why.
    #[error("the download ended early")]
    Aborted,
    /// It is fetched again, as a directory.
    #[error("it cannot be packed into one file: {0}")]
    Unsuited(String),
    #[error("the kernel has no thread to unpack it: {0}")]
    NoThread(Arc<io::Error>),
}

impl UnpackError {
    pub(crate) fn entry(path: &[u8], why: &'static str) -> UnpackError {
        UnpackError::Entry { path: show(path), why }
    }

    /// An archive that cannot be read on; whoever counts its entries adds their number.
    fn reading(why: TarError) -> UnpackError {
        UnpackError::Archive { why, entries: 0 }
    }

    pub(crate) fn io(path: &[u8], source: impl Into<io::Error>) -> UnpackError {
        let source = source.into();
        if is_no_space(&source) {
            return UnpackError::NoSpace { path: show(path) };
        }
        UnpackError::EntryIo { path: show(path), source: Arc::new(source) }
    }
}

/// The beginning of a hostile name.
pub(crate) fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned()
}

/// How to unpack.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub limits: Limits,
    pub user_xattr: bool,
    /// It is for copies only, so that what is gone may be marked in ways that overlayfs does not know.
    pub for_copies: bool,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub diff_id: Digest,
    /// What it takes on disk, nearly: whole pages of what is stored.
    pub bytes: u64,
    pub inodes: u64,
    pub loose_ends: LooseEnds,
    /// With which the archive can be made again; none: it would be too large.
    pub outline: Option<Outline>,
    /// What it is checked against later.
    pub checksum: Option<String>,
}

/// What an archive leaves open until the layers below it are known. Paths are relative to the layer, without `.`, `..` and links.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LooseEnds {
    /// Hard links to files that the layer does not have: the link and its target, in the archive's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories that the archive has things in but no entry for: below they may have another mode and owner, or be links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implied: Vec<Vec<u8>>,
    /// Whether the archive has an entry for the root itself.
    #[serde(default)]
    pub has_root: bool,
}

impl LooseEnds {
    /// Whether nothing below the root is left open.
    pub(crate) fn is_tied(&self) -> bool {
        self.links.is_empty() && self.implied.is_empty()
    }
}

/// What a blob has to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub blob: Digest,
    /// Bytes, as the manifest says.
    pub size: u64,
    pub diff_id: Digest,
    /// It is no archive but this file.
    pub file: Option<String>,
}

/// Where a layer goes.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// An empty directory.
    Directory(BorrowedFd<'a>),
    /// An empty file, which becomes an EROFS image.
    Erofs(File),
}

/// Unpacks a blob and checks it against what was expected.
///
/// # Errors
/// [`UnpackError`]; the target then has some part of the layer and has to be thrown away.
pub(crate) fn unpack(
    blob: impl Read + Send,
    target: Target<'_>,
    expected: &Expected,
    options: &Options,
) -> Result<Unpacked, UnpackError> {
    let packed = Counted::new(blob, &expected.blob, expected.size);
    let mut archive = decompress::open(packed, &expected.diff_id, &options.limits)?;
    let unpacked = match target {
        Target::Directory(root) => {
            let root: OwnedFd = root.try_clone_to_owned().map_err(|e| UnpackError::io(b".", e))?;
            extract::extract(&mut archive, root, options)
        }
        Target::Erofs(file) => pack::pack(&mut archive, file, uuid(&expected.diff_id), options),
    };
    // A failed download looks like a broken archive from here; what really happened is known to whoever downloads.
    let mut extracted = match unpacked {
        Err(_) if archive.aborted() => return Err(UnpackError::Aborted),
        other => other?,
    };
    // After the archive's end there may be padding, which counts for both digests.
    let finished = archive.finish(Rest(&mut extracted.recorder))?;
    if finished.packed_size != expected.size {
        return Err(UnpackError::BlobSize { expected: expected.size, actual: finished.packed_size });
    }
    if finished.packed != expected.blob {
        return Err(UnpackError::BlobDigest { expected: expected.blob.clone(), actual: finished.packed });
    }
    if finished.archive != expected.diff_id {
        return Err(UnpackError::DiffId { expected: expected.diff_id.clone(), actual: finished.archive });
    }
    Ok(Unpacked {
        diff_id: finished.archive,
        bytes: extracted.bytes,
        inodes: extracted.inodes,
        loose_ends: extracted.loose_ends,
        outline: extracted.recorder.and_then(Recorder::finish),
        checksum: extracted.checksum,
    })
}

/// What follows the end of an archive.
struct Rest<'a>(&'a mut Option<Recorder>);

impl io::Write for Rest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(recorder) = &mut self.0 {
            recorder.literal(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Only decompresses, to the end or to what is too much.
#[cfg(any(test, fuzzing))]
pub(crate) fn decompress(blob: impl Read, expected: &Expected, limits: &Limits) -> Result<(), UnpackError> {
    let packed = Counted::new(blob, &expected.blob, expected.size);
    decompress::open(packed, &expected.diff_id, limits)?.finish(io::sink()).map(drop)
}

/// The first half of a digest, which tells layers apart as well as the whole does.
fn uuid(of: &Digest) -> [u8; 16] {
    let digits = u128::from_str_radix(&of.hex()[..32], 16).unwrap_or(0);
    digits.to_be_bytes()
}

/// A stream that is hashed and counted as it is read, and cut where it is longer than it was said to be.
pub(crate) struct Counted<R> {
    stream: R,
    hasher: Hasher,
    count: u64,
    size: u64,
    /// Whether the stream itself failed, as opposed to what is made of it.
    failed: bool,
}

impl<R: Read> Counted<R> {
    pub(crate) fn new(stream: R, like: &Digest, size: u64) -> Self {
        Counted { stream, hasher: Hasher::like(like), count: 0, size, failed: false }
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// How many bytes were read, and their digest.
    pub(crate) fn finish(self) -> (u64, Digest) {
        (self.count, self.hasher.finish())
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer).inspect_err(|_| self.failed = true)?;
        self.hasher.update(&buffer[..read]);
        self.count += read as u64;
        if self.count > self.size {
            return Err(io::Error::other("the blob is longer than the manifest says"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;
    use registry::make::sha256;
    use registry::tar::{Entry, archive};

    use super::*;

    fn name() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            4 => Just("a"), 4 => Just("b"), 2 => Just(".."), 1 => Just("."), 1 => Just(""), 1 => Just("canary"),
            1 => Just("outside"), 1 => Just(".wh.a"), 1 => Just(".wh..wh..opq"), 1 => Just(".wh..wh.x"),
        ];
        (any::<bool>(), proptest::collection::vec(part, 1..5))
            .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
    }

    fn entry() -> impl Strategy<Value = Entry> {
        (0..6, name(), name(), any::<u32>()).prop_map(|(kind, name, target, mode)| match kind {
            0 | 1 => Entry::file(&name, mode & 0o7777, b"data".to_vec()).owner(u64::from(mode % 9), 1),
            2 => Entry::directory(&name, mode & 0o7777),
            3 => Entry::symlink(&name, &target),
            4 => Entry::hard_link(&name, &target),
            _ => Entry::fifo(&name),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_archive_reaches_outside(entries in proptest::collection::vec(entry(), 1..25)) {
            prop_assume!(rustix::process::geteuid().is_root());
            let folder = tempfile::tempdir().unwrap();
            let (outside, root) = (folder.path().join("outside"), folder.path().join("a"));
            std::fs::create_dir(&outside).unwrap();
            std::fs::create_dir(&root).unwrap();
            std::fs::write(outside.join("canary"), "alive").unwrap();
            let state = || {
                let file = std::fs::symlink_metadata(outside.join("canary")).unwrap();
                let folder = std::fs::symlink_metadata(&outside).unwrap();
                (file.mode(), file.uid(), file.nlink(), file.mtime_nsec(), file.size(), folder.mode(), folder.mtime_nsec())
            };
            let before = state();
            let bytes = archive(&entries);
            let digest = Digest::parse(&sha256(&bytes)).unwrap();
            let expected = Expected { blob: digest.clone(), size: bytes.len() as u64, diff_id: digest, file: None };
            let options = Options { limits: Limits::default(), user_xattr: false, for_copies: false };
            let directory = File::open(&root).unwrap();
            let result = unpack(&bytes[..], Target::Directory(directory.as_fd()), &expected, &options);
            prop_assert_eq!(state(), before);
            prop_assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
            prop_assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
            if let Ok(unpacked) = result {
                prop_assert_eq!(unpacked.diff_id, expected.diff_id);
            }
        }
    }
}
