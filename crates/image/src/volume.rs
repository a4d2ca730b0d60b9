//! Volumes made of images: their layers, or a part of them, read-only in a container that has another image as its root.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::digest::ImageId;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountPropagationFlags;
use sys::mount::{Change, attribute};
use sys::root::Root;

use crate::rootfs::{RootFilesystems, RootfsError};
use crate::standing;

const NOTE: &str = "volume-";
/// Where the copies of a volume's layers are, if there are any.
const TREE: &str = "tree-";

/// What the rows of an owner's volumes begin with, which is what no owner's name does.
pub(crate) fn prefix(owner: &str) -> String {
    format!("{owner}@")
}

/// Whether a row is one of a volume.
pub(crate) fn is_one(row: &str) -> bool {
    row.contains('@')
}

/// What the note of a volume of this image is called.
pub(crate) fn note_name(image: &ImageId) -> String {
    format!("{NOTE}{}", image.digest().hex())
}

/// Whether a file is the note of a volume.
pub(crate) fn is_note(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(NOTE))
}

impl RootFilesystems {
    /// [`RootFilesystems::mount_labelled_volume`] without a label.
    ///
    /// # Errors
    /// As there.
    pub fn mount_volume(
        &self,
        owner: &str,
        image: &ImageId,
        path: &Path,
        id_map: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd, RootfsError> {
        self.mount_labelled_volume(owner, image, path, id_map, None)
    }

    /// Mounts `path` of an image read-only, attached nowhere; an empty path is all of it. The image's layers stay until the root file
    /// system of `owner` is removed, which is prepared already. Links in `path` do not lead out of the image. `id_map` is as for
    /// [`RootFilesystems::mount`], and everything in it has the SELinux label `label`.
    ///
    /// # Errors
    /// [`RootfsError::NoImage`] or [`RootfsError::NoPath`]; else what the disk or the kernel says.
    pub fn mount_labelled_volume(
        &self,
        owner: &str,
        image: &ImageId,
        path: &Path,
        id_map: Option<BorrowedFd<'_>>,
        label: Option<&str>,
    ) -> Result<OwnedFd, RootfsError> {
        let folder = self.folder().join(&self.get(owner)?.owner);
        let failed =
            |path: &Path, source| RootfsError::Io { owner: owner.to_owned(), path: path.to_owned(), source };
        let row = format!("{}{}", prefix(owner), image.digest().hex());
        let layers = match self.record(&row, image) {
            Err(RootfsError::Exists { .. }) => self.layers_of(&row)?,
            recorded => recorded?,
        };
        let described = self.describe(&row, image.clone(), &layers)?;
        standing::note(&folder, image, true, described.lowers()).map_err(|source| failed(&folder, source))?;
        let place = folder.join(format!("{TREE}{}", image.digest().hex()));
        let whole = self.mount_volume_lowers(&described, &place, id_map, label)?;
        let part = if path.as_os_str().is_empty() {
            Ok(whole)
        } else {
            part_of(&whole, path, &self.folder().join(owner))
        };
        let volume = part.map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                RootfsError::NoPath { image: image.clone(), path: path.to_owned() }
            }
            _ => failed(path, error),
        })?;
        let read_only = Change { set: attribute::RDONLY, ..Change::default() };
        sys::mount::set_attributes(volume.as_fd(), false, &read_only)
            .map_err(|source| failed(path, source))?;
        Ok(volume)
    }

    fn layers_of(&self, row: &str) -> Result<Vec<String>, RootfsError> {
        Ok(self.store().read(|connection| {
            connection
                .prepare_cached(
                    "SELECT layer FROM root_filesystem_layers WHERE container = ?1 ORDER BY position",
                )?
                .query_map([row], |row| row.get(0))?
                .collect()
        })?)
    }

    /// Records the volumes of an owner again, after the database was lost.
    pub(crate) fn adopt_volumes(&self, owner: &str) {
        for entry in std::fs::read_dir(self.folder().join(owner)).into_iter().flatten().flatten() {
            let note = is_note(&entry.file_name()).then(|| standing::image(&entry.path()));
            let Some(image) = note.flatten() else { continue };
            let row = format!("{}{}", prefix(owner), image.digest().hex());
            if let Err(error) = self.record(&row, &image) {
                tracing::warn!(container = owner, %error, "a volume made of an image cannot be recorded again");
            }
        }
    }
}

/// A mount of `path` in the detached mount `whole`. Only since Linux 6.15 a part of a mount that is attached nowhere can be had, so
/// that it is attached for a moment, at `place`, in a mount namespace that only one short-lived thread ever sees.
fn part_of(whole: &OwnedFd, path: &Path, place: &Path) -> io::Result<OwnedFd> {
    let place: PathBuf = place.to_owned();
    std::thread::scope(|scope| {
        let part = move || {
            sys::namespace::leave(sys::namespace::kind::MOUNT)?;
            let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
            rustix::mount::mount_change("/", private)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let place = rustix::fs::open(place, flags, Mode::empty())?;
            sys::mount::attach(whole.as_fd(), place.as_fd())?;
            let found = Root::from_fd(whole.try_clone()?).open_at(path, OFlags::PATH, Mode::empty())?;
            match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                FileType::Directory | FileType::RegularFile => sys::mount::clone_mount(found.as_fd(), false),
                _ => Err(Errno::NOENT.into()),
            }
        };
        let thread = std::thread::Builder::new().name("volume".into()).spawn_scoped(scope, part)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}
