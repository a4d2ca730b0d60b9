//! What of an archive must wait on the disk until the archive has said what it is for: files named by their own digest, in a folder that
//! goes with the load.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use distribution::Hasher;
use model::digest::Digest;

use super::{Contents, LoadError};
use crate::error::PullCause;
use crate::manifest::LayerSource;
use crate::tree;

const FOLDER: &str = "spool";

/// The folder of one load.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// Bytes that may still come.
    left: u64,
}

impl Spool {
    pub(super) fn new(root: &Path, most: u64) -> Result<Spool, LoadError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(FOLDER).join(format!("{}-{number}", std::process::id()));
        let made = std::fs::create_dir_all(&path);
        made.map_err(|error| PullCause::io(&path, error))?;
        Ok(Spool { path, left: most })
    }

    /// Writes a file, and gives its digest and its size.
    pub(super) fn put(&mut self, like: &Digest, mut from: impl Read) -> Result<(Digest, u64), LoadError> {
        let path = self.path.join("coming");
        let failed = |error| LoadError::Failed(PullCause::io(&path, error));
        let mut file = File::create(&path).map_err(failed)?;
        let mut hasher = Hasher::like(like);
        let (mut size, mut buffer) = (0, vec![0; 256 << 10]);
        loop {
            let read = from.read(&mut buffer).map_err(LoadError::Stream)?;
            if read == 0 {
                break;
            }
            self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
                LoadError::Failed(PullCause::TooLarge {
                    what: "what has to be kept of the archive until its end".into(),
                    limit: size,
                    unit: "bytes",
                })
            })?;
            hasher.update(&buffer[..read]);
            file.write_all(&buffer[..read]).map_err(failed)?;
            size += read as u64;
        }
        let digest = hasher.finish();
        std::fs::rename(&path, self.place(&digest)).map_err(failed)?;
        Ok((digest, size))
    }

    /// An empty file without a name, for what may have to be read a second time.
    pub(super) fn scratch(&self) -> io::Result<File> {
        let path = self.path.join("again");
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.path.join(digest.hex())
    }

    fn open(&self, digest: &Digest) -> Result<Option<File>, LoadError> {
        let path = self.place(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PullCause::io(&path, error).into()),
        }
    }
}

impl Contents for Spool {
    /// It was checked when it came.
    fn document(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
        let Some(file) = self.open(digest)? else { return Ok(None) };
        let mut body = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut body);
        read.map_err(|error| PullCause::io(&self.place(digest), error))?;
        if body.len() as u64 > limit {
            return Err(PullCause::TooLarge { what: digest.to_string(), limit, unit: "bytes" }.into());
        }
        Ok(Some(body))
    }

    fn layer<'a>(&'a self, source: &LayerSource) -> Result<Box<dyn Read + Send + 'a>, LoadError> {
        let digest = &source.blob.digest;
        let missing =
            || LoadError::Missing { what: "an image of the archive".into(), digest: digest.clone() };
        Ok(Box::new(self.open(digest)?.ok_or_else(missing)?))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes what a killed process left.
pub(crate) fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root.join(FOLDER)).into_iter().flatten().flatten() {
        remove(&entry.path());
    }
}

fn remove(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name));
    if let (Ok(parent), Ok(name)) = (File::open(parent), name)
        && let Err(error) = tree::remove(parent.as_fd(), &name)
    {
        tracing::warn!(path = %path.display(), %error, "cannot be removed; it is tried again at the next start");
    }
}
