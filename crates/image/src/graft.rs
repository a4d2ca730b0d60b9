//! What a layer means only above its parents. A layer is unpacked on its own, once for all images; where its archive leans on what is
//! below it, a small extra layer is stacked on top of it in that one chain:
//!
//! * a hard link to a file of a lower layer becomes a copy of the file with both names,
//! * a directory that the archive has things in but no entry for gets the mode and owner that it has below,
//! * and if it is a symbolic link below, the link stays and the things go where it leads.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sys::root::Root;

use crate::copy::{copy_any, copy_owner};
use crate::overlay::Lower;
use crate::unpack::{LooseEnds, UnpackError, copy_directory, is_implied, show};

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const ALONE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A layer above its parents.
pub(crate) struct Above<'a> {
    /// What the layers below look like together.
    pub below: OwnedFd,
    pub layer: Lower,
    pub loose_ends: &'a LooseEnds,
    pub user_xattr: bool,
}

/// Fills `into`, an empty directory, with what has to be stacked on top of the layer, and says whether that is anything.
///
/// # Errors
/// [`UnpackError::LinkTarget`] if a link's target is not below either; else what the disk says.
pub(crate) fn graft(above: Above<'_>, into: &File) -> Result<bool, UnpackError> {
    let failed = |error: io::Error| UnpackError::io(b".", error);
    let mut graft = Graft {
        below: Root::from_fd(above.below),
        layer: above.layer.open().map_err(failed)?,
        top: into.as_fd(),
        implied: above.loose_ends.implied.iter().cloned().collect(),
        moved: Vec::new(),
        copied: HashMap::new(),
        opaque: opaque_mark(above.user_xattr),
        any: false,
    };
    for path in &above.loose_ends.implied {
        graft.directory(path).map_err(|error| UnpackError::io(path, error))?;
    }
    for (own, target) in &above.loose_ends.links {
        let found = graft.link(own, target).map_err(|error| UnpackError::io(own, error))?;
        if !found {
            return Err(UnpackError::LinkTarget { path: show(own), target: show(target) });
        }
    }
    Ok(graft.any)
}

struct Graft<'a> {
    below: Root,
    layer: OwnedFd,
    top: BorrowedFd<'a>,
    implied: BTreeSet<Vec<u8>>,
    /// Directories of the layer that are links below: where they are, and where they lead.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    /// Files of the layer with several names that were copied, by inode, with the first of the copies.
    copied: HashMap<(u64, u64), Vec<u8>>,
    opaque: &'static str,
    any: bool,
}

