//! What a layer is checked against later: one number over everything in its directory, made while it is unpacked.
//!
//! It is there to notice damage: a disk that loses or turns bits, a power cut, a hand in the wrong folder. Whoever means harm and can write
//! here can write into the database too, so that a fast hash without a secret is enough. Each file, link, device and directory is
//! hashed with its path, kind, mode, owner, time and content; the sum of these hashes does not depend on the order, so that an archive in
//! any order gives the same number as a walk through the directory, and neither has to remember more than the sum. Extended
//! attributes are left out: to read them would cost as much as all the rest.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, SeekFrom, Stat};
use rustix::io::Errno;
use twox_hash::XxHash3_128;

use crate::unpack::LooseEnds;

/// What recorded sums begin with. A way of computing that gives another number for the same tree has another one.
const KIND: &str = "tree-1:";

const BUFFER: usize = 256 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The sum over a tree, or over what of it has been met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum(u128);

/// What there is to a file beyond its attributes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body<'a> {
    /// The hash of a file's content.
    Content(u128),
    /// What a link says.
    Link(&'a [u8]),
    /// A directory, a device, a FIFO.
    None,
}

impl Sum {
    /// Adds one thing. `path` is relative to the root and has no links in it.
    pub(crate) fn add(&mut self, path: &[u8], stat: &Stat, body: Body<'_>) {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_node = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        // A whiteout has the time at which it was made.
        let is_whiteout = is_node && stat.st_rdev == 0;
        let mut bytes = Vec::with_capacity(64 + path.len());
        let mut put = |part: &[u8]| bytes.extend_from_slice(part);
        put(&stat.st_mode.to_le_bytes());
        put(&stat.st_uid.to_le_bytes());
        put(&stat.st_gid.to_le_bytes());
        if !is_whiteout {
            put(&stat.st_mtime.to_le_bytes());
            put(&u64::from(stat.st_mtime_nsec as u32).to_le_bytes());
        }
        if is_node {
            put(&stat.st_rdev.to_le_bytes());
        }
        match body {
            Body::Content(hash) => {
                put(&stat.st_size.to_le_bytes());
                put(&hash.to_le_bytes());
            }
            Body::Link(target) => {
                put(&(target.len() as u64).to_le_bytes());
                put(target);
            }
            Body::None => {}
        }
        put(path);
        self.0 = self.0.wrapping_add(XxHash3_128::oneshot(&bytes));
    }

    /// The sum that a record says, if it is of this kind.
    pub(crate) fn parse(text: &str) -> Option<Sum> {
        u128::from_str_radix(text.strip_prefix(KIND)?, 16).ok().map(Sum)
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{KIND}{:032x}", self.0)
    }
}

/// The content of a file as it comes.
pub(crate) struct Content {
    hasher: XxHash3_128,
    length: u64,
}

impl Content {
    pub(crate) fn new() -> Content {
        Content { hasher: XxHash3_128::new(), length: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.length += bytes.len() as u64;
    }

    /// Nothing up to `offset`; false if that has been passed.
    pub(crate) fn hole_to(&mut self, offset: u64) -> bool {
        while self.length < offset {
            let length = (offset - self.length).min(ZEROS.len() as u64);
            self.update(&ZEROS[..usize::try_from(length).unwrap_or(0)]);
        }
        self.length == offset
    }

    pub(crate) fn finish(self) -> u128 {
        self.hasher.finish_128()
    }
}

/// Where bytes are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Wherever they are.
    Memory,
    /// The disk, as far as the kernel lets go of what it keeps of it: what is in memory says nothing of what is on disk.
    Disk,
}

/// The sum over the directory `root`. Directories that `loose_ends` names have times of their own making, and count by what is in them.
///
/// # Errors
/// What the file system says: that something cannot be read is as bad as that it reads wrong.
pub(crate) fn of_tree(root: &OwnedFd, loose_ends: &LooseEnds, source: Source) -> io::Result<Sum> {
    let implied: HashSet<&[u8]> = loose_ends.implied.iter().map(Vec::as_slice).collect();
    let mut sum = Sum::default();
    let mut buffer = vec![0; BUFFER];
    if loose_ends.has_root {
        sum.add(b"", &fs::fstat(root)?, Body::None);
    }
    let mut ahead: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = ahead.pop() {
        let directory = open(root, &path, OFlags::DIRECTORY)?;
        for entry in fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let own = if path.is_empty() {
                name.to_bytes().to_vec()
            } else {
                [&path, &b"/"[..], name.to_bytes()].concat()
            };
            let stat = fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    if !implied.contains(own.as_slice()) {
                        sum.add(&own, &stat, Body::None);
                    }
                    ahead.push(own);
                }
                FileType::RegularFile => {
                    let file = open(&directory, name.to_bytes(), OFlags::NONBLOCK)?;
                    sum.add(&own, &stat, Body::Content(content(&file, &stat, source, &mut buffer)?));
                }
                FileType::Symlink => {
                    let target = fs::readlinkat(&directory, name, Vec::new())?;
                    sum.add(&own, &stat, Body::Link(target.as_bytes()));
                }
                _ => sum.add(&own, &stat, Body::None),
            }
        }
    }
    Ok(sum)
}

