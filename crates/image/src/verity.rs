//! Layers that are files, checked by the kernel whenever it reads of them, where the file system has fs-verity: bytes that rot on the disk
//! become errors instead of other programs.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::form::Form;

/// Whether it is worth trying.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verity {
    impossible: Arc<AtomicBool>,
}

impl Verity {
    /// Hands those of these layers over that are files, in the background: it reads each of them once more, from memory as a rule, and
    /// nobody waits for it. What is killed meanwhile is done by the next start.
    pub(crate) fn take_over(&self, layers: impl IntoIterator<Item = PathBuf>) {
        if self.impossible.load(Ordering::Relaxed) {
            return;
        }
        let files: Vec<PathBuf> = layers.into_iter().filter(|path| Form::of(path) == Form::Erofs).collect();
        if files.is_empty() {
            return;
        }
        let verity = self.clone();
        let work = move || files.iter().for_each(|path| verity.enable(path));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(work)),
            Err(_) => drop(std::thread::Builder::new().name("verity".into()).spawn(work)),
        }
    }

    fn enable(&self, path: &Path) {
        if self.impossible.load(Ordering::Relaxed) {
            return;
        }
        match enable(path) {
            Ok(()) => {}
            Err(error) if sys::verity::is_unsupported(&error) => {
                tracing::debug!(path = %path.display(), %error, "the file system has no fs-verity; layers have their checksums");
                self.impossible.store(true, Ordering::Relaxed);
            }
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the kernel does not check this layer when it reads it; it has its checksum");
            }
        }
    }
}

fn enable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match sys::verity::digest(file.as_fd())? {
        Some(_) => Ok(()),
        None => sys::verity::enable(file.as_fd()),
    }
}
