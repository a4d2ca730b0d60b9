//! The entries of an archive become files, by few system calls each: a small file costs openat, write, utimensat and close.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::dirs::{Dir, Dirs, c_name, clean, is_whiteout, join};
use super::{LooseEnds, Options, UnpackError, attributes, decompress, xattrs};
use crate::checksum::{self, Body, Content, Source, Sum};
use crate::form::WRITEBACK;
use crate::tar::outline::Recorder;
use crate::tar::{Entry, Kind, Reader};
use crate::tree;

const BUFFER: usize = 256 << 10;
const PAGE: u64 = 4096;
/// Files smaller than this wait for the sync.
const WRITEBACK_LEAST: u64 = 512 << 10;
const SET_GROUP: u32 = 0o2000;
pub(super) const WHITEOUT: &[u8] = b".wh.";
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

pub(super) struct Extracted {
    /// Of the archive up to its end, without what follows.
    pub recorder: Option<Recorder>,
    pub bytes: u64,
    pub inodes: u64,
    pub loose_ends: LooseEnds,
    /// What all of it is, once it is on disk.
    pub checksum: Option<String>,
}

/// Unpacks a whole archive into an empty directory.
pub(super) fn extract<R: Read>(
    archive: &mut decompress::Archive<R>,
    root: OwnedFd,
    options: &Options,
) -> Result<Extracted, UnpackError> {
    let mut extractor = Extractor {
        dirs: Dirs::new(root, options),
        umask: umask(),
        buffer: vec![0; BUFFER],
        last: BTreeMap::new(),
        links: BTreeMap::new(),
        has_root: false,
        sum: Sum::default(),
        retraced: false,
        bytes: PAGE,
        inodes: 1,
        logical_bytes: 0,
        limit: options.limits.layer_bytes,
    };
    let recorder = each_entry(archive, options, |entry, reader| extractor.entry(entry, reader))?;
    Ok(Extracted { recorder, ..extractor.finish()? })
}

/// Calls `take` with every entry of an archive, up to as many as one may have, and gives what was recorded of it.
pub(super) fn each_entry<R: Read>(
    archive: &mut decompress::Archive<R>,
    options: &Options,
    mut take: impl FnMut(Entry, &mut Reader<&mut decompress::Archive<R>>) -> Result<(), UnpackError>,
) -> Result<Option<Recorder>, UnpackError> {
    let mut reader = Reader::recorded(&mut *archive, Recorder::new());
    let mut entries = 0;
    let result = loop {
        match reader.next() {
            Ok(None) => break Ok(()),
            Ok(Some(entry)) => {
                entries += 1;
                if entries > options.limits.entries {
                    break Err(UnpackError::TooManyEntries(options.limits.entries));
                }
                match take(entry, &mut reader) {
                    Err(UnpackError::Archive { why, .. }) => {
                        break Err(UnpackError::Archive { why, entries });
                    }
                    Err(error) => break Err(error),
                    Ok(()) => {}
                }
            }
            Err(why) => break Err(UnpackError::Archive { why, entries }),
        }
    };
    if let Err(error) = result {
        // The reader knows only that a read failed; the stream knows why.
        let from_reading = matches!(error, UnpackError::Archive { .. });
        return Err(if from_reading { archive.reason().unwrap_or(error) } else { error });
    }
    Ok(reader.into_recorder())
}

struct Extractor {
    dirs: Dirs,
    umask: u32,
    buffer: Vec<u8>,
    /// What directories get at the end.
    last: BTreeMap<Vec<u8>, Last>,
    /// Hard links whose targets must be below, by their place in the archive.
    links: BTreeMap<Vec<u8>, (usize, Vec<u8>)>,
    has_root: bool,
    /// Over what was made so far, except directories, which are done when they are.
    sum: Sum,
    /// Something that was made has gone again, so that the sum is not that of what is there.
    retraced: bool,
    bytes: u64,
    inodes: u64,
    logical_bytes: u64,
    limit: u64,
}

