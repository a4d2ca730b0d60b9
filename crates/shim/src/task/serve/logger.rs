//! Programs that take the output of a process, as `binary://` names them: output is their descriptor 3, errors 4, and by 5 they say that
//! they are ready.

use super::stdio::Program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use sys::process::{Child, Cloned};

/// How long one may take until it is ready.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Starts one, without waiting until it is ready: what says so is given back beside it.
pub(super) fn start(
    program: &Program,
    (id, namespace): (&str, &str),
    sources: [Option<&OwnedFd>; 2],
) -> io::Result<(Child, OwnedFd)> {
    let bad = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let path = CString::new(program.path.as_os_str().as_bytes()).map_err(bad)?;
    let mut argv = vec![path.clone()];
    for argument in &program.arguments {
        argv.push(CString::new(argument.as_str()).map_err(bad)?);
    }
    let environment = [format!("CONTAINER_ID={id}"), format!("CONTAINER_NAMESPACE={namespace}")]
        .into_iter()
        .map(CString::new)
        .collect::<Result<Vec<_>, _>>()
        .map_err(bad)?;
    let (ready, says) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    match sys::process::clone_process(0, None)? {
        Cloned::Parent(child) => Ok((child, ready)),
        Cloned::Child => {
            let _ = become_program(&path, &argv, &environment, sources, &says);
            sys::process::exit_now(127)
        }
    }
}

/// Waits until it is ready. To be called where waiting harms nobody.
///
/// # Errors
/// It ended without a word, or says nothing.
pub(super) fn wait_until_ready(ready: &OwnedFd, must_say: bool) -> io::Result<()> {
    let mut set = [PollFd::new(ready, PollFlags::IN)];
    match poll(&mut set, Some(&PATIENCE)) {
        Ok(0) => {
            let why = format!("the program that takes the output is not ready after {} s", PATIENCE.tv_sec);
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(_) | Err(Errno::INTR) => {}
        Err(cause) => return Err(cause.into()),
    }
    match rustix::io::read(ready, &mut [0; 1][..])? {
        0 if must_say => {
            Err(io::Error::other("the program that takes the output ended without saying that it is ready"))
        }
        _ => Ok(()),
    }
}

fn become_program(
    path: &CString,
    argv: &[CString],
    environment: &[CString],
    sources: [Option<&OwnedFd>; 2],
    says: &OwnedFd,
) -> io::Result<()> {
    // It is closed below, and must not be closed once more if the program cannot be executed.
    let null =
        ManuallyDrop::new(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
    let [output, errors] = sources.map(|source| source.unwrap_or(&null));
    // All are moved out of the way, so that 3, 4 and 5 are the lowest that are free when everything else is closed.
    let moved = [output, errors, says].map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 10));
    let moved = moved.into_iter().collect::<Result<Vec<_>, _>>()?;
    sys::parent::close_all_except(&moved.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
    let placed =
        moved.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3)).collect::<Result<Vec<_>, _>>()?;
    for fd in &placed {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
    }
    let _ = rustix::process::setsid();
    sys::signal::reset_all()?;
    Err(sys::process::exec(path, argv, environment))
}
