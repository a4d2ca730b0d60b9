//! One directory of a hierarchy, open: its files are read and written through the descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Control files are small; what is larger than this is read onto the heap.
const BUFFER: usize = 8 * 1024;
/// No control file that is read here comes near this size.
const LARGEST: usize = 4 * 1024 * 1024;

/// How names are resolved: below the mount, and through nothing but real directories of it.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// An open directory of a cgroup file system.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// Opens a mount point, a trusted path of the host.
    pub(crate) fn mount_point(path: &str) -> io::Result<Directory> {
        Ok(Directory(fs::open(path, OPEN_DIRECTORY, Mode::empty())?))
    }

    /// Where it is, for a program that takes only paths.
    pub(crate) fn path(&self) -> io::Result<std::path::PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.0)))
    }

    /// Opens the directory `path` below this one.
    pub(crate) fn open(&self, path: &str) -> io::Result<Directory> {
        Ok(Directory(fs::openat2(&self.0, path, OPEN_DIRECTORY, Mode::empty(), BENEATH)?))
    }

    /// Makes the directory `path` below this one and those above it; says whether it is new.
    pub(crate) fn make(&self, path: &crate::path::CgroupPath) -> io::Result<bool> {
        let mode = Mode::from_raw_mode(0o755);
        match fs::mkdirat(&self.0, path.as_str(), mode) {
            Ok(()) => return Ok(true),
            Err(Errno::EXIST) => return Ok(false),
            Err(Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        let mut new = false;
        for prefix in path.prefixes() {
            new = match fs::mkdirat(&self.0, prefix, mode) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(e.into()),
            };
        }
        Ok(new)
    }

    /// Removes the directory `path` below this one and every directory below it, deepest first. Absent is fine.
    ///
    /// Groups that are busy (a process is leaving, or the kernel has not finished with it) are tried again until `deadline`.
    pub(crate) fn remove(&self, path: &str, deadline: Instant) -> io::Result<()> {
        let mut pause = Duration::from_micros(200);
        loop {
            let attempt = match fs::unlinkat(&self.0, path, AtFlags::REMOVEDIR) {
                // Busy is also what a group with children is.
                Err(Errno::BUSY | Errno::NOTEMPTY) => self
                    .remove_children(path)
                    .and_then(|()| Ok(fs::unlinkat(&self.0, path, AtFlags::REMOVEDIR)?)),
                other => other.map_err(io::Error::from),
            };
            match attempt {
                Ok(()) => return Ok(()),
                Err(e) => match Errno::from_io_error(&e) {
                    Some(Errno::NOENT) => return Ok(()),
                    Some(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(Duration::from_millis(20));
                    }
                    _ => return Err(e),
                },
            }
        }
    }

    /// Removes everything below the directory `path`, without waiting.
    fn remove_children(&self, path: &str) -> io::Result<()> {
        let directory = self.open(path)?;
        // Deepest first: parents stand before their children in the list.
        for child in directory.descendants()?.iter().rev() {
            match fs::unlinkat(&directory.0, child.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Every directory below this one, parents before children, as relative paths.
    pub(crate) fn descendants(&self) -> io::Result<Vec<String>> {
        let mut found: Vec<String> = Vec::new();
        self.children_of(".", "", &mut found)?;
        let mut at = 0;
        while at < found.len() {
            let parent = found[at].clone();
            match self.children_of(&parent, &format!("{parent}/"), &mut found) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            at += 1;
        }
        Ok(found)
    }

    fn children_of(&self, path: &str, prefix: &str, found: &mut Vec<String>) -> io::Result<()> {
        let directory = fs::openat2(&self.0, path, OPEN_DIRECTORY, Mode::empty(), BENEATH)?;
        for entry in fs::Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if entry.file_type() == fs::FileType::Directory && name != "." && name != ".." {
                found.push(format!("{prefix}{name}"));
            }
        }
        Ok(())
    }

    /// Whether there is a file `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        fs::accessat(&self.0, name, fs::Access::EXISTS, AtFlags::empty()).is_ok()
    }

    /// Opens the file `name` for reading.
    pub(crate) fn file(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(fs::openat(&self.0, name, flags, Mode::empty())?)
    }

    /// Opens the file `name` for writing.
    pub(crate) fn writable(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(fs::openat(&self.0, name, flags, Mode::empty())?)
    }

    /// Hands the text of the file `name` to `parse`; without an allocation unless it is unusually large.
    pub(crate) fn read<R>(&self, name: &str, parse: impl FnOnce(&str) -> R) -> io::Result<R> {
        read_descriptor(self.file(name)?.as_fd(), parse)
    }

    /// The text of the file `name` without surrounding white space.
    pub(crate) fn text(&self, name: &str) -> io::Result<String> {
        self.read(name, |text| text.trim().to_string())
    }

    /// The number in the file `name`; `None` for `max`.
    pub(crate) fn number(&self, name: &str) -> io::Result<Option<u64>> {
        self.read(name, |text| number(name, text))?
    }

    /// Writes `value` to the file `name` in one call, as the kernel wants it.
    pub(crate) fn write(&self, name: &str, value: &str) -> io::Result<()> {
        write_once(self.writable(name)?.as_fd(), value)
    }

    /// Opens the file `name` for several writes.
    pub(crate) fn writer(&self, name: &str) -> io::Result<Writer<'_>> {
        Ok(Writer { directory: self, name: name.to_string(), descriptor: self.writable(name)? })
    }

    /// Writes `value` to the file `name` and returns what was in it before.
    pub(crate) fn exchange(&self, name: &str, value: &str) -> io::Result<String> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&self.0, name, flags, Mode::empty())?;
        let old = read_descriptor(file.as_fd(), |text| text.trim().to_string())?;
        write_once(file.as_fd(), value)?;
        Ok(old)
    }

    /// The processes in this group and, if asked for, in those below it.
    pub(crate) fn processes(&self, recursive: bool) -> io::Result<Vec<i32>> {
        let mut processes = Vec::new();
        let mut add =
            |text: &str| processes.extend(text.lines().filter_map(|l| l.trim().parse::<i32>().ok()));
        gone_is_empty(self.read("cgroup.procs", &mut add))?;
        if recursive {
            for child in gone_is_empty(self.descendants())? {
                let file = format!("{child}/cgroup.procs");
                gone_is_empty(self.read(&file, &mut add))?;
            }
        }
        // A process that moved while this was read may have been seen twice.
        processes.sort_unstable();
        processes.dedup();
        Ok(processes)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A control file that is written again and again.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    directory: &'a Directory,
    name: String,
    descriptor: OwnedFd,
}