/// What a directory gets at the end, since it would change with what is made in it, or change that.
#[derive(Default)]
struct Last {
    mtime: (i64, u32),
    /// With the bit that gives what is made in it its group.
    mode: Option<u32>,
    /// The list that what is made in it would get.
    acl: Option<Vec<u8>>,
}

impl Extractor {
    fn entry<R: Read>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<(), UnpackError> {
        let path = entry.path.clone();
        let names = clean(&path)?;
        let Some((&name, parents)) = names.split_last() else { return self.root_entry(&entry) };
        if let Some(removed) = name.strip_prefix(WHITEOUT) {
            return self.whiteout(name, removed, parents, &entry);
        }
        let parent = self.dirs.make(parents, &path)?;
        let own = join(&parent.path, name);
        if !self.links.is_empty() {
            self.links.remove(&own);
        }
        let c_name = c_name(name)?;
        match entry.kind {
            Kind::File => self.file(&parent, &c_name, &own, &entry, reader),
            Kind::Directory => self.directory(&parent, &c_name, own, &entry),
            Kind::HardLink => self.hard_link(&parent, &c_name, own, &entry),
            Kind::Symlink => self.symlink(&parent, &c_name, &own, &entry),
            Kind::Character | Kind::Block | Kind::Fifo => self.node(&parent, &c_name, &own, &entry),
        }
    }

