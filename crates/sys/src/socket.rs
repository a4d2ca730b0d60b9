//! Unix sockets: addresses longer than `sun_path`, and descriptors sent along with bytes.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The most descriptors that go with one message.
pub const MOST_DESCRIPTORS: usize = 16;

/// A listening stream socket named `name` in `directory`, however long the directory's path is.
///
/// # Errors
/// `AddrInUse` if the name exists.
pub fn listen_in(directory: BorrowedFd<'_>, name: &OsStr, backlog: i32) -> io::Result<OwnedFd> {
    let socket = stream()?;
    rustix::net::bind(&socket, &address_in(directory, name)?)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Connects to the stream socket `name` in `directory`.
pub fn connect_in(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let socket = stream()?;
    rustix::net::connect(&socket, &address_in(directory, name)?)?;
    Ok(socket)
}

/// Connects to the stream socket at `path`, which may be longer than `sun_path`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file name"));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let directory = rustix::fs::open(
        folder,
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    connect_in(std::os::fd::AsFd::as_fd(&directory), name)
}

/// As [`connect`], on a socket that does not block: `WouldBlock` if whoever listens has more waiting than it wants.
pub fn connect_at_once(path: &Path) -> io::Result<OwnedFd> {
    let (Some(name), Some(folder)) = (path.file_name(), path.parent()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no file name"));
    };
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let directory = rustix::fs::open(folder, flags, rustix::fs::Mode::empty())?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address_in(std::os::fd::AsFd::as_fd(&directory), name)?)?;
    Ok(socket)
}

fn stream() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// `sun_path` holds 107 bytes: the directory is named through its descriptor instead.
fn address_in(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<SocketAddrUnix> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    Ok(SocketAddrUnix::new(path)?)
}

/// A connected pair that keeps message boundaries (`SOCK_SEQPACKET`).
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends `bytes` in one message, with copies of `descriptors` (at most [`MOST_DESCRIPTORS`]). No SIGPIPE is raised.
///
/// # Errors
/// The kernel's; `InvalidInput` for too many descriptors; `WriteZero` if a stream took only a part.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(sent) if sent < bytes.len() => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one message (or what a stream has) into `buffer`: how many bytes, and the descriptors that came along, close-on-exec.
/// 0 bytes mean the end.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn names_longer_than_sun_path_work_and_descriptors_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(200)).join("e".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let directory = std::fs::File::open(&deep).unwrap();
        let listener = listen_in(directory.as_fd(), OsStr::new("a.sock"), 1).unwrap();
        let client = connect(&deep.join("a.sock")).unwrap();
        let server = rustix::net::accept(&listener).unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(client.as_fd(), b"hello", &[file.as_fd(), file.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let (length, descriptors) = receive(server.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"hello"[..], 2));
        drop(client);
        assert_eq!(receive(server.as_fd(), &mut buffer).unwrap().0, 0);
    }
}
