//! The entries of an archive become one EROFS image. What they mean is the same as in [`super::extract`]; only where it goes is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

use erofs::{Attributes, Device, Directory, Found, Writer};
use rustix::io::Errno;

use super::dirs::{DEPTH_MAX, IMPLIED_MODE, LINKS_MAX, NAME_MAX, PATH_MAX, clean, join};
use super::extract::{Extracted, OPAQUE, WHITEOUT, each_entry};
use super::{LooseEnds, Options, UnpackError, decompress, xattrs};
use crate::form::LayerFile;
use crate::tar::{Entry, Kind, Reader, TarError};

/// Memory for the names of one layer: more than a million. A layer with more becomes a directory.
const MEMORY: usize = 64 << 20;
/// How many bytes of holes of a sparse file are written as zeros beside as many as it has data.
const HOLES: u64 = 16 << 20;

/// Packs a whole archive into an empty file. `uuid` is to tell it from other layers.
pub(super) fn pack<R: Read>(
    archive: &mut decompress::Archive<R>,
    file: File,
    uuid: [u8; 16],
    options: &Options,
) -> Result<Extracted, UnpackError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = (i64::try_from(now.as_secs()).unwrap_or(0), now.subsec_nanos());
    let root = Attributes { mode: IMPLIED_MODE, mtime: now, ..Attributes::default() };
    let mut packer = Packer {
        writer: Writer::new(LayerFile::new(file), erofs::Options { uuid, root, memory: MEMORY }),
        now,
        implied: BTreeSet::new(),
        links: BTreeMap::new(),
        has_root: false,
        logical_bytes: 0,
        limit: options.limits.layer_bytes,
    };
    let recorder = each_entry(archive, options, |entry, reader| packer.entry(&entry, reader))?;
    Ok(Extracted { recorder, ..packer.finish()? })
}

/// A directory and its true path: no links in it.
struct Dir {
    directory: Directory,
    path: Vec<u8>,
}

struct Packer {
    writer: Writer<LayerFile>,
    /// The time of what has no entry of its own.
    now: (i64, u32),
    /// Directories without an entry of their own.
    implied: BTreeSet<Vec<u8>>,
    /// Hard links whose targets must be below, by their place in the archive.
    links: BTreeMap<Vec<u8>, (usize, Vec<u8>)>,
    has_root: bool,
    logical_bytes: u64,
    limit: u64,
}

