//! The directories of a layer while it is unpacked: found by walking names, made where they are missing, and kept open for a while.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Options, UnpackError};

/// Directories that are kept open. Archives go through a tree in order, so that few are enough.
const OPEN_MAX: usize = 64;
/// What marks a directory as opaque where the privileged attribute may not be set.
const USER_OPAQUE: &CStr = c"user.overlay.opaque";
/// Links on one path, as in the kernel.
pub(super) const LINKS_MAX: u32 = 40;
/// `PATH_MAX` and `NAME_MAX`, and how deep a path may go.
pub(super) const PATH_MAX: usize = 4096;
pub(super) const NAME_MAX: usize = 255;
pub(super) const DEPTH_MAX: usize = 1024;

/// How a missing directory is made until its own entry says otherwise.
pub(super) const IMPLIED_MODE: u32 = 0o755;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open directory and its true path: no links in it.
#[derive(Clone)]
pub(super) struct Dir {
    pub fd: Rc<OwnedFd>,
    pub path: Rc<[u8]>,
}

pub(super) struct Dirs {
    root: Dir,
    open: HashMap<Vec<u8>, Dir>,
    /// Directories that were made without an entry of their own.
    implied: BTreeSet<Vec<u8>>,
    pub made: u64,
    /// Whether something that was made has gone again.
    pub retraced: bool,
    /// What marks a directory as hiding those below it.
    opaque: &'static CStr,
    /// Whether it may be marked in ways that overlayfs does not know.
    for_copies: bool,
}

/// A name in an archive as names from the root down, with `.` and `..` worked out as if the root were `/`.
pub(super) fn clean(path: &[u8]) -> Result<Vec<&[u8]>, UnpackError> {
    let bad = |why| Err(UnpackError::entry(path, why));
    if path.contains(&0) {
        return bad("has a NUL in its name");
    }
    if path.len() > PATH_MAX {
        return bad("has a name longer than 4096 bytes");
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name if name.len() > NAME_MAX => return bad("has a part of its name longer than 255 bytes"),
            name => names.push(name),
        }
    }
    if names.len() > DEPTH_MAX {
        return bad("is deeper than 1024 directories");
    }
    Ok(names)
}

/// Whether it marks something as gone: as overlayfs has it, or as [`Dirs::mark_gone`] does.
pub(super) fn is_whiteout(stat: &fs::Stat) -> bool {
    let kind = FileType::from_raw_mode(stat.st_mode);
    kind == FileType::Socket || (kind == FileType::CharacterDevice && stat.st_rdev == 0)
}

