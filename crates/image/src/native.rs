//! Layers put together without overlayfs: a whole tree of copies, where the kernel or the file system cannot stack. It takes what a copy
//! takes, in time and on disk, unless the file system shares blocks.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::copy::copy_any;
use crate::graft::{is_opaque, opaque_mark};
use crate::overlay::Lower;
use crate::tree;
use crate::unpack::{clear_xattrs, copy_directory};

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const ALONE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
/// No layer has deeper directories; one descriptor or two are open for each level.
const DEEPEST: usize = 1100;

/// Fills `into`, an empty directory, with what these layers, the highest first, look like together: with whiteouts and opaque directories
/// understood, and gone. No name is followed that is a link.
///
/// # Errors
/// What the file system says; a part may be there then.
pub(crate) fn put_together(lowers: &[Lower], into: &File, user_xattr: bool) -> io::Result<()> {
    let root: OwnedFd = fs::openat(into, c".", OPEN, Mode::empty())?;
    for (height, lower) in lowers.iter().rev().enumerate() {
        let layer = lower.open()?;
        let mut copy = Copy {
            tree: into.as_fd(),
            opaque: opaque_mark(user_xattr),
            links: HashMap::new(),
            path: Vec::new(),
        };
        copy.directory(&layer, &root, height > 0, 0)?;
        describe(&layer, &root, height > 0)?;
    }
    Ok(())
}

/// Gives a directory what the layer says of it, instead of what one below says.
fn describe(from: &OwnedFd, to: &OwnedFd, was_there: bool) -> io::Result<()> {
    if was_there {
        clear_xattrs(to.as_fd())?;
    }
    copy_directory(from, to)
}

/// One layer on its way onto what is there.
struct Copy<'a> {
    tree: BorrowedFd<'a>,
    opaque: &'static str,
    /// The layer's files with several names, by inode, with the first name that was met.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Of the directory that is being copied.
    path: Vec<u8>,
}

impl Copy<'_> {
    /// Copies what is in `from` into `to`, which has something in it only if `was_there`.
    fn directory(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        mut was_there: bool,
        depth: usize,
    ) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("a layer has directories {DEEPEST} levels deep")));
        }
        if was_there && is_opaque(from, self.opaque) {
            empty(to)?;
            was_there = false;
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            self.entry(from, to, name, was_there, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        was_there: bool,
        depth: usize,
    ) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let source = fs::openat(from, name, OPEN, Mode::empty())?;
            let there = was_there.then(|| fs::openat(to, name, OPEN, Mode::empty()).ok()).flatten();
            let (made, was_there) = match there {
                Some(there) => (there, true),
                None => {
                    if was_there {
                        tree::remove(to.as_fd(), name)?;
                    }
                    fs::mkdirat(to, name, Mode::RWXU)?;
                    (fs::openat(to, name, OPEN, Mode::empty())?, false)
                }
            };
            self.directory(&source, &made, was_there, depth + 1)?;
            return describe(&source, &made, was_there);
        }
        if was_there {
            tree::remove(to.as_fd(), name)?;
        }
        let is_whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        // A socket is nothing without the process that listens.
        if is_whiteout || kind == FileType::Socket {
            return Ok(());
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.link(first, to, name);
            }
            self.links.insert(inode, self.path.clone());
        }
        let file = fs::openat(from, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        copy_any(&file, &stat, to, name)
    }

    /// Another name of a file that was copied from this layer.
    fn link(&self, first: &[u8], to: &OwnedFd, name: &CStr) -> io::Result<()> {
        let (parent, own) = match first.iter().rposition(|&b| b == b'/') {
            Some(cut) => (&first[..cut], &first[cut + 1..]),
            None => (&b"."[..], first),
        };
        let parent = fs::openat2(self.tree, parent, OPEN | OFlags::PATH, Mode::empty(), ALONE)?;
        Ok(fs::linkat(&parent, std::ffi::OsStr::from_bytes(own), to, name, AtFlags::empty())?)
    }
}

fn empty(directory: &OwnedFd) -> io::Result<()> {
    // Names first: what is read while it is removed from may be read twice or not at all.
    let names = Dir::read_from(directory)?.map(|entry| entry.map(|entry| entry.file_name().to_owned()));
    for name in names.collect::<Result<Vec<_>, Errno>>()? {
        if !matches!(name.to_bytes(), b"." | b"..") {
            tree::remove(directory.as_fd(), &name)?;
        }
    }
    Ok(())
}
