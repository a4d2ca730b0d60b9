//! What stands for the pod in a foreign runtime: the bundle of the container that does nothing, or only its annotations, and its process.

use crate::config::{SandboxRecord, sandbox_record_path};
use std::io;
use std::path::{Path, PathBuf};

/// Where it is: some shims look for the bundle of what they are to clean up beside the folder that they are called in, by its id.
pub(crate) fn bundle(pod_dir: &Path, pod_id: &str) -> PathBuf {
    pod_dir.join("sandbox").join(pod_id)
}

/// Writes it, anew if there was one.
pub(super) fn write(pod_dir: &Path, pod_id: &str, spec: &[u8]) -> io::Result<()> {
    let bundle = bundle(pod_dir, pod_id);
    std::fs::create_dir_all(&bundle)?;
    std::fs::write(bundle.join("config.json"), spec)
}

/// Writes down which process it is.
pub(super) fn record(pod_dir: &Path, pid: i32) -> io::Result<()> {
    let record = SandboxRecord { pid, start_time: sys::process::start_time(pid)? };
    let bytes = serde_json::to_vec(&record)?;
    sys::file::write_atomic(&sandbox_record_path(pod_dir), &bytes, 0o600, sys::file::Durability::Process)
}

/// Whether a process is the one that stands for the pod, and with some runtimes for all its containers.
pub(super) fn is(pod_dir: &Path, pid: i32) -> bool {
    let record = std::fs::read(sandbox_record_path(pod_dir)).ok();
    let record: Option<SandboxRecord> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    record.is_some_and(|record| {
        record.pid == pid && sys::process::start_time(pid).is_ok_and(|time| time == record.start_time)
    })
}

/// There is none any more.
pub(super) fn forget(pod_dir: &Path) {
    let _ = std::fs::remove_file(sandbox_record_path(pod_dir));
}