impl Graft<'_> {
    /// A directory without an entry of its own.
    fn directory(&mut self, path: &[u8]) -> io::Result<()> {
        // Within a directory that is moved it was moved along.
        if self.is_hidden(path) || self.destination(path) != path {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let below = match self.below.open_at(as_path(path), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        match FileType::from_raw_mode(fs::fstat(&below)?.st_mode) {
            FileType::Directory => {
                let below = fs::openat(&below, c".", OPEN, Mode::empty())?;
                if !is_implied(&below)? {
                    self.make(path)?;
                }
                Ok(())
            }
            FileType::Symlink => self.move_along(path, &below),
            _ => Ok(()),
        }
    }

    /// Things go where the link below leads. A link that leads nowhere is replaced by the layer's directory.
    fn move_along(&mut self, path: &[u8], link: &OwnedFd) -> io::Result<()> {
        let Ok(directory) = self.below.directory(as_path(path)) else { return Ok(()) };
        let to = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        let to = to.as_os_str().as_bytes().trim_ascii_start();
        let to = to.strip_prefix(b"/").unwrap_or(to).to_vec();
        if to == path || to.starts_with(&[path, b"/"].concat()) || self.is_hidden(&to) {
            return Ok(());
        }
        let from = self.open_layer(path)?;
        self.moved.push((path.to_vec(), to.clone()));
        self.fill(&from, path, &to)?;
        let (parent, name) = self.parent(path)?;
        let target = fs::readlinkat(link, c"", Vec::new())?;
        fs::symlinkat(&target, &parent, name)?;
        copy_owner(&fs::fstat(link)?, &parent, name)?;
        self.any = true;
        Ok(())
    }

    /// The contents of the layer's directory `path`, as further names of the same files, below `to`.
    fn fill(&mut self, from: &OwnedFd, path: &[u8], to: &[u8]) -> io::Result<()> {
        for entry in fs::Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let (old, new) = (join(path, name.to_bytes()), join(to, name.to_bytes()));
            let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let (parent, _) = self.parent(&new)?;
                match fs::linkat(from, name, &parent, name, AtFlags::empty()) {
                    // The layer is a file system of its own.
                    Err(Errno::XDEV) => self.copy_out(from, &stat, name, &parent, new)?,
                    done => done?,
                }
                continue;
            }
            let child = fs::openat(from, name, OPEN, Mode::empty())?;
            let made = self.make(&new)?;
            if !self.implied.contains(&old) {
                copy_directory(&child, &made)?;
            }
            if is_opaque(&child, self.opaque) {
                fs::fsetxattr(&made, self.opaque, b"y", fs::XattrFlags::empty())?;
            }
            self.fill(&child, &old, &new)?;
        }
        Ok(())
    }

    /// A copy of a file of the layer, which stays one file under all its names.
    fn copy_out(
        &mut self,
        from: &OwnedFd,
        stat: &fs::Stat,
        name: &CStr,
        parent: &OwnedFd,
        new: Vec<u8>,
    ) -> io::Result<()> {
        let inode = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.copied.get(&inode).cloned() {
            return self.link_within(&new, &first);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(from, name, flags, Mode::empty())?;
        copy_any(&file, stat, parent, name)?;
        if stat.st_nlink > 1 {
            self.copied.insert(inode, new);
        }
        Ok(())
    }

    /// A hard link to what is below; false if nothing is.
    fn link(&mut self, own: &[u8], target: &[u8]) -> io::Result<bool> {
        let (own, target) = (self.destination(own), self.destination(target));
        // Two links to the same file, or a link to a link, are one file.
        if self.exists(&target) {
            return self.link_within(&own, &target).map(|()| true);
        }
        if self.is_hidden(&target) {
            return Ok(false);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let below = match self.below.open_at(as_path(&target), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(error) if is_absent(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        let stat = fs::fstat(&below)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            return Ok(false);
        }
        let (parent, name) = self.parent(&own)?;
        copy_any(&below, &stat, &parent, name)?;
        self.any = true;
        // The other name too, so that they stay one file, unless this layer has removed or replaced what was there.
        let replaced =
            fs::openat2(&self.layer, target.as_slice(), flags | OFlags::CLOEXEC, Mode::empty(), ALONE)
                .is_ok();
        if !replaced && own != target {
            self.link_within(&target, &own)?;
        }
        Ok(true)
    }

    fn link_within(&mut self, new: &[u8], old: &[u8]) -> io::Result<()> {
        let (old_parent, old_name) = self.parent(old)?;
        let (new_parent, new_name) = self.parent(new)?;
        match fs::linkat(&old_parent, old_name, &new_parent, new_name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that is to hold `path`, made if need be, and the last name.
    fn parent<'b>(&mut self, path: &'b [u8]) -> io::Result<(OwnedFd, &'b OsStr)> {
        let (directory, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&b""[..], path),
        };
        Ok((self.make(directory)?, OsStr::from_bytes(name)))
    }

    /// A directory in the graft. It covers what is below, so that it has to look the same.
    fn make(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if path.is_empty() {
            return Ok(fs::openat(self.top, c".", OPEN, Mode::empty())?);
        }
        if let Ok(fd) = fs::openat2(self.top, path, OPEN, Mode::empty(), ALONE) {
            return Ok(fd);
        }
        let (parent, name) = self.parent(path)?;
        fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        self.any = true;
        let made = fs::openat(&parent, name, OPEN, Mode::empty())?;
        let own = if self.implied.contains(path) { None } else { self.open_layer(path).ok() };
        match own {
            Some(own) => copy_directory(&own, &made)?,
            None => match self.below.open_at(as_path(path), OPEN, Mode::empty()) {
                Ok(below) => copy_directory(&below, &made)?,
                Err(error) if is_absent(&error) => fs::fchmod(&made, Mode::from_raw_mode(0o755))?,
                Err(error) => return Err(error),
            },
        }
        Ok(made)
    }

    fn open_layer(&self, path: &[u8]) -> io::Result<OwnedFd> {
        Ok(fs::openat2(&self.layer, path, OPEN, Mode::empty(), ALONE)?)
    }

    fn exists(&self, path: &[u8]) -> bool {
        fs::openat2(self.top, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), ALONE)
            .is_ok()
    }

    /// Where something of the layer goes.
    fn destination(&self, path: &[u8]) -> Vec<u8> {
        for (from, to) in &self.moved {
            if let Some(rest) = path.strip_prefix(from.as_slice())
                && rest.starts_with(b"/")
            {
                return [to.as_slice(), rest].concat();
            }
        }
        path.to_vec()
    }

    /// Whether the layer hides what is below at `path`: by an opaque directory, or by something else than a directory on the way.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(fd) = fs::openat2(&self.layer, &path[..end], flags, Mode::empty(), ALONE) else {
                return false;
            };
            let Ok(stat) = fs::fstat(&fd) else { return true };
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return true;
            }
            match fs::openat(&fd, c".", OPEN, Mode::empty()) {
                Ok(directory) if !is_opaque(&directory, self.opaque) => {}
                _ => return true,
            }
        }
        false
    }
}

const USER_OPAQUE: &str = "user.overlay.opaque";

/// The attribute that says of a directory that it hides all that is below.
pub(crate) fn opaque_mark(user_xattr: bool) -> &'static str {
    if user_xattr { USER_OPAQUE } else { "trusted.overlay.opaque" }
}

/// No archive brings one of these attributes, so that either means it.
pub(crate) fn is_opaque(directory: &OwnedFd, name: &str) -> bool {
    let mut value = [0u8; 4];
    let mut has =
        |name: &str| matches!(fs::fgetxattr(directory, name, &mut value[..]), Ok(1) if value[0] == b'y');
    has(name) || (name != USER_OPAQUE && has(USER_OPAQUE))
}

fn is_absent(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(number, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn as_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