impl Packer {
    fn entry<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<(), UnpackError> {
        let names = clean(&entry.path)?;
        let Some((&name, parents)) = names.split_last() else { return self.root_entry(entry) };
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(name, removed, parents, entry);
        }
        let parent = self.make(parents, entry)?;
        let own = join(&parent.path, name);
        self.links.remove(&own);
        match entry.kind {
            Kind::File => self.file(&parent, name, entry, reader),
            Kind::Directory => self.directory(&parent, name, &own, entry),
            Kind::HardLink => self.hard_link(&parent, name, own, entry),
            Kind::Symlink => self.symlink(&parent, name, entry),
            Kind::Character | Kind::Block | Kind::Fifo => self.node(&parent, name, entry),
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::entry(&entry.path, "is the root, but no directory"));
        }
        self.has_root = true;
        self.describe(self.writer.root(), entry)
    }

    /// Gives a directory what its entry says, instead of what an earlier one said.
    fn describe(&mut self, directory: Directory, entry: &Entry) -> Result<(), UnpackError> {
        let attributes = attributes(entry)?;
        self.writer.set_attributes(directory, attributes).map_err(|error| refused(&entry.path, error))
    }

    fn file<R: Read>(
        &mut self,
        parent: &Dir,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        self.logical_bytes = self.logical_bytes.saturating_add(entry.size);
        if self.logical_bytes > self.limit {
            return Err(UnpackError::TooLarge(self.limit));
        }
        let whole = [(0, entry.size)];
        let parts: &[(u64, u64)] = entry.parts.as_deref().unwrap_or(&whole);
        let stored: u64 = parts.iter().map(|(_, length)| length).sum();
        if entry.size > stored.saturating_mul(2).saturating_add(HOLES) {
            return Err(UnpackError::Unsuited("it has a sparse file, whose holes would be stored".into()));
        }
        let failed = |error| refused(&entry.path, error);
        let attributes = attributes(entry)?;
        let mut file = self.writer.file(parent.directory, name, &attributes, entry.size).map_err(failed)?;
        let mut at = 0;
        let mut parts = parts.iter().copied().filter(|(_, length)| *length > 0).peekable();
        while let Some(room) = file.room().map_err(failed)? {
            let filled = match parts.peek_mut() {
                Some((offset, length)) if *offset == at => {
                    let most = usize::try_from(*length).unwrap_or(usize::MAX).min(room.len());
                    let read = reader.read_data(&mut room[..most]).map_err(UnpackError::reading)?;
                    if read == 0 {
                        return Err(UnpackError::reading(TarError::Truncated));
                    }
                    *offset += read as u64;
                    *length -= read as u64;
                    if *length == 0 {
                        parts.next();
                    }
                    read
                }
                // A hole; the room is zeros.
                next => {
                    let end = next.map_or(entry.size, |(offset, _)| *offset);
                    usize::try_from(end - at).unwrap_or(usize::MAX).min(room.len())
                }
            };
            at += filled as u64;
            file.filled(filled);
        }
        file.finish().map_err(failed)
    }

    fn directory(&mut self, parent: &Dir, name: &[u8], own: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let there = match self.writer.find(parent.directory, name) {
            Some(Found::Directory(directory)) => {
                self.implied.remove(own);
                return self.describe(directory, entry);
            }
            there => there.is_some(),
        };
        let made = self
            .writer
            .directory(parent.directory, name, attributes(entry)?)
            .map_err(|error| refused(&entry.path, error))?;
        if there {
            // What was here had removed or replaced whatever the layers below have, and so it stays.
            self.writer.set_opaque(made);
        }
        self.implied.remove(own);
        Ok(())
    }

    fn symlink(&mut self, parent: &Dir, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.len() >= 4096 || entry.link.contains(&0) {
            return Err(UnpackError::entry(&entry.path, "is a symbolic link to something that is no path"));
        }
        let attributes = attributes(entry)?;
        self.writer
            .symlink(parent.directory, name, &attributes, &entry.link)
            .map_err(|error| refused(&entry.path, error))
    }

    fn node(&mut self, parent: &Dir, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let (major, minor) = entry.device;
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(UnpackError::entry(&entry.path, "is a device with a number out of range"));
        }
        let device = match entry.kind {
            Kind::Block => Device::Block(major, minor),
            Kind::Fifo => Device::Fifo,
            _ => Device::Character(major, minor),
        };
        let attributes = attributes(entry)?;
        self.writer
            .device(parent.directory, name, &attributes, device)
            .map_err(|error| refused(&entry.path, error))
    }

    fn hard_link(
        &mut self,
        parent: &Dir,
        name: &[u8],
        own: Vec<u8>,
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let names = clean(&entry.link)?;
        let Some((&target_name, target_parents)) = names.split_last() else {
            return Err(UnpackError::entry(&entry.path, "is a hard link to the root"));
        };
        let target_parent = self.look(target_parents, entry)?;
        let found = target_parent.as_ref().and_then(|dir| self.writer.find(dir.directory, target_name));
        let Some(dir) = target_parent.as_ref().filter(|_| !matches!(found, None | Some(Found::Whiteout)))
        else {
            // A layer below may have it. Nothing stands here until that is known.
            let target = match target_parent {
                Some(dir) => join(&dir.path, target_name),
                None => names.join(&b'/'),
            };
            self.writer.remove(parent.directory, name);
            let place = self.links.len();
            self.links.insert(own, (place, target));
            return Ok(());
        };
        if matches!(found, Some(Found::Directory(_))) {
            return Err(UnpackError::entry(&entry.path, "is a hard link to a directory"));
        }
        if dir.path.starts_with(&own) && matches!(dir.path.get(own.len()), None | Some(b'/')) {
            // It takes the place of a directory that the target is in.
            return Err(UnpackError::io(&entry.path, Errno::NOENT));
        }
        self.writer
            .link((dir.directory, target_name), (parent.directory, name))
            .map(drop)
            .map_err(|error| refused(&entry.path, error))
    }

    fn whiteout(
        &mut self,
        name: &[u8],
        removed: &[u8],
        parents: &[&[u8]],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        if name == OPAQUE {
            let parent = self.make(parents, entry)?;
            self.writer.set_opaque(parent.directory);
            return Ok(());
        }
        if removed.starts_with(WHITEOUT) {
            // Records of aufs, which mean nothing here.
            return Ok(());
        }
        if matches!(removed, b"" | b"." | b"..") {
            return Err(UnpackError::entry(&entry.path, "is a whiteout of nothing"));
        }
        let parent = self.make(parents, entry)?;
        match self.writer.find(parent.directory, removed) {
            // It is for the layers below: what this layer brings itself stays, and hides what is below.
            Some(Found::Directory(directory)) => self.writer.set_opaque(directory),
            Some(_) => {}
            None => {
                let attributes = Attributes { mtime: self.now, ..Attributes::default() };
                self.writer
                    .device(parent.directory, removed, &attributes, Device::Character(0, 0))
                    .map_err(|error| refused(&entry.path, error))?;
            }
        }
        Ok(())
    }

    /// The directory that these names lead to; what is missing is made. Links lead on within the layer.
    fn make(&mut self, names: &[&[u8]], entry: &Entry) -> Result<Dir, UnpackError> {
        let found = self.walk(names, &entry.path, true)?;
        found.ok_or_else(|| UnpackError::entry(&entry.path, "has no directory to be in"))
    }

    /// The directory that these names lead to, if it is there.
    fn look(&mut self, names: &[&[u8]], entry: &Entry) -> Result<Option<Dir>, UnpackError> {
        self.walk(names, &entry.path, false)
    }

    fn walk(&mut self, names: &[&[u8]], entry: &[u8], make: bool) -> Result<Option<Dir>, UnpackError> {
        // From the root down, with the length of the path to each.
        let mut down = vec![(self.writer.root(), 0)];
        let mut path = Vec::new();
        let mut ahead: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                if down.len() > 1 {
                    down.pop();
                }
                path.truncate(down.last().map_or(0, |(_, length)| *length));
                continue;
            }
            if name.len() > NAME_MAX {
                return Err(UnpackError::io(entry, Errno::NAMETOOLONG));
            }
            let here = down.last().map_or(self.writer.root(), |(directory, _)| *directory);
            let next = match self.writer.find(here, &name) {
                Some(Found::Directory(directory)) => directory,
                Some(Found::Symlink(target)) => {
                    links += 1;
                    if links > LINKS_MAX || target.len() > PATH_MAX {
                        return Err(UnpackError::entry(entry, "is behind too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        down.truncate(1);
                        path.clear();
                    }
                    let parts = target.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b"."));
                    ahead.extend(parts.rev().map(<[u8]>::to_vec));
                    if ahead.len() > DEPTH_MAX {
                        return Err(UnpackError::entry(entry, "is behind links that grow without end"));
                    }
                    continue;
                }
                _ if !make => return Ok(None),
                None => self.imply(here, &name, join(&path, &name), entry)?,
                Some(Found::Whiteout) => {
                    // The layer removed what was here below, and now puts a directory of its own in its place.
                    let made = self.imply(here, &name, join(&path, &name), entry)?;
                    self.writer.set_opaque(made);
                    made
                }
                Some(Found::Other) => {
                    return Err(UnpackError::entry(entry, "is below something that is no directory"));
                }
            };
            path = join(&path, &name);
            down.push((next, path.len()));
        }
        let directory = down.last().map_or(self.writer.root(), |(directory, _)| *directory);
        Ok(Some(Dir { directory, path }))
    }

    /// A directory without an entry of its own.
    fn imply(
        &mut self,
        parent: Directory,
        name: &[u8],
        path: Vec<u8>,
        entry: &[u8],
    ) -> Result<Directory, UnpackError> {
        let attributes = Attributes { mode: IMPLIED_MODE, mtime: self.now, ..Attributes::default() };
        let made = self.writer.directory(parent, name, attributes).map_err(|error| refused(entry, error))?;
        self.implied.insert(path);
        Ok(made)
    }

    /// Whether a path is that of a directory. It was one once, so that its parts are names.
    fn is_directory(&self, path: &[u8]) -> bool {
        let mut here = self.writer.root();
        path.split(|&b| b == b'/').all(|name| match self.writer.find(here, name) {
            Some(Found::Directory(directory)) => {
                here = directory;
                true
            }
            _ => false,
        })
    }

    fn finish(mut self) -> Result<Extracted, UnpackError> {
        let implied = std::mem::take(&mut self.implied);
        let implied = implied.into_iter().filter(|path| self.is_directory(path)).collect();
        let mut links: Vec<_> = self.links.into_iter().collect();
        links.sort_by_key(|(_, (place, _))| *place);
        let finished = self.writer.finish().map_err(|error| refused(b".", error))?;
        let sealed = finished.output.seal(&finished.first_block);
        let (sum, bytes) = sealed.map_err(|error| UnpackError::io(b".", error))?;
        Ok(Extracted {
            recorder: None,
            bytes,
            inodes: 1,
            loose_ends: LooseEnds {
                links: links.into_iter().map(|(own, (_, target))| (own, target)).collect(),
                implied,
                has_root: self.has_root,
            },
            checksum: Some(sum.to_string()),
        })
    }
}

fn attributes(entry: &Entry) -> Result<Attributes, UnpackError> {
    let (mode, xattrs) = xattrs::as_stored(entry)?;
    Ok(Attributes { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs })
}

/// An error of the writer about an entry.
fn refused(path: &[u8], error: erofs::Error) -> UnpackError {
    match error {
        erofs::Error::Output(error) => UnpackError::io(path, error),
        erofs::Error::Attribute { .. } => UnpackError::entry(path, "has more extended attributes than fit"),
        erofs::Error::Name => UnpackError::io(path, io::Error::from(Errno::NAMETOOLONG)),
        other => UnpackError::Unsuited(other.to_string()),
    }
}
