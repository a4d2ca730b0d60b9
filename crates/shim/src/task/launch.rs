//! The server's process: which file it is executed from, and what it inherits.
//!
//! All servers of a host are executed from one file, so that they share its pages. It must not be writable through `/proc/<pid>/exe` for
//! somebody in a container (CVE-2019-5736): it is opened through an overlay without an upper layer, which cannot be made writable at all.
//! Through it programs can be executed also where `/run` is mounted so that they cannot.

use super::bundle;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use std::ffi::CString;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use sys::mount::{Parameter, attribute};
use sys::process::{Child, Cloned};

/// Where the program lies, if that can be written to: a file system in memory that ends with the boot.
const FOLDER: &str = "/run/containerd-shim-pintle-v2";
/// Beside each other, since layers of an overlay may not lie in one another.
const PROGRAMS: &str = "program";
const NAME: &str = "server";
/// A folder with nothing in it.
const EMPTY: &str = "empty";

/// Opens the program for execution: `program`, or with none the one that runs.
pub(super) fn open(program: Option<&[u8]>) -> io::Result<OwnedFd> {
    let place = own_folder(Path::new(FOLDER));
    let Some(program) = program else {
        let own = std::fs::read_link("/proc/self/exe")?;
        let (folder, name) = (own.parent().unwrap_or(Path::new("/")), own.file_name().unwrap_or_default());
        let sealed = place.and_then(|place| open_sealed(folder, Path::new(name), &place));
        return sealed.or_else(|_| open_plain(&own));
    };
    place
        .and_then(|place| {
            install(program, &place)?;
            open_sealed(&place.join(PROGRAMS), Path::new(NAME), &place)
        })
        .or_else(|_| in_memory(program))
}

/// The folder of our own, made if need be, which nobody else may write to.
fn own_folder(folder: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    for folder in [folder, &folder.join(EMPTY), &folder.join(PROGRAMS)] {
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let metadata = std::fs::symlink_metadata(folder)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_dir() || !own || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other(format!("{} is not a folder of our own", folder.display())));
    }
    Ok(folder.into())
}

/// Writes the program as a file. One that differs is of another version: it is replaced, and who runs it goes on with the old one.
fn install(program: &[u8], place: &Path) -> io::Result<()> {
    let path = place.join(PROGRAMS).join(NAME);
    if bundle::read(&path).ok().as_deref() != Some(program) {
        sys::file::write_atomic(&path, program, 0o500, sys::file::Durability::Process)?;
    }
    Ok(())
}

/// Opens `name` in `folder` through a file system to which nobody can write. `place` is the folder of our own.
fn open_sealed(folder: &Path, name: &Path, place: &Path) -> io::Result<OwnedFd> {
    // Without an upper layer overlayfs wants two lower ones.
    let lowers = format!("{}:{}", folder.display(), place.join(EMPTY).display());
    if lowers.matches(':').count() != 1 || lowers.contains([',', '\\']) || lowers.len() > 250 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let attributes = attribute::RDONLY | attribute::NODEV | attribute::NOSUID;
    let mount = sys::mount::new_filesystem("overlay", &[Parameter::Value("lowerdir", &lowers)], attributes)?;
    Ok(rustix::fs::openat(&mount, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_plain(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A sealed copy of its own, where nothing else can be had: without rights to mount, for one.
fn in_memory(program: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels with vm.memfd_noexec want to be told that it will be executed; those before 6.3 do not know the flag.
    let image = rustix::fs::memfd_create(super::PROGRAM, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(super::PROGRAM, flags))?;
    let mut file = std::fs::File::from(image);
    file.write_all(program)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Starts the server in a session of its own. It listens on `listener`, which becomes its descriptor 3, and has the bundle's log as its
/// standard error.
pub(super) fn launch(program: &OwnedFd, arguments: &[String], listener: &OwnedFd) -> io::Result<Child> {
    let argv = std::iter::once(super::PROGRAM.to_owned())
        .chain(arguments.iter().cloned())
        .map(|argument| CString::new(argument).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput)))
        .collect::<Result<Vec<_>, _>>()?;
    let environment: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut key, value)| {
            key.push("=");
            key.push(value);
            CString::new(key.into_vec()).ok()
        })
        .collect();
    match sys::process::clone_process(0, None)? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => {
            let _ = become_server(program, &argv, &environment, listener);
            sys::process::exit_now(127)
        }
    }
}

fn become_server(
    program: &OwnedFd,
    argv: &[CString],
    environment: &[CString],
    listener: &OwnedFd,
) -> io::Result<()> {
    let _ = rustix::process::setsid();
    // What is opened here is closed below, and must not be closed once more if the program cannot be executed.
    let null =
        ManuallyDrop::new(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
    rustix::stdio::dup2_stdin(&*null)?;
    rustix::stdio::dup2_stdout(&*null)?;
    // Opened for reading too: nobody has to read it, and it never breaks.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = ManuallyDrop::new(rustix::fs::open(bundle::LOG, flags, Mode::empty()));
    rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null))?;
    // Both are moved out of the way, so that 3 is the lowest that is free when everything else is closed.
    let listener = rustix::io::fcntl_dupfd_cloexec(listener, 10)?;
    let program = rustix::io::fcntl_dupfd_cloexec(program, 10)?;
    sys::parent::close_all_except(&[listener.as_fd(), program.as_fd()])?;
    let third = rustix::io::fcntl_dupfd_cloexec(&listener, 3)?;
    rustix::io::fcntl_setfd(&third, rustix::io::FdFlags::empty())?;
    Err(sys::process::exec_descriptor(program.as_fd(), argv, environment))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_program_is_one_file_that_nobody_can_write_to() {
        let folder = tempfile::tempdir().unwrap();
        let place = own_folder(&folder.path().join("own")).unwrap();
        let inode = || std::fs::metadata(place.join(PROGRAMS).join(NAME)).unwrap().ino();
        install(b"one", &place).unwrap();
        let first = inode();
        install(b"one", &place).unwrap();
        assert_eq!(inode(), first, "the same bytes stay the same file");
        install(b"two", &place).unwrap();
        assert_ne!(inode(), first);
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED: not root");
            return;
        }
        let opened = open_sealed(&place.join(PROGRAMS), Path::new(NAME), &place).unwrap();
        let path = format!("/proc/self/fd/{}", opened.as_raw_fd());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let error = std::fs::File::options().write(true).open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_ours() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own_folder(&open).unwrap_err().to_string().contains("not a folder of our own"));
    }

    #[test]
    fn a_copy_in_memory_is_sealed() {
        let copy = in_memory(b"program").unwrap();
        assert!(rustix::fs::fcntl_get_seals(&copy).unwrap().contains(SealFlags::WRITE | SealFlags::SEAL));
    }
}
