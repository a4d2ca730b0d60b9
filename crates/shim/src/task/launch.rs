//! The server's process: which file it is executed from, and what it inherits.
//!
//! All servers of a host are executed from one file, so that they share its pages. It must not be writable through `/proc/<pid>/exe` for
//! somebody in a container (CVE-2019-5736): it is opened through an overlay without an upper layer, which cannot be made writable at all.

use super::bundle;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use sys::mount::{Parameter, attribute};
use sys::process::{Child, Cloned};

/// Where the program lies, if that can be written to: a file system in memory that ends with the boot.
const FOLDER: &str = "/run/containerd-shim-pintle-v2";
const NAME: &str = "server";

/// Opens the program for execution: `program`, or with none the one that runs.
pub(super) fn open(program: Option<&[u8]>) -> io::Result<OwnedFd> {
    let Some(program) = program else {
        let own = std::fs::read_link("/proc/self/exe")?;
        let (folder, name) = (own.parent().unwrap_or(Path::new("/")), own.file_name().unwrap_or_default());
        return open_sealed(folder, Path::new(name)).or_else(|_| open_plain(&own));
    };
    installed(program, Path::new(FOLDER))
        .and_then(|folder| open_sealed(&folder, Path::new(NAME)))
        .or_else(|_| in_memory(program))
}

/// The folder with the program as a file. A file that differs is of another version: it is replaced, who runs it goes on with the old one.
fn installed(program: &[u8], folder: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(folder)?;
    if !metadata.is_dir()
        || metadata.uid() != rustix::process::geteuid().as_raw()
        || metadata.mode() & 0o022 != 0
    {
        return Err(io::Error::other(format!("{} is not a folder of our own", folder.display())));
    }
    let path = folder.join(NAME);
    if bundle::read(&path).ok().as_deref() != Some(program) {
        sys::file::write_atomic(&path, program, 0o500, sys::file::Durability::Process)?;
    }
    Ok(folder.into())
}

/// Opens `name` in `folder` through a file system to which nobody can write.
fn open_sealed(folder: &Path, name: &Path) -> io::Result<OwnedFd> {
    let text = folder.to_str().filter(|text| !text.contains([':', ',', '\\']) && text.len() < 120);
    let text = text.ok_or(io::ErrorKind::InvalidInput)?;
    // Without an upper layer overlayfs wants two lower ones.
    let lowers = format!("{text}:{text}/.");
    let other = format!("{text}:/proc/self");
    let overlay = |lowers: &str| {
        let attributes = attribute::RDONLY | attribute::NODEV | attribute::NOSUID;
        sys::mount::new_filesystem("overlay", &[Parameter::Value("lowerdir", lowers)], attributes)
    };
    let mount = overlay(&lowers).or_else(|_| overlay(&other))?;
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
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // Opened for reading too: nobody has to read it, and it never breaks.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = rustix::fs::open(bundle::LOG, flags, Mode::empty());
    rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null))?;
    // Both are moved out of the way, so that 3 is the lowest that is free when everything else is closed.
    let listener = rustix::io::fcntl_dupfd_cloexec(listener, 10)?;
    let program = rustix::io::fcntl_dupfd_cloexec(program, 10)?;
    sys::parent::close_all_except(&[listener.as_fd(), program.as_fd()])?;
    let third = rustix::io::fcntl_dupfd_cloexec(&listener, 3)?;
    rustix::io::fcntl_setfd(&third, rustix::io::FdFlags::empty())?;
    Err(sys::process::exec_descriptor(program.as_fd(), argv, environment))
}
