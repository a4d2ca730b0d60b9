//! The first process of a pod's shared pid namespace: it reaps what is orphaned there and does nothing else.

use crate::config::PodLabels;
use crate::messages::info;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use sys::mount::{Change, Parameter, Propagation, attribute};
use sys::namespace::kind;
use sys::process::{Child, Cloned};

/// Starts it in a new pid namespace, with nothing of the host: every container of the pod sees it, and one that may trace processes could
/// otherwise reach the host's files by its `/proc/1/root`, or the host's mounts by its `/proc/1/ns/mnt`.
///
/// It ends with its parent; all processes of the namespace end with it (pid_namespaces(7)).
pub(super) fn start(labels: Option<&PodLabels>) -> io::Result<Child> {
    let empty = empty_root(labels)?;
    match sys::process::clone_process(kind::PID, None)? {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => {
            let _ = confine(&empty, labels).and_then(|()| reap_for_ever());
            sys::process::exit_now(1)
        }
    }
}

/// An empty file system that nobody can write to, attached nowhere.
pub(super) fn empty_root(labels: Option<&PodLabels>) -> io::Result<OwnedFd> {
    let attributes = attribute::RDONLY | attribute::NOSUID | attribute::NODEV | attribute::NOEXEC;
    let context = labels.map(|labels| Parameter::Value("context", &labels.file));
    let parameters: Vec<_> = context.into_iter().chain([Parameter::Value("size", "4096")]).collect();
    sys::mount::new_filesystem("tmpfs", &parameters, attributes)
}

/// Takes this process's rights and all files of the host from it: `root` is all that its own mount namespace has.
pub(super) fn confine(root: &OwnedFd, labels: Option<&PodLabels>) -> io::Result<()> {
    let label = OFlags::WRONLY | OFlags::CLOEXEC;
    let label =
        labels.map(|_| rustix::fs::open("/proc/self/attr/current", label, Mode::empty())).transpose()?;
    sys::namespace::leave(kind::MOUNT)?;
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Or the host's own would be unmounted where mounts are shared.
    let private = Change { propagation: Some(Propagation::Private), ..Change::default() };
    sys::mount::set_attributes(old.as_fd(), true, &private)?;
    sys::mount::attach(root.as_fd(), old.as_fd())?;
    rustix::process::fchdir(root)?;
    match rustix::process::pivot_root(c".", c".") {
        // The old root lies on top of the new one now; "." leads to it.
        Ok(()) => rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH)?,
        // An initramfs as the host's root is no mount that can be left.
        Err(Errno::INVAL) => rustix::process::chroot(c".")?,
        Err(error) => return Err(error.into()),
    }
    rustix::process::chdir(c"/")?;
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets)?;
    if let (Some(file), Some(labels)) = (label, labels) {
        // A policy that lets its container engines take labels by exec alone leaves it the shim's, which only hides it from containers.
        if let Err(error) = rustix::io::write(&file, labels.process.as_bytes()) {
            info!("the first process of the pod's pid namespace has no label {}: {error}", labels.process);
        }
    }
    Ok(())
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
