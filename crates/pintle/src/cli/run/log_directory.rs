//! The log directory of a pod that `run` made: where the kubelet has its own, and removed with the pod.

use super::request::NAMESPACE;
use crate::cli::failure::Failure;
use cri::runtime_v1::PodSandbox;
use std::io;
use std::path::{Path, PathBuf};

/// Annotation that says where a pod's logs are; CRI tells a log path only of containers that still exist.
pub(crate) const ANNOTATION: &str = "pintle.run/log-directory";

/// Makes `ROOT/default_NAME_UID/NAME`, as the kubelet lays it out, and returns the pod's directory.
pub(crate) fn make(root: &Path, name: &str, uid: &str) -> Result<PathBuf, Failure> {
    let directory = root.join(directory_name(name, uid));
    let containers = directory.join(name);
    let cannot =
        |source| Failure::File { what: "making the log directory", path: containers.clone(), source };
    std::fs::create_dir_all(&containers).map_err(cannot)?;
    Ok(directory)
}

/// Removes the logs of a pod that `run` made.
///
/// The path comes back from the runtime, so it is only believed when its last part is the very name that `make` gives this pod.
pub(crate) fn remove(pod: &PodSandbox) -> Result<(), Failure> {
    let metadata = pod.metadata.clone().unwrap_or_default();
    let Some(directory) = pod.annotations.get(ANNOTATION).map(PathBuf::from) else { return Ok(()) };
    let expected = directory_name(&metadata.name, &metadata.uid);
    if directory.file_name() != Some(expected.as_ref()) || !directory.is_absolute() {
        return Ok(());
    }
    match std::fs::remove_dir_all(&directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Failure::File { what: "removing the logs", path: directory, source })
        }
        _ => Ok(()),
    }
}

fn directory_name(name: &str, uid: &str) -> String {
    format!("{NAMESPACE}_{name}_{uid}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cri::runtime_v1::PodSandboxMetadata;

    #[test]
    fn only_the_pods_own_directory_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (ours, other) = (make(root.path(), "a", "1").unwrap(), make(root.path(), "b", "2").unwrap());
        let metadata = PodSandboxMetadata { name: "a".into(), uid: "1".into(), ..Default::default() };
        let mut pod = PodSandbox { metadata: Some(metadata), ..Default::default() };
        pod.annotations.insert(ANNOTATION.into(), other.display().to_string());
        remove(&pod).unwrap();
        assert!(other.exists());
        pod.annotations.insert(ANNOTATION.into(), ours.display().to_string());
        remove(&pod).unwrap();
        assert!(!ours.exists());
        remove(&pod).unwrap();
    }
}
