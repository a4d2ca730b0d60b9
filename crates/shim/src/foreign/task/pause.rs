//! The bundle of what stands for the pod in a foreign shim: the container that does nothing, or only its annotations.

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
