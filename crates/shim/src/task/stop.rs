//! `delete`: cleans up a task whose server is gone, and prints how it ended. It is also called after every task that ended as it should.

use super::flags::Flags;
use super::{bundle, rootfs};
use crate::parent::helper::Report;
use crate::parent::{now_ns, work};
use crate::protocol::ErrorCode;
use prost::Message;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use task::{DeleteResponse, Timestamp};

/// What a task ended with that was killed here: 128 + SIGKILL.
const KILLED: u32 = 137;

pub(super) fn delete(flags: &Flags) -> io::Result<()> {
    let bundle = match &flags.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir()?,
    };
    let (pid, cleaned) = clean(&bundle, &flags.id);
    let mut left: Vec<String> = cleaned.err().into_iter().collect();
    if !is_served(&bundle) {
        // containerd 2 asks only for the first task of a pod; the others of a server that died would stay for ever.
        for (other, id) in tasks_of_pod(&bundle, &flags.id) {
            left.extend(clean(&other, &id).1.err());
        }
    }
    if !left.is_empty() {
        // It goes into containerd's log as a warning.
        eprintln!("{}", left.join("; "));
    }
    let exit = bundle::read_exit(&bundle).unwrap_or_default();
    let ended = exit.exited_at_ns != 0;
    let response = DeleteResponse {
        pid: if ended { exit.pid } else { pid },
        exit_status: if ended { exit.code } else { KILLED },
        exited_at: Some(Timestamp::from_ns(if ended { exit.exited_at_ns } else { now_ns() })),
    };
    io::stdout().write_all(&response.encode_to_vec())
}

/// Kills and removes a task, whatever its state is: the pid that it had, and what could not be done.
fn clean(bundle: &Path, id: &str) -> (u32, Result<(), String>) {
    let root = bundle::state_root(bundle);
    let pid = runtime::state(&root, id).map_or(0, |(record, _)| record.pid.cast_unsigned());
    let removed = match work::remove(&root, id, bundle, true) {
        Report::Done { .. } => Ok(()),
        other => Err(other.into_error(ErrorCode::DeleteFailed).message),
    };
    let _ = rustix::fs::rmdir(&root);
    let unmounted = rootfs::unmount(&bundle.join(bundle::ROOTFS)).map_err(|cause| cause.to_string());
    (pid, removed.and(unmounted))
}

/// Whether somebody listens at the address that a bundle names. If nobody does, the address is taken away.
fn is_served(bundle: &Path) -> bool {
    let address = bundle::read(&bundle.join(bundle::ADDRESS)).unwrap_or_default();
    let path = std::str::from_utf8(&address).ok().and_then(|address| address.trim().strip_prefix("unix://"));
    path.map(Path::new).is_some_and(|path| {
        let served = sys::socket::connect(path).is_ok();
        if !served {
            let _ = rustix::fs::unlink(path);
        }
        served
    })
}

/// The bundles beside this one which containerd has marked as of this pod.
fn tasks_of_pod(bundle: &Path, pod: &str) -> Vec<(PathBuf, String)> {
    let entries = bundle.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let of_pod = |path: &Path| {
        bundle::read(&path.join("sandbox")).is_ok_and(|name| name.trim_ascii() == pod.as_bytes())
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let id = entry.file_name().into_string().ok()?;
            Some((entry.path(), id)).filter(|(path, id)| id != pod && !id.starts_with('.') && of_pod(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_of_the_same_pod_are_found_beside_a_bundle() {
        let folder = tempfile::tempdir().unwrap();
        for (name, pod) in [("pod", "pod"), ("one", "pod"), ("two", "other"), (".three", "pod")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("sandbox"), pod).unwrap();
        }
        std::fs::create_dir(folder.path().join("four")).unwrap();
        let found = tasks_of_pod(&folder.path().join("pod"), "pod");
        assert_eq!(found.iter().map(|(_, id)| &**id).collect::<Vec<_>>(), ["one"]);
    }

    #[test]
    fn nobody_serves_a_bundle_without_an_address() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_served(folder.path()));
        std::fs::write(folder.path().join(bundle::ADDRESS), "unix:///nowhere/at/all").unwrap();
        assert!(!is_served(folder.path()));
    }
}