/// The hash of an open file's content.
pub(crate) fn content(file: &OwnedFd, stat: &Stat, source: Source, buffer: &mut [u8]) -> io::Result<u128> {
    if source == Source::Disk {
        let _ = fs::fadvise(file, 0, None, fs::Advice::DontNeed);
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let mut content = Content::new();
    let is_sparse = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 < size;
    loop {
        if is_sparse {
            match fs::seek(file, SeekFrom::Data(content.length)) {
                Ok(data) => drop(content.hole_to(data.min(size))),
                Err(Errno::NXIO) => drop(content.hole_to(size)),
                Err(_) => {}
            }
        }
        match rustix::io::pread(file, &mut *buffer, content.length) {
            Ok(0) => return Ok(content.finish()),
            Ok(read) => content.update(&buffer[..read]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn open(root: &OwnedFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(folder: &std::path::Path) -> Sum {
        let root = fs::open(folder, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        of_tree(&root, &LooseEnds::default(), Source::Disk).unwrap()
    }

    #[test]
    fn whatever_changes_changes_the_sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/a"), vec![7; 300_000]).unwrap();
        std::fs::write(path("b"), "").unwrap();
        std::os::unix::fs::symlink("d/a", path("l")).unwrap();
        let before = sum(folder.path());
        assert_eq!(sum(folder.path()), before);
        assert_eq!(Sum::parse(&before.to_string()), Some(before));
        let keep_time = |name: &str, work: &dyn Fn()| {
            let time = std::fs::metadata(path(name)).unwrap().modified().unwrap();
            let parent = std::fs::metadata(path("d")).unwrap().modified().unwrap();
            work();
            for (name, time) in [(name, time), ("d", parent)] {
                let file = std::fs::File::open(path(name)).unwrap();
                file.set_modified(time).unwrap();
            }
        };
        let flip = || {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().read(true).write(true).open(path("d/a")).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 299_999).unwrap();
            file.write_all_at(&[byte[0] ^ 1], 299_999).unwrap();
        };
        keep_time("d/a", &flip);
        assert_ne!(sum(folder.path()), before, "one bit");
        keep_time("d/a", &flip);
        assert_eq!(sum(folder.path()), before, "and back");
    }

    #[test]
    fn names_modes_and_targets_count() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("a"), "x").unwrap();
        std::os::unix::fs::symlink("one", path("l")).unwrap();
        let before = sum(folder.path());
        std::fs::rename(path("a"), path("b")).unwrap();
        assert_ne!(sum(folder.path()), before);
        std::fs::rename(path("b"), path("a")).unwrap();
        assert_eq!(sum(folder.path()), before);
        std::fs::set_permissions(path("a"), std::fs::Permissions::from_mode(0o604)).unwrap();
        assert_ne!(sum(folder.path()), before);
    }

    #[test]
    fn a_hole_reads_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (sparse, full) = (folder.path().join("s"), folder.path().join("f"));
        let file = std::fs::File::create(&sparse).unwrap();
        file.set_len(1 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", 600_000).unwrap();
        let mut bytes = vec![0; 1 << 20];
        bytes[600_000..600_004].copy_from_slice(b"data");
        std::fs::write(&full, &bytes).unwrap();
        let hash = |path: &std::path::Path| {
            let file: OwnedFd = std::fs::File::open(path).unwrap().into();
            let stat = fs::fstat(&file).unwrap();
            content(&file, &stat, Source::Memory, &mut vec![0; 5000]).unwrap()
        };
        assert_eq!(hash(&sparse), hash(&full));
        assert_eq!(hash(&full), XxHash3_128::oneshot(&bytes));
        let mut streamed = Content::new();
        assert!(streamed.hole_to(600_000));
        streamed.update(b"data");
        assert!(streamed.hole_to(1 << 20));
        assert_eq!(streamed.finish(), hash(&full));
        assert!(!{
            let mut c = Content::new();
            c.update(b"xx");
            c.hole_to(1)
        });
    }
}
