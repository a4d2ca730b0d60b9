//! Runs this program from a sealed copy in memory, so that a container cannot overwrite the file on disk (CVE-2019-5736).

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{MemfdFlags, SealFlags};

/// Executes this program again from a sealed memfd, with the same arguments and environment. Returns `Ok` if it runs from one already.
///
/// # Errors
/// The copy could not be made or executed; nothing has changed then.
pub fn seal_self() -> io::Result<()> {
    let own = std::fs::File::open("/proc/self/exe")?;
    if is_sealed(&own) {
        return Ok(());
    }
    Err(execute_sealed(own, std::env::args_os()))
}

/// Executes `program`, a smaller one that has the OCI command line as its command `oci`, from a sealed memfd with `arguments` for it.
/// Returns `Ok` if this program runs from one already.
///
/// # Errors
/// As [`seal_self`].
pub(crate) fn seal_as(program: &[u8], arguments: &[OsString]) -> io::Result<()> {
    if is_sealed(&std::fs::File::open("/proc/self/exe")?) {
        return Ok(());
    }
    let first = std::env::args_os().next().unwrap_or_default();
    Err(execute_sealed(program, [first, "oci".into()].into_iter().chain(arguments.iter().cloned())))
}

/// Returns only why it could not be executed.
fn execute_sealed(program: impl io::Read, arguments: impl Iterator<Item = OsString>) -> io::Error {
    match sealed(program, arguments) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn sealed(
    mut program: impl io::Read,
    arguments: impl Iterator<Item = OsString>,
) -> io::Result<std::convert::Infallible> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match rustix::fs::memfd_create(c"pintle", flags | MemfdFlags::from_bits_retain(MFD_EXEC)) {
        // Kernels before 6.3 do not know the flag and make every memfd executable.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"pintle", flags)?,
        other => other?,
    };
    let mut file = std::fs::File::from(copy);
    io::copy(&mut program, &mut file)?;
    file.flush()?;
    rustix::fs::fcntl_add_seals(&file, seals())?;
    // A descriptor open for writing cannot be executed: it is opened again for reading.
    let program = std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    drop(file);
    let arguments = strings(arguments)?;
    let environment = strings(std::env::vars_os().map(|(mut key, value)| {
        key.push("=");
        key.push(value);
        key
    }))?;
    Err(sys::process::exec_descriptor(program.as_fd(), &arguments, &environment))
}

const MFD_EXEC: u32 = 0x10;

fn seals() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

fn is_sealed(file: &std::fs::File) -> bool {
    rustix::fs::fcntl_get_seals(file).is_ok_and(|present| present.contains(seals()))
}

fn strings(items: impl Iterator<Item = OsString>) -> io::Result<Vec<CString>> {
    items.map(|item| CString::new(item.into_vec()).map_err(|_| io::ErrorKind::InvalidInput.into())).collect()
}
