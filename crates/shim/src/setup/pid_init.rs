//! The first process of a pod's shared pid namespace: it reaps what is orphaned there and does nothing else.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use sys::mount::attribute;
use sys::namespace::kind;
use sys::process::{Child, Cloned};

/// Starts it in a new pid namespace, without any right and with an empty file system as its root: every container of the pod sees it,
/// and one that may trace processes could otherwise reach the host's files by its `/proc/1/root`.
///
/// It ends with its parent; all processes of the namespace end with it (pid_namespaces(7)).
pub(super) fn start() -> io::Result<Child> {
    let empty = empty_root()?;
    match sys::process::clone_process(kind::PID, None)? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => {
            let _ = confine(empty).and_then(|()| reap_for_ever());
            sys::process::exit_now(1)
        }
    }
}

/// An empty file system that nobody can write to, attached nowhere.
pub(super) fn empty_root() -> io::Result<OwnedFd> {
    let attributes = attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
    sys::mount::new_filesystem("tmpfs", &[], attributes)
}

/// Takes this process's rights and all files of the host from it.
pub(super) fn confine(root: OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(".")?;
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// As the first of its namespace it gets no signal from inside for which it has no handler, and it has none.
pub(super) fn reap_for_ever() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let _ = rustix::thread::set_name(c"pintle-init");
    sys::parent::close_all_except(&[])?;
    let events = sys::parent::child_events()?;
    // What it inherited as its standard streams are files of the host.
    rustix::stdio::dup2_stdin(&events)?;
    rustix::stdio::dup2_stdout(&events)?;
    rustix::stdio::dup2_stderr(&events)?;
    let mut note = [0; 1024];
    loop {
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
        let mut set = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
        let _ = poll(&mut set, None);
        let _ = rustix::io::read(&events, &mut note);
    }
}