    fn root_entry(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::entry(&entry.path, "is the root, but no directory"));
        }
        self.has_root = true;
        let now = self.postpone(Vec::new(), entry)?;
        attributes::clear(self.dirs.root()).map_err(|error| UnpackError::io(&entry.path, error))?;
        // u32::MAX is no mode, so that it is always set.
        attributes::apply(self.dirs.root(), &now, u32::MAX)
    }

    /// Keeps for the end what belongs there, and gives the rest.
    fn postpone<'a>(&mut self, path: Vec<u8>, entry: &'a Entry) -> Result<Cow<'a, Entry>, UnpackError> {
        let mut now = Cow::Borrowed(entry);
        let mut last = Last { mtime: entry.mtime, ..Last::default() };
        if entry.mode & SET_GROUP != 0 {
            last.mode = Some(xattrs::as_stored(entry)?.0);
            now.to_mut().mode &= !SET_GROUP;
        }
        if let Some(place) = entry.xattrs.iter().position(|(name, _)| name == xattrs::ACL_DEFAULT) {
            xattrs::kept(entry)?;
            last.acl = Some(now.to_mut().xattrs.remove(place).1);
        }
        self.last.insert(path, last);
        Ok(now)
    }

    fn file<R: Read>(
        &mut self,
        parent: &Dir,
        name: &CString,
        own: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), UnpackError> {
        // Holes cost nothing on disk, but what reads the file later pays for them.
        self.logical_bytes = self.logical_bytes.saturating_add(entry.size);
        if self.logical_bytes > self.limit {
            return Err(UnpackError::TooLarge(self.limit));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = entry.mode & 0o777;
        let open = || fs::openat(&*parent.fd, name, flags, Mode::from_raw_mode(mode));
        let file = self.make(parent, name, entry, open)?;
        let (stored, content) = match &entry.parts {
            None => self.whole(&file, entry, reader)?,
            Some(parts) => self.sparse(&file, entry, parts, reader)?,
        };
        attributes::apply(file.as_fd(), entry, mode & !self.umask)?;
        fs::futimens(&file, &attributes::times(entry.mtime)).map_err(|e| UnpackError::io(&entry.path, e))?;
        let stat = fs::fstat(&file).map_err(|e| UnpackError::io(&entry.path, e))?;
        self.sum.add(own, &stat, Body::Content(content));
        self.inodes += 1;
        self.bytes += stored.next_multiple_of(PAGE);
        Ok(())
    }

    fn whole<R: Read>(
        &mut self,
        file: &OwnedFd,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(u64, u128), UnpackError> {
        let mut content = Content::new();
        let (mut written, mut under_way) = (0, 0);
        while written < entry.size {
            let filled = self.fill(reader, entry.size - written)?;
            write_all(file, &self.buffer[..filled], written, &entry.path)?;
            content.update(&self.buffer[..filled]);
            written += filled as u64;
            if written - under_way >= WRITEBACK || (written == entry.size && written >= WRITEBACK_LEAST) {
                sys::file::begin_writeback(file.as_fd(), under_way, written - under_way);
                under_way = written;
            }
        }
        Ok((written, content.finish()))
    }

    fn sparse<R: Read>(
        &mut self,
        file: &OwnedFd,
        entry: &Entry,
        parts: &[(u64, u64)],
        reader: &mut Reader<R>,
    ) -> Result<(u64, u128), UnpackError> {
        fs::ftruncate(file, entry.size).map_err(|e| UnpackError::io(&entry.path, e))?;
        let mut content = Content::new();
        let mut stored = 0;
        for &(offset, length) in parts {
            let mut written = 0;
            self.retraced |= !content.hole_to(offset);
            while written < length {
                let filled = self.fill(reader, length - written)?;
                write_all(file, &self.buffer[..filled], offset + written, &entry.path)?;
                content.update(&self.buffer[..filled]);
                written += filled as u64;
            }
            stored += length;
        }
        self.retraced |= !content.hole_to(entry.size);
        Ok((stored, content.finish()))
    }

    /// Fills the buffer with up to `want` bytes, so that a write is large whatever pieces the decoder gives.
    fn fill<R: Read>(&mut self, reader: &mut Reader<R>, want: u64) -> Result<usize, UnpackError> {
        let want = BUFFER.min(usize::try_from(want).unwrap_or(BUFFER));
        let mut filled = 0;
        while filled < want {
            match reader.read_data(&mut self.buffer[filled..want]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(why) => return Err(UnpackError::reading(why)),
            }
        }
        if filled == 0 {
            return Err(UnpackError::reading(crate::tar::TarError::Truncated));
        }
        Ok(filled)
    }

    fn directory(
        &mut self,
        parent: &Dir,
        name: &CString,
        path: Vec<u8>,
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let failed = |error: Errno| UnpackError::io(&entry.path, error);
        let now = self.postpone(path.clone(), entry)?;
        let mode = now.mode & 0o777;
        let mut made = true;
        let mut hides_lower = false;
        match fs::mkdirat(&*parent.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => self.inodes += 1,
            Err(Errno::EXIST) => {
                let stat = fs::statat(&*parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    made = false;
                } else {
                    // What was here had removed or replaced whatever the layers below have, and so it stays.
                    self.remove(parent, name, &entry.path)?;
                    fs::mkdirat(&*parent.fd, name, Mode::from_raw_mode(mode)).map_err(failed)?;
                    hides_lower = true;
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&*parent.fd, name, flags, Mode::empty()).map_err(failed)?;
        if made {
            attributes::apply(fd.as_fd(), &now, mode & !self.umask)?;
        } else {
            attributes::clear(fd.as_fd()).map_err(failed)?;
            fs::fchown(&fd, Some(fs::Uid::ROOT), Some(fs::Gid::ROOT)).map_err(failed)?;
            attributes::apply(fd.as_fd(), &now, u32::MAX)?;
        }
        if hides_lower {
            self.dirs.set_opaque(fd.as_fd(), &entry.path)?;
        }
        self.dirs.explain(&path);
        self.dirs.keep(&Dir { fd: Rc::new(fd), path: Rc::from(path.as_slice()) });
        self.bytes += if made { PAGE } else { 0 };
        Ok(())
    }

    fn symlink(
        &mut self,
        parent: &Dir,
        name: &CString,
        own: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.len() >= 4096 || entry.link.contains(&0) {
            return Err(UnpackError::entry(&entry.path, "is a symbolic link to something that is no path"));
        }
        let target = OsStr::from_bytes(&entry.link);
        self.make(parent, name, entry, || fs::symlinkat(target, &*parent.fd, name))?;
        self.inodes += 1;
        attributes::apply_at(parent.fd.as_fd(), name, entry, true)?;
        self.add(parent, name, own, Body::Link(&entry.link))
    }

    fn node(&mut self, parent: &Dir, name: &CString, own: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let (major, minor) = entry.device;
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(UnpackError::entry(&entry.path, "is a device with a number out of range"));
        }
        let kind = match entry.kind {
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let (mode, device) = (Mode::from_raw_mode(entry.mode & 0o777), fs::makedev(major, minor));
        self.make(parent, name, entry, || fs::mknodat(&*parent.fd, name, kind, mode, device))?;
        self.inodes += 1;
        attributes::apply_at(parent.fd.as_fd(), name, entry, false)?;
        self.add(parent, name, own, Body::None)
    }

    /// Adds what was just made to the sum.
    fn add(&mut self, parent: &Dir, name: &CString, own: &[u8], body: Body<'_>) -> Result<(), UnpackError> {
        let stat = fs::statat(&*parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| UnpackError::io(own, error))?;
        self.sum.add(own, &stat, body);
        Ok(())
    }

    /// Adds one more name of something. Its content is read again: it is in memory as a rule, and names like this are few.
    fn add_link(&mut self, parent: &Dir, name: &CString, own: &[u8]) -> Result<(), UnpackError> {
        let failed = |error: std::io::Error| UnpackError::io(own, error);
        let stat = fs::statat(&*parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| UnpackError::io(own, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                // Not to wait for a FIFO, should one stand there now.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let file = fs::openat(&*parent.fd, name, flags, Mode::empty())
                    .map_err(|error| UnpackError::io(own, error))?;
                let content = checksum::content(&file, &stat, Source::Memory, &mut self.buffer);
                self.sum.add(own, &stat, Body::Content(content.map_err(failed)?));
            }
            FileType::Symlink => {
                let target = fs::readlinkat(&*parent.fd, name, Vec::new())
                    .map_err(|error| UnpackError::io(own, error))?;
                self.sum.add(own, &stat, Body::Link(target.as_bytes()));
            }
            _ => self.sum.add(own, &stat, Body::None),
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &Dir,
        name: &CString,
        own: Vec<u8>,
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let failed = |error: Errno| UnpackError::io(&entry.path, error);
        let names = clean(&entry.link)?;
        let Some((&target_name, target_parents)) = names.split_last() else {
            return Err(UnpackError::entry(&entry.path, "is a hard link to the root"));
        };
        let target_parent = self.dirs.look(target_parents, &entry.path)?;
        let found = match &target_parent {
            None => None,
            Some(dir) => match fs::statat(&*dir.fd, &c_name(target_name)?, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some((dir, stat)),
                Err(Errno::NOENT) => None,
                Err(error) => return Err(failed(error)),
            },
        };
        let Some((dir, stat)) = found.filter(|(_, stat)| !is_whiteout(stat)) else {
            // A layer below may have it. Nothing stands here until that is known.
            let target = match target_parent {
                Some(dir) => join(&dir.path, target_name),
                None => names.join(&b'/'),
            };
            self.remove_if_there(parent, name, &entry.path)?;
            let place = self.links.len();
            self.links.insert(own, (place, target));
            return Ok(());
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(UnpackError::entry(&entry.path, "is a hard link to a directory"));
        }
        let target_name = c_name(target_name)?;
        // Without AT_SYMLINK_FOLLOW a link is linked itself.
        let link = || fs::linkat(&*dir.fd, &target_name, &*parent.fd, name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                let here = fs::statat(&*parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                if here.st_ino == stat.st_ino {
                    return Ok(());
                }
                self.remove(parent, name, &entry.path)?;
                link().map_err(failed)?;
            }
            done => done.map_err(failed)?,
        }
        self.add_link(parent, name, &own)
    }

    fn whiteout(
        &mut self,
        name: &[u8],
        removed: &[u8],
        parents: &[&[u8]],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let failed = |error: Errno| UnpackError::io(&entry.path, error);
        if name == OPAQUE {
            let parent = self.dirs.make(parents, &entry.path)?;
            return self.dirs.set_opaque(parent.fd.as_fd(), &entry.path);
        }
        if removed.starts_with(WHITEOUT) {
            // Records of aufs, which mean nothing here.
            return Ok(());
        }
        if matches!(removed, b"" | b"." | b"..") {
            return Err(UnpackError::entry(&entry.path, "is a whiteout of nothing"));
        }
        let parent = self.dirs.make(parents, &entry.path)?;
        let own = join(&parent.path, removed);
        let name = c_name(removed)?;
        match self.dirs.mark_gone(&parent, &name) {
            Ok(()) => {
                self.inodes += 1;
                self.add(&parent, &name, &own, Body::None)
            }
            // It is for the layers below: what this layer brings itself stays, and hides what is below.
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match fs::openat(&*parent.fd, &name, flags, Mode::empty()) {
                    Ok(fd) => self.dirs.set_opaque(fd.as_fd(), &entry.path),
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(error) => Err(failed(error)),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes something; if its name is taken, what is there goes first: of two entries the last counts.
    fn make<T>(
        &mut self,
        parent: &Dir,
        name: &CString,
        entry: &Entry,
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        match make() {
            Err(Errno::EXIST) => {
                self.remove(parent, name, &entry.path)?;
                make().map_err(|error| UnpackError::io(&entry.path, error))
            }
            done => done.map_err(|error| UnpackError::io(&entry.path, error)),
        }
    }

    fn remove_if_there(&mut self, parent: &Dir, name: &CString, entry: &[u8]) -> Result<(), UnpackError> {
        match fs::statat(&*parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            _ => self.remove(parent, name, entry),
        }
    }

    fn remove(&mut self, parent: &Dir, name: &CString, entry: &[u8]) -> Result<(), UnpackError> {
        self.dirs.forget();
        self.retraced = true;
        let (path, parent) = (Rc::clone(&parent.path), parent.fd.as_fd());
        match fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                let own = join(&path, name.to_bytes());
                self.last.retain(|known, _| {
                    !known
                        .strip_prefix(&own[..])
                        .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
                });
                tree::remove(parent, name).map_err(|error| UnpackError::io(entry, error))
            }
            done => done.map_err(|error| UnpackError::io(entry, error)),
        }
    }

    fn finish(mut self) -> Result<Extracted, UnpackError> {
        for (path, last) in std::mem::take(&mut self.last) {
            let names: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|name| !name.is_empty()).collect();
            // It may have been replaced by something else since.
            if let Ok(Some(dir)) = self.dirs.look(&names, &path)
                && *dir.path == path
            {
                let failed = |error: Errno| UnpackError::io(&path, error);
                attributes::apply_last(dir.fd.as_fd(), last.mode, last.acl.as_deref(), last.mtime)
                    .map_err(failed)?;
                self.sum.add(&path, &fs::fstat(&*dir.fd).map_err(failed)?, Body::None);
            }
        }
        let mut links: Vec<_> = self.links.into_iter().collect();
        links.sort_by_key(|(_, (place, _))| *place);
        let made = self.dirs.made;
        let retraced = self.retraced || self.dirs.retraced;
        let mut implied = Vec::new();
        let root = self.dirs.root().try_clone_to_owned().map_err(|e| UnpackError::io(b".", e))?;
        for path in self.dirs.into_implied() {
            if tree::is_directory(root.as_fd(), &path) {
                implied.push(path);
            }
        }
        let loose_ends = LooseEnds {
            links: links.into_iter().map(|(own, (_, target))| (own, target)).collect(),
            implied,
            has_root: self.has_root,
        };
        let sum = if retraced {
            checksum::of_tree(&root, &loose_ends, Source::Memory).ok()
        } else {
            Some(self.sum)
        };
        let (bytes, inodes) = (self.bytes + made * PAGE, self.inodes + made);
        let checksum = sum.map(|sum| sum.to_string());
        Ok(Extracted { recorder: None, bytes, inodes, loose_ends, checksum })
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64, path: &[u8]) -> Result<(), UnpackError> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(UnpackError::entry(path, "could not be written")),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(UnpackError::io(path, error)),
        }
    }
    Ok(())
}

/// The umask of this process. It is read and not set, since it belongs to every thread.
fn umask() -> u32 {
    let known = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        u32::from_str_radix(line.trim(), 8).ok()
    });
    // Unknown: taken for one that clears everything, so that every mode is set.
    known.unwrap_or(0o777)
}
