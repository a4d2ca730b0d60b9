//! A pod with users of its own: its other namespaces are made inside a user namespace, so that they belong to it.
//!
//! The shim itself stays the host's root, and only enters the namespaces that were made.

use super::{At, SetupError, pid_init, sysctl};
use crate::config::{IdRange, NamespaceMode, PidMode, ShimConfig};
use crate::protocol::ErrorCode;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use sys::namespace::kind;
use sys::process::{Child, Cloned};
use sys::socket;

/// What is held of such a pod.
pub(super) struct Inside {
    /// The user namespace, by which containers join it and mounts get its map. It lives as long as the shim.
    pub(super) namespace: OwnedFd,
    /// The first process of the pod's pid namespace, if the pod has one.
    pub(super) pid_init: Option<Child>,
}

/// What the first process of the user namespace says when it has done its part.
#[derive(Serialize, Deserialize)]
struct Failed {
    code: String,
    stage: String,
    cause: String,
}

/// Makes the pod's namespaces and enters them. Their first process, which the kernel gives all rights in them, sets the sysctls: the
/// host's root may not write those of a foreign ipc namespace. It is the pod's `init` after that, or ends.
pub(super) fn make(
    config: &ShimConfig,
    uids: &[IdRange],
    gids: &[IdRange],
    shared: u64,
) -> Result<Inside, SetupError> {
    let shared_pids = config.namespaces.pid == PidMode::Pod;
    let labels = config.selinux.as_ref();
    let root = shared_pids.then(|| pid_init::empty_root(labels)).transpose().at("pid namespace")?;
    let (ours, theirs) = socket::packet_pair().at("user namespace")?;
    let pids = if shared_pids { kind::PID } else { 0 };
    let child = match sys::process::clone_process(kind::USER | shared | pids, None).at("user namespace")? {
        Cloned::Parent(child) => child,
        Cloned::Child => {
            drop(ours);
            first(config, theirs.as_fd(), root);
            sys::process::exit_now(1)
        }
    };
    drop(theirs);
    match enter(&child, ours.as_fd(), uids, gids, shared) {
        Ok(namespace) if shared_pids => Ok(Inside { namespace, pid_init: Some(child) }),
        result => {
            child.kill_and_reap();
            result.map(|namespace| Inside { namespace, pid_init: None })
        }
    }
}

fn enter(
    child: &Child,
    channel: BorrowedFd<'_>,
    uids: &[IdRange],
    gids: &[IdRange],
    shared: u64,
) -> Result<OwnedFd, SetupError> {
    let ranges = |list: &[IdRange]| list.iter().map(|range| range.to_sys()).collect::<Vec<_>>();
    sys::users::write_maps(child.pid, &ranges(uids), &ranges(gids)).at("user namespace")?;
    let namespace = File::open(format!("/proc/{}/ns/user", child.pid)).at("user namespace")?;
    socket::send(channel, b"go", &[]).at("user namespace")?;
    let mut buffer = [0; 4096];
    let (length, _) = socket::receive(channel, &mut buffer).at("user namespace")?;
    match &buffer[..length] {
        b"done" => {}
        [] => return Err("its first process ended without a word").at("user namespace"),
        failed => {
            let failed: Failed = serde_json::from_slice(failed).at("user namespace")?;
            let code = ErrorCode::parse(&failed.code);
            return Err(SetupError { code, stage: failed.stage.into(), cause: failed.cause });
        }
    }
    if shared != 0 {
        sys::namespace::join(child.pidfd.as_fd(), shared).at("namespaces")?;
    }
    Ok(namespace.into())
}

/// The first process of the user namespace. Returns only to end.
fn first(config: &ShimConfig, channel: BorrowedFd<'_>, root: Option<OwnedFd>) {
    // Without maps it is nobody; the answer to its waiting is that there are maps now, or that the shim has ended.
    let told = socket::receive(channel, &mut [0; 8]);
    if !matches!(told, Ok((1.., _))) {
        return;
    }
    let prepared = sys::users::become_root()
        .at("user namespace")
        .and_then(|()| sysctl::apply(config).map_err(SetupError::from))
        .and_then(|()| {
            let labels = config.selinux.as_ref();
            root.map_or(Ok(()), |root| pid_init::confine(&root, labels).at("pid namespace"))
        });
    // A change of ids or capabilities takes the wish away that it should end with the shim.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let text = match prepared {
        Ok(()) => b"done".to_vec(),
        Err(SetupError { code, stage, cause }) => {
            let failed = Failed { code: code.name().into(), stage: stage.into_owned(), cause };
            serde_json::to_vec(&failed).unwrap_or_default()
        }
    };
    if socket::send(channel, &text, &[]).is_err() {
        return;
    }
    if config.namespaces.pid == PidMode::Pod {
        let _ = pid_init::reap_for_ever();
    }
    // The namespaces are entered while this process is there; the end comes by a signal, or with the shim.
    let _ = socket::receive(channel, &mut [0; 8]);
}

/// The kinds of namespaces that the pod has of its own, but for that of users and processes.
pub(super) fn shared_kinds(config: &ShimConfig) -> u64 {
    let modes = config.namespaces;
    [(modes.net, kind::NETWORK), (modes.ipc, kind::IPC), (modes.uts, kind::UTS)]
        .into_iter()
        .filter(|(mode, _)| *mode == NamespaceMode::New)
        .fold(0, |kinds, (_, kind)| kinds | kind)
}
