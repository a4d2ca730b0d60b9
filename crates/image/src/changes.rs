//! What a container wrote over its image, as an archive: taken out of a root file system, and put into a new one.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use model::digest::Digest;
use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::config::Limits;
use crate::rootfs::Rootfs;
use crate::tar::{Kind, Metadata, Writer};
use crate::unpack::{Expected, Options, Target, UnpackError, unpack};

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// No path is deeper; one descriptor is open for each level.
const DEEPEST: usize = 1024;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// How it is said that something of the image is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletions {
    /// By whiteouts in the archive, which then is a layer as images have them.
    Whiteouts,
    /// By a list beside the archive.
    Listed,
}

/// Writes an archive of what is in the folder, such as a pod's shared memory, that [`import_folder`] unpacks.
///
/// # Errors
/// What the file system or `sink` says.
pub fn export_folder(folder: &Path, sink: impl Write) -> io::Result<()> {
    export_tree(folder, None, false, sink).map(drop)
}

/// Unpacks an archive, which has this digest and size, into a folder.
///
/// # Errors
/// The archive is not what it should be, or what the file system says; a part of it may be there then.
pub fn import_folder(
    folder: &Path,
    archive: impl Read + Send,
    digest: &Digest,
    size: u64,
) -> Result<(), UnpackError> {
    import_tree(folder, archive, digest, size, false)
}

/// Writes an archive of what is in the upper directory of `rootfs`. The paths, relative, of what is gone, if they are to be listed.
pub(crate) fn export(
    rootfs: &Rootfs,
    image: impl FnOnce() -> io::Result<OwnedFd>,
    user_xattr: bool,
    deletions: Deletions,
    sink: impl Write,
) -> io::Result<Vec<Vec<u8>>> {
    let image = match deletions {
        Deletions::Whiteouts => None,
        Deletions::Listed => Some(image()?),
    };
    export_tree(&rootfs.upper, image, user_xattr, sink)
}

fn export_tree(
    folder: &Path,
    image: Option<OwnedFd>,
    user_xattr: bool,
    sink: impl Write,
) -> io::Result<Vec<Vec<u8>>> {
    let upper: OwnedFd = File::open(folder)?.into();
    let mut export = Export {
        writer: Writer::new(sink),
        image,
        marks: if user_xattr { "user.overlay." } else { "trusted.overlay." },
        deleted: Vec::new(),
        links: HashMap::new(),
    };
    let metadata = metadata(upper.as_fd(), &fs::fstat(&upper)?)?;
    export.writer.directory(b".", &metadata)?;
    export.directory(&upper, &mut Vec::new(), 0)?;
    export.writer.finish()?.flush()?;
    Ok(export.deleted)
}

/// Unpacks such an archive, with whiteouts, into the upper directory of a root file system that was not used yet.
pub(crate) fn import(
    rootfs: &Rootfs,
    archive: impl Read + Send,
    digest: &Digest,
    size: u64,
    user_xattr: bool,
) -> Result<(), UnpackError> {
    import_tree(&rootfs.upper, archive, digest, size, user_xattr)
}

fn import_tree(
    folder: &Path,
    archive: impl Read + Send,
    digest: &Digest,
    size: u64,
    user_xattr: bool,
) -> Result<(), UnpackError> {
    let folder = File::open(folder).map_err(|error| UnpackError::io(b".", error))?;
    let expected = Expected { blob: digest.clone(), size, diff_id: digest.clone(), file: None };
    let options = Options { limits: Limits::default(), user_xattr, for_copies: false };
    unpack(archive, Target::Directory(folder.as_fd()), &expected, &options).map(drop)
}