/// A name for a system call. `clean` let no NUL through, and what a link says has none either.
pub(super) fn c_name(name: &[u8]) -> Result<CString, UnpackError> {
    CString::new(name).map_err(|_| UnpackError::entry(name, "has a NUL in its name"))
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

impl Dirs {
    pub(super) fn new(root: OwnedFd, options: &Options) -> Dirs {
        let root = Dir { fd: Rc::new(root), path: Rc::from(&b""[..]) };
        let opaque = if options.user_xattr { USER_OPAQUE } else { c"trusted.overlay.opaque" };
        let for_copies = options.for_copies;
        Dirs {
            root,
            open: HashMap::new(),
            implied: BTreeSet::new(),
            made: 0,
            retraced: false,
            opaque,
            for_copies,
        }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.fd.as_fd()
    }

    /// The directory that these names lead to; what is missing is made. Links lead on within the layer.
    pub(super) fn make(&mut self, names: &[&[u8]], entry: &[u8]) -> Result<Dir, UnpackError> {
        self.find(names, entry, true)?.ok_or_else(|| UnpackError::entry(entry, "has no directory to be in"))
    }

    /// The directory that these names lead to, if it is there.
    pub(super) fn look(&mut self, names: &[&[u8]], entry: &[u8]) -> Result<Option<Dir>, UnpackError> {
        self.find(names, entry, false)
    }

    /// Forgets what is open: a directory was removed, or a link changed, and a name may lead elsewhere now.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// A directory got an entry of its own.
    pub(super) fn explain(&mut self, path: &[u8]) {
        self.implied.remove(path);
    }

    /// The directories that never got an entry of their own and are still there.
    pub(super) fn into_implied(self) -> BTreeSet<Vec<u8>> {
        self.implied
    }

    /// Keeps a directory that was just made, since its contents come next as a rule.
    pub(super) fn keep(&mut self, dir: &Dir) {
        self.remember(dir.path.to_vec(), dir.clone());
    }

    /// Makes overlayfs hide what lower layers have in this directory.
    pub(super) fn set_opaque(&self, dir: BorrowedFd<'_>, entry: &[u8]) -> Result<(), UnpackError> {
        let set = |mark| fs::fsetxattr(dir, mark, b"y", fs::XattrFlags::empty());
        let done = match set(self.opaque) {
            Err(Errno::OPNOTSUPP | Errno::PERM) if self.for_copies => set(USER_OPAQUE),
            done => done,
        };
        done.map_err(|error| UnpackError::io(entry, error))
    }

    /// Makes a whiteout. Not every file system lets overlayfs's be made; of sockets there are none in archives.
    pub(super) fn mark_gone(&self, parent: &Dir, name: &CString) -> Result<(), Errno> {
        let make = |kind| fs::mknodat(&*parent.fd, name, kind, Mode::empty(), fs::makedev(0, 0));
        match make(FileType::CharacterDevice) {
            Err(Errno::PERM) if self.for_copies => make(FileType::Socket),
            done => done,
        }
    }

    fn remember(&mut self, key: Vec<u8>, dir: Dir) {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(key, dir);
    }

    fn find(&mut self, names: &[&[u8]], entry: &[u8], make: bool) -> Result<Option<Dir>, UnpackError> {
        let Some(last) = names.len().checked_sub(1) else { return Ok(Some(self.root.clone())) };
        let key = names.join(&b'/');
        if let Some(dir) = self.open.get(&key) {
            return Ok(Some(dir.clone()));
        }
        // From the nearest directory that is open, as a rule the parent.
        let (mut here, mut walked) = (self.root.clone(), 0);
        for count in (1..=last).rev() {
            if let Some(dir) = self.open.get(&names[..count].join(&b'/')) {
                (here, walked) = (dir.clone(), count);
                break;
            }
        }
        let mut ahead: Vec<Vec<u8>> = names[walked..].iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == b".." {
                here = self.parent_of(&here, entry)?;
                continue;
            }
            match self.step(&here, &name, entry, make)? {
                Step::Into(dir) => here = dir,
                Step::Absent => return Ok(None),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX || target.len() > PATH_MAX {
                        return Err(UnpackError::entry(entry, "is behind too many symbolic links"));
                    }
                    if target.starts_with(b"/") {
                        here = self.root.clone();
                    }
                    let parts = target.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b"."));
                    ahead.extend(parts.rev().map(<[u8]>::to_vec));
                    if ahead.len() > DEPTH_MAX {
                        return Err(UnpackError::entry(entry, "is behind links that grow without end"));
                    }
                }
            }
        }
        self.remember(key, here.clone());
        Ok(Some(here))
    }

    fn step(&mut self, here: &Dir, name: &[u8], entry: &[u8], make: bool) -> Result<Step, UnpackError> {
        let c_name = c_name(name)?;
        let path = join(&here.path, name);
        let into = |fd: OwnedFd| Step::Into(Dir { fd: Rc::new(fd), path: Rc::from(path.as_slice()) });
        match fs::openat(&*here.fd, &c_name, OPEN, Mode::empty()) {
            Ok(fd) => return Ok(into(fd)),
            Err(Errno::NOENT) if !make => return Ok(Step::Absent),
            Err(Errno::NOENT) => {
                let fd = self.make_here(here, &c_name, entry)?;
                self.implied.insert(path.clone());
                return Ok(into(fd));
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => return Err(UnpackError::io(entry, error)),
        }
        let stat = fs::statat(&*here.fd, &c_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| UnpackError::io(entry, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = fs::readlinkat(&*here.fd, &c_name, Vec::new())
                    .map_err(|error| UnpackError::io(entry, error))?;
                Ok(Step::Link(target.into_bytes()))
            }
            _ if make && is_whiteout(&stat) => {
                // The layer removed what was here below, and now puts a directory of its own in its place.
                self.retraced = true;
                fs::unlinkat(&*here.fd, &c_name, AtFlags::empty())
                    .map_err(|error| UnpackError::io(entry, error))?;
                let fd = self.make_here(here, &c_name, entry)?;
                self.set_opaque(fd.as_fd(), entry)?;
                self.implied.insert(path.clone());
                Ok(into(fd))
            }
            _ if !make => Ok(Step::Absent),
            _ => Err(UnpackError::entry(entry, "is below something that is no directory")),
        }
    }

    fn make_here(&mut self, here: &Dir, name: &CString, entry: &[u8]) -> Result<OwnedFd, UnpackError> {
        let made = fs::mkdirat(&*here.fd, name, Mode::from_raw_mode(IMPLIED_MODE))
            .and_then(|()| fs::openat(&*here.fd, name, OPEN, Mode::empty()))
            // Whatever the umask of the process is.
            .and_then(|fd| fs::fchmod(&fd, Mode::from_raw_mode(IMPLIED_MODE)).map(|()| fd));
        self.made += 1;
        made.map_err(|error| UnpackError::io(entry, error))
    }

    fn parent_of(&mut self, dir: &Dir, entry: &[u8]) -> Result<Dir, UnpackError> {
        let Some(cut) = dir.path.iter().rposition(|&b| b == b'/') else { return Ok(self.root.clone()) };
        let path: Rc<[u8]> = Rc::from(&dir.path[..cut]);
        let fd = open_plain(self.root.fd.as_fd(), &path).map_err(|error| UnpackError::io(entry, error))?;
        Ok(Dir { fd: Rc::new(fd), path })
    }
}

enum Step {
    Into(Dir),
    Link(Vec<u8>),
    Absent,
}

/// Opens a path that is known to have no links, and fails if it has one.
fn open_plain(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let resolve = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS | fs::ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(root, path, OPEN, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_name_leads_out(path in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..64)) {
            if let Ok(names) = clean(&path) {
                prop_assert!(names.iter().all(|n| !n.is_empty() && *n != b"." && *n != b".." && !n.contains(&b'/')));
            }
        }
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(clean(b"/../../a/./b//../c/").unwrap(), [&b"a"[..], b"c"]);
        assert!(clean(&[b'a'; 256]).is_err());
        assert!(clean(&[b'a'; 255]).is_ok());
        assert!(clean(&b"a/".repeat(2049)).is_err());
        assert!(clean(&b"a/".repeat(1025)).is_err());
        assert!(clean(b"a\0b").is_err());
    }
}
