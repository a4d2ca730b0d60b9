//! Packed blobs that are kept, below `blobs/`: each under its digest, published by one rename when it is whole and on disk.
//!
//! By default a layer's blob is let go as it is unpacked, and this folder stays empty. Where blobs are kept, they can be sent on as they
//! came, and a layer that was lost is restored without its registry. Nothing here counts as true before it was read through its digest again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::digest::Digest;

const PARTIAL: &str = ".partial-";

/// The folder of kept blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    folder: PathBuf,
    next: AtomicU64,
}

/// A kept blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub digest: Digest,
    pub bytes: u64,
    pub age: Duration,
}

/// A blob that is being written. Unless it is published, it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct NewBlob {
    file: File,
    path: PathBuf,
    place: PathBuf,
}

impl Blobs {
    /// Opens the folder below `root`, and removes what a killed process had not finished.
    pub(crate) fn open(root: &Path) -> io::Result<Blobs> {
        let folder = root.join("blobs");
        std::fs::create_dir_all(&folder)?;
        for entry in std::fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().contains(PARTIAL) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Blobs { folder, next: AtomicU64::new(1) })
    }

    /// A kept blob and its size in bytes; none if it is not here.
    pub(crate) fn get(&self, digest: &Digest) -> io::Result<Option<(File, u64)>> {
        match File::open(self.place(digest)) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some((file, size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to keep a blob. Several may write the same: the last one stays.
    pub(crate) fn create(&self, digest: &Digest) -> io::Result<NewBlob> {
        let place = self.place(digest);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{PARTIAL}{}-{number}", name_of(digest), std::process::id());
        let path = self.folder.join(name);
        Ok(NewBlob { file: File::create_new(&path)?, path, place })
    }

    /// All kept blobs.
    pub(crate) fn list(&self) -> io::Result<Vec<Kept>> {
        let mut blobs = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let digest =
                entry.file_name().to_str().and_then(|name| Digest::parse(&name.replacen('-', ":", 1)).ok());
            if let Some(digest) = digest {
                let about = entry.metadata()?;
                let age = about.modified()?.elapsed().unwrap_or_default();
                blobs.push(Kept { digest, bytes: about.len(), age });
            }
        }
        Ok(blobs)
    }

    /// Lets a kept blob go. Whoever reads it can go on. Absent is fine.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        match std::fs::remove_file(self.place(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.folder.join(name_of(digest))
    }
}

/// A digest's colon is no part of a good file name.
fn name_of(digest: &Digest) -> String {
    digest.as_str().replacen(':', "-", 1)
}

impl NewBlob {
    /// Makes it durable and visible. The caller has checked that it is what its digest says.
    pub(crate) fn publish(self) -> io::Result<()> {
        self.file.sync_data()?;
        std::fs::rename(&self.path, &self.place)?;
        let folder = self.place.parent().map(File::open).transpose()?;
        folder.map_or(Ok(()), |folder| folder.sync_all())
    }
}

impl Write for NewBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewBlob {
    fn drop(&mut self) {
        // After the rename there is nothing under this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A stream whose bytes are kept as they are read. Keeping is a courtesy: if it fails, the reading goes on without.
pub(crate) struct Keeping<R> {
    stream: R,
    kept: Result<NewBlob, io::Error>,
}

impl<R: Read> Keeping<R> {
    pub(crate) fn new(stream: R, blob: io::Result<NewBlob>) -> Keeping<R> {
        Keeping { stream, kept: blob }
    }

    /// What was kept.
    pub(crate) fn finish(self) -> io::Result<NewBlob> {
        self.kept
    }
}

impl<R: Read> Read for Keeping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if let Ok(blob) = &mut self.kept
            && let Err(error) = blob.write_all(&buffer[..read])
        {
            self.kept = Err(error);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::sha256([byte; 32])
    }

    #[test]
    fn a_blob_is_there_whole_or_not_at_all() {
        let root = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(root.path()).unwrap();
        let mut new = blobs.create(&digest(1)).unwrap();
        new.write_all(b"abc").unwrap();
        assert!(blobs.get(&digest(1)).unwrap().is_none());
        assert!(blobs.list().unwrap().is_empty());
        new.publish().unwrap();
        let (mut file, size) = blobs.get(&digest(1)).unwrap().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), size), ("abc", 3));
        let listed = blobs.list().unwrap();
        assert_eq!((listed.len(), &listed[0].digest, listed[0].bytes), (1, &digest(1), 3));
        drop(blobs.create(&digest(2)).unwrap());
        std::mem::forget(blobs.create(&digest(3)).unwrap());
        assert_eq!(std::fs::read_dir(root.path().join("blobs")).unwrap().count(), 2);
        let blobs = Blobs::open(root.path()).unwrap();
        assert_eq!(std::fs::read_dir(root.path().join("blobs")).unwrap().count(), 1);
        blobs.remove(&digest(1)).unwrap();
        blobs.remove(&digest(1)).unwrap();
        assert!(blobs.get(&digest(1)).unwrap().is_none());
    }

    #[test]
    fn reading_goes_on_where_keeping_fails() {
        let failed = Err(io::Error::from(io::ErrorKind::StorageFull));
        let mut keeping = Keeping::new(&b"abc"[..], failed);
        let mut bytes = Vec::new();
        keeping.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
        assert!(keeping.finish().is_err());
    }
}