struct Export<W> {
    writer: Writer<W>,
    /// The image without the changes, to see what an opaque directory hides.
    image: Option<OwnedFd>,
    /// The beginning of the names of overlayfs's own attributes.
    marks: &'static str,
    deleted: Vec<Vec<u8>>,
    /// Files with several names, by inode, with the name under which they are in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Export<W> {
    fn directory(&mut self, here: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("it has directories {DEEPEST} levels deep")));
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(here)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        if self.is_opaque(here)? {
            match self.image.as_ref().map(|image| hidden(image.as_fd(), path)).transpose()? {
                None => self.writer.file(&join(path, OPAQUE), &Metadata::private(0), 0, io::empty())?,
                Some(hidden) => {
                    let gone = hidden.into_iter().filter(|name| names.binary_search(name).is_err());
                    self.deleted.extend(gone.map(|name| join(path, name.to_bytes())));
                }
            }
        }
        for name in names {
            let length = path.len();
            *path = join(path, name.to_bytes());
            self.entry(here, &name, path, depth)?;
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, parent: &OwnedFd, name: &CStr, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(parent, name, flags, Mode::empty())?;
        let stat = fs::fstat(&file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.whiteout(path, name);
        }
        if self.image.is_none() && name.to_bytes().starts_with(WHITEOUT) {
            let why = format!("{} has a name that means a deletion in layers", String::from_utf8_lossy(path));
            return Err(io::Error::other(why));
        }
        let metadata = metadata(file.as_fd(), &stat)?;
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.writer.hard_link(path, &metadata, first);
            }
            self.links.insert(inode, path.clone());
        }
        let device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let content = File::from(fs::openat(parent, name, flags, Mode::empty())?);
                self.writer.file(path, &metadata, u64::try_from(stat.st_size).unwrap_or(0), content)
            }
            FileType::Directory => {
                let directory = fs::openat(parent, name, OPEN, Mode::empty())?;
                self.refuse_redirect(&directory, path)?;
                self.writer.directory(path, &metadata)?;
                self.directory(&directory, path, depth + 1)
            }
            FileType::Symlink => {
                let target = fs::readlinkat(parent, name, Vec::new())?;
                self.writer.symlink(path, &metadata, target.to_bytes())
            }
            FileType::CharacterDevice => self.writer.node(Kind::Character, path, &metadata, device),
            FileType::BlockDevice => self.writer.node(Kind::Block, path, &metadata, device),
            FileType::Fifo => self.writer.node(Kind::Fifo, path, &metadata, (0, 0)),
            // A socket is nothing without the process that listens, which makes it anew or is restored with it.
            FileType::Socket | FileType::Unknown => Ok(()),
        }
    }

    fn whiteout(&mut self, path: &[u8], name: &CStr) -> io::Result<()> {
        if self.image.is_some() {
            self.deleted.push(path.to_vec());
            return Ok(());
        }
        let parent = &path[..path.len() - name.to_bytes().len()];
        let mark = [parent, WHITEOUT, name.to_bytes()].concat();
        self.writer.file(&mark, &Metadata::private(0), 0, io::empty())
    }

    fn is_opaque(&self, directory: &OwnedFd) -> io::Result<bool> {
        let mut value = [0; 4];
        match fs::fgetxattr(directory, format!("{}opaque", self.marks), &mut value[..]) {
            Ok(length) => Ok(&value[..length] == b"y"),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A directory that was renamed shows another one of the image: only overlayfs itself knows what is in it.
    fn refuse_redirect(&self, directory: &OwnedFd, path: &[u8]) -> io::Result<()> {
        match fs::fgetxattr(directory, format!("{}redirect", self.marks), &mut [0u8; 0][..]) {
            Ok(_) => {
                let path = String::from_utf8_lossy(path);
                Err(io::Error::other(format!("{path} is a renamed directory of the image")))
            }
            Err(_) => Ok(()),
        }
    }
}

/// The names in the directory `path` of the image, sorted; none where it has no such directory.
fn hidden(image: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<std::ffi::CString>> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let name = if path.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(path) };
    let directory = match fs::openat2(image, name, OPEN, Mode::empty(), resolve) {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Of a file that may be open for its path only.
fn metadata(file: BorrowedFd<'_>, stat: &fs::Stat) -> io::Result<Metadata> {
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        xattrs: xattrs(file, FileType::from_raw_mode(stat.st_mode))?,
    })
}

