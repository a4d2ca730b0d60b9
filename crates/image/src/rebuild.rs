//! A layer's archive made again from the layer and its outline.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use distribution::Hasher;
use model::digest::Digest;
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags};

use crate::tar::outline::{Piece, Pieces, Run};
use crate::unpack::show;

/// Why an archive could not be made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RebuildError {
    #[error("its outline cannot be read: {0}")]
    Outline(io::Error),
    #[error("the file {path:?} of it cannot be read: {source}")]
    File { path: String, source: io::Error },
    #[error(
        "what is on this disk is not what was unpacked, or its archive had several entries of one name: it gives {actual}"
    )]
    Digest { actual: Digest },
    /// Whoever was to take it has gone.
    #[error("it cannot be written: {0}")]
    Write(io::Error),
}

/// Writes the archive of the layer whose top is `root`, and checks that it is the one with the digest `diff_id`. What was written
/// before an error is not to be used.
///
/// # Errors
/// [`RebuildError`].
pub(crate) fn rebuild(
    outline: &[u8],
    root: BorrowedFd<'_>,
    diff_id: &Digest,
    out: &mut impl Write,
) -> Result<(), RebuildError> {
    let mut out = Hashed { out, hasher: Hasher::like(diff_id) };
    let mut pieces = Pieces::new(outline).map_err(RebuildError::Outline)?;
    let mut buffer = vec![0; 256 << 10];
    while let Some(piece) = pieces.next().map_err(RebuildError::Outline)? {
        match piece {
            Piece::Literal(bytes) => out.write_all(&bytes).map_err(RebuildError::Write)?,
            Piece::Contents { path, runs } => {
                let failed = |source| RebuildError::File { path: show(&path), source };
                let file = open(root, &path).map_err(failed)?;
                for run in runs {
                    copy(&file, run, &mut buffer, &mut out, &path)?;
                }
            }
        }
    }
    let actual = out.hasher.finish();
    if actual == *diff_id { Ok(()) } else { Err(RebuildError::Digest { actual }) }
}

/// Opens a regular file of the layer. Links in the path are followed as the unpacking followed them: within the layer.
fn open(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<std::fs::File> {
    // A FIFO in its place must not hold anybody up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOATIME;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |flags| fs::openat2(root, path, flags, Mode::empty(), resolve);
    // Only the owner may leave the access time alone, which in a user namespace is not always who reads.
    let file = open(flags).or_else(|_| open(flags - OFlags::NOATIME))?;
    match FileType::from_raw_mode(fs::fstat(file.as_fd())?.st_mode) {
        FileType::RegularFile => Ok(file.into()),
        _ => Err(io::Error::other("it is no file")),
    }
}

fn copy(
    file: &std::fs::File,
    (offset, length): Run,
    buffer: &mut [u8],
    out: &mut impl Write,
    path: &[u8],
) -> Result<(), RebuildError> {
    let failed = |source| RebuildError::File { path: show(path), source };
    let mut at = offset;
    let end = offset.saturating_add(length);
    while at < end {
        let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
        match std::os::unix::fs::FileExt::read_at(file, &mut buffer[..want], at) {
            Ok(0) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => {
                out.write_all(&buffer[..read]).map_err(RebuildError::Write)?;
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

struct Hashed<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use registry::make::sha256;
    use registry::tar::{Entry, archive};

    use super::*;
    use crate::config::Limits;
    use crate::unpack::{self, Expected, Options, Target};

    /// Unpacks an archive and makes it again.
    fn there_and_back(bytes: &[u8]) -> Result<(usize, Vec<u8>), RebuildError> {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(folder.path()).unwrap();
        let digest = Digest::parse(&sha256(bytes)).unwrap();
        let expected =
            Expected { blob: digest.clone(), size: bytes.len() as u64, diff_id: digest.clone(), file: None };
        let options = Options { limits: Limits::default(), user_xattr: false, for_copies: false };
        let unpacked = unpack::unpack(bytes, Target::Directory(root.as_fd()), &expected, &options).unwrap();
        let outline = unpacked.outline.unwrap();
        assert_eq!(outline.size, bytes.len() as u64);
        let mut out = Vec::new();
        rebuild(&outline.packed, root.as_fd(), &digest, &mut out)?;
        Ok((outline.packed.len(), out))
    }

    #[test]
    fn an_archive_is_made_again_byte_for_byte() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: files of several owners need root");
            return;
        }
        let mut bytes = archive(&[
            Entry::directory("etc/", 0o755),
            Entry::file("./etc/a", 0o4644, b"hello".to_vec()).owner(7, 8).xattr("user.x", b"y".to_vec()),
            Entry::symlink("lib", "etc"),
            Entry::file("lib/through-a-link", 0o600, vec![9; 70_000]),
            Entry::file("/absolute", 0o600, b"1".to_vec()),
            Entry::hard_link("b", "etc/a"),
            Entry::file("etc/.wh.gone", 0o644, Vec::new()),
            Entry::file("s", 0o644, b"abcdefgh".to_vec())
                .pax("GNU.sparse.map", b"0,4,100,4".to_vec())
                .pax("GNU.sparse.size", b"1000".to_vec()),
            Entry::file(&("d/".repeat(100) + "long"), 0o644, vec![1; 512]),
        ]);
        assert_eq!(there_and_back(&bytes).unwrap().1, bytes);
        // As GNU tar rounds to its record; and something odd behind the end.
        bytes.extend_from_slice(&[0; 10_240]);
        bytes.extend_from_slice(b"odd");
        assert_eq!(there_and_back(&bytes).unwrap().1, bytes);
        let without_end = &archive(&[Entry::file("a", 0o644, vec![5; 100])])[..612];
        assert_eq!(there_and_back(without_end).unwrap().1, without_end);
    }

    #[test]
    fn what_was_replaced_within_an_archive_is_noticed() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: files of several owners need root");
            return;
        }
        let twice = archive(&[
            Entry::file("a", 0o644, b"first".to_vec()),
            Entry::file("a", 0o644, b"other".to_vec()),
        ]);
        assert!(matches!(there_and_back(&twice), Err(RebuildError::Digest { .. })));
        let gone = archive(&[Entry::file("a", 0o644, b"first".to_vec()), Entry::symlink("a", "b")]);
        assert!(matches!(there_and_back(&gone), Err(RebuildError::File { .. })));
    }

    #[test]
    fn outlines_are_small() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: files of several owners need root");
            return;
        }
        let entries: Vec<Entry> = (0..5000)
            .map(|n| Entry::file(&format!("usr/share/d{}/file-{n}.txt", n / 50), 0o644, vec![b'x'; n % 97]))
            .collect();
        let (size, _) = there_and_back(&archive(&entries)).unwrap();
        assert!(size < 5000 * 30, "{size} bytes for 5000 files");
    }
}