impl Writer<'_> {
    pub(crate) fn is_of(&self, directory: &Directory, name: &str) -> bool {
        std::ptr::eq(self.directory, directory) && self.name == name
    }

    /// Writes `value` in one call, as the kernel wants it.
    pub(crate) fn write(&self, value: &str) -> io::Result<()> {
        write_once(self.descriptor.as_fd(), value)
    }
}

/// A control file that stays open to be read again and again.
#[derive(Debug)]
pub(crate) struct File {
    name: &'static str,
    descriptor: OwnedFd,
}

impl File {
    /// Opens the file `name` of `directory`.
    pub(crate) fn open(directory: &Directory, name: &'static str) -> io::Result<File> {
        Ok(File { name, descriptor: directory.file(name)? })
    }

    /// Hands what is in it now to `parse`.
    pub(crate) fn read<R>(&self, parse: impl FnOnce(&str) -> R) -> io::Result<R> {
        read_descriptor(self.descriptor.as_fd(), parse)
    }

    /// The number in it; `None` for `max`.
    pub(crate) fn number(&self) -> io::Result<Option<u64>> {
        self.read(|text| number(self.name, text))?
    }
}

/// The number that `text`, from the file `name`, is; `None` for `max`.
fn number(name: &str, text: &str) -> io::Result<Option<u64>> {
    match text.trim() {
        "max" => Ok(None),
        number => number.parse().map(Some).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{name} holds {number:?}, not a number"))
        }),
    }
}

/// A group that was removed meanwhile (`ENODEV` through a descriptor of it) has nothing in it. A threaded group (`EOPNOTSUPP`)
/// lists its processes in the group above.
fn gone_is_empty<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(e)
            if matches!(Errno::from_io_error(&e), Some(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP)) =>
        {
            Ok(T::default())
        }
        other => other,
    }
}

/// Reads a whole file from its start and hands it to `parse`.
pub(crate) fn read_descriptor<R>(file: BorrowedFd<'_>, parse: impl FnOnce(&str) -> R) -> io::Result<R> {
    let mut buffer = [0; BUFFER];
    let length = fill(file, &mut buffer, 0)?;
    if length < BUFFER {
        return Ok(parse(&String::from_utf8_lossy(&buffer[..length])));
    }
    let mut all = buffer.to_vec();
    let mut length = BUFFER;
    while length == all.len() {
        if length >= LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "unreasonably large for a control file"));
        }
        all.resize(length * 2, 0);
        length += fill(file, &mut all[length..], length as u64)?;
    }
    Ok(parse(&String::from_utf8_lossy(&all[..length])))
}

/// What is shorter than this is the end of a file: the kernel writes a page at a time, and breaks off only before what does not fit in there,
/// which is at most a line.
const END: usize = 2048;

fn fill(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match rustix::io::pread(file, &mut buffer[length..], offset + length as u64) {
            Ok(read) if read < END => {
                length += read;
                break;
            }
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(length)
}

fn write_once(file: BorrowedFd<'_>, value: &str) -> io::Result<()> {
    loop {
        match rustix::io::pwrite(file, value.as_bytes(), 0) {
            Ok(written) if written == value.len() => return Ok(()),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::WriteZero, "only a part was taken")),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