/// The attributes that layers may have.
fn xattrs(file: BorrowedFd<'_>, kind: FileType) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Ok(Vec::new());
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut names = vec![0_u8; 64 << 10];
    let length = match fs::listxattr(&path, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| is_kept(name)) {
        let mut value = vec![0_u8; 64 << 10];
        let size = fs::getxattr(&path, OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(size);
        found.push((name.to_vec(), value));
    }
    Ok(found)
}

fn is_kept(name: &[u8]) -> bool {
    // An archive has no way to write a name with an equals sign.
    let is_plain = !name.contains(&b'=') && !name.starts_with(b"user.overlay.");
    name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && is_plain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// An upper directory as overlayfs leaves it: a file, a hard link of it, a deletion, and a directory made anew.
    fn upper(folder: &Path) -> PathBuf {
        let upper = folder.join("upper");
        std::fs::create_dir_all(upper.join("etc/new")).unwrap();
        std::fs::write(upper.join("etc/file"), "text").unwrap();
        std::fs::hard_link(upper.join("etc/file"), upper.join("etc/same")).unwrap();
        symlink("../file", upper.join("etc/new/link")).unwrap();
        let device = fs::makedev(0, 0);
        fs::mknodat(fs::CWD, upper.join("etc/gone"), FileType::CharacterDevice, Mode::empty(), device)
            .unwrap();
        let flags = fs::XattrFlags::empty();
        fs::setxattr(upper.join("etc/new"), "trusted.overlay.opaque", b"y", flags).unwrap();
        fs::setxattr(upper.join("etc/file"), "user.note", b"x", flags).unwrap();
        upper
    }

    #[test]
    fn changes_are_the_same_after_a_round_trip() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let upper = upper(folder.path());
        let mut bytes = Vec::new();
        assert!(export_tree(&upper, None, false, &mut bytes).unwrap().is_empty());
        let to = folder.path().join("to");
        std::fs::create_dir(&to).unwrap();
        let hash = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
        let digest = Digest::sha256(hash.into());
        import_tree(&to, &bytes[..], &digest, bytes.len() as u64, false).unwrap();
        assert_eq!(std::fs::read(to.join("etc/same")).unwrap(), b"text");
        let file = std::fs::metadata(to.join("etc/file")).unwrap();
        assert_eq!((file.nlink(), file.mtime_nsec()), {
            let before = std::fs::metadata(upper.join("etc/file")).unwrap();
            (2, before.mtime_nsec())
        });
        assert_eq!(std::fs::symlink_metadata(to.join("etc/gone")).unwrap().rdev(), 0);
        let mut value = [0; 4];
        assert_eq!(fs::getxattr(to.join("etc/new"), "trusted.overlay.opaque", &mut value[..]), Ok(1));
        assert_eq!(fs::getxattr(to.join("etc/file"), "user.note", &mut value[..]), Ok(1));
        assert_eq!(std::fs::read_link(to.join("etc/new/link")).unwrap(), Path::new("../file"));
        // A changed archive is noticed.
        let last = bytes.len() - 2000;
        bytes[last] ^= 1;
        let again = folder.path().join("again");
        std::fs::create_dir(&again).unwrap();
        assert!(import_tree(&again, &bytes[..], &digest, bytes.len() as u64, false).is_err());
    }

    #[test]
    fn what_an_opaque_directory_hides_is_listed_as_deleted() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let upper = upper(folder.path());
        let image = folder.path().join("image");
        std::fs::create_dir_all(image.join("etc/new/deep")).unwrap();
        std::fs::write(image.join("etc/new/link"), "").unwrap();
        let image: OwnedFd = File::open(image).unwrap().into();
        let mut deleted = export_tree(&upper, Some(image), false, Vec::new()).unwrap();
        deleted.sort();
        assert_eq!(deleted, [b"etc/gone".to_vec(), b"etc/new/deep".to_vec()]);
        std::fs::write(upper.join(".wh.mine"), "").unwrap();
        assert!(export_tree(&upper, None, false, Vec::new()).is_err(), "it would mean a deletion");
    }
}
