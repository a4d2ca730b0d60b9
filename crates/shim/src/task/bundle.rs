//! What lies in a task's bundle: containerd's files, and those that the shim leaves there for its later self.

use crate::protocol::Exit;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// containerd 1.6 finds a shim again by this file.
pub(super) const ADDRESS: &str = "address";

/// The fifo to which a shim writes messages.
pub(super) const LOG: &str = "log";

/// Where the mounts of a task's root file system go.
pub(super) const ROOTFS: &str = "rootfs";

/// The annotations that make several tasks share one shim, the first that is there counts.
const GROUPS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// No configuration and no note is longer.
const LONGEST: u64 = 16 << 20;

/// The runtime's state of the task: it goes with its bundle.
pub(super) fn state_root(bundle: &Path) -> PathBuf {
    bundle.join("pintle")
}

fn exit_path(bundle: &Path) -> PathBuf {
    bundle.join("pintle-exit.json")
}

/// Which shim a task belongs to: that of its group, or its own.
///
/// # Errors
/// The bundle has no configuration that could be read.
pub(super) fn group_of(bundle: &Path, id: &str) -> io::Result<String> {
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    let path = bundle.join("config.json");
    let read = read(&path).and_then(|bytes| Ok(serde_json::from_slice::<Annotated>(&bytes)?));
    let spec = read.map_err(|cause| io::Error::new(cause.kind(), format!("{}: {cause}", path.display())))?;
    let annotations = spec.annotations.unwrap_or_default();
    let group = GROUPS.iter().find_map(|name| annotations.get(*name)).filter(|group| !group.is_empty());
    Ok(group.map_or(id, String::as_str).into())
}

/// Writes down how a task ended, for `delete` if the server should not live until then.
pub(super) fn write_exit(bundle: &Path, exit: &Exit) -> io::Result<()> {
    let bytes = serde_json::to_vec(exit)?;
    sys::file::write_atomic(&exit_path(bundle), &bytes, 0o600, sys::file::Durability::Process)
}

/// How a task ended, if its server came to write that down.
pub(super) fn read_exit(bundle: &Path) -> Option<Exit> {
    serde_json::from_slice(&read(&exit_path(bundle)).ok()?).ok()
}

/// A small file, whole; fifos and devices are none.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    use rustix::fs::{FileType, Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is longer than {LONGEST} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_a_pod_have_one_group() {
        let folder = tempfile::tempdir().unwrap();
        let group = |config: &str| {
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            group_of(folder.path(), "own")
        };
        assert_eq!(group("{}").unwrap(), "own");
        assert_eq!(group(r#"{"annotations":null}"#).unwrap(), "own");
        assert_eq!(group(r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#).unwrap(), "pod");
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(group(both).unwrap(), "g");
        assert_eq!(group(r#"{"annotations":{"io.containerd.runc.v2.group":""}}"#).unwrap(), "own");
        assert!(group("{").unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn an_exit_is_read_back_and_garbage_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_exit(folder.path()), None);
        let exit = Exit { code: 3, pid: 7, exited_at_ns: 9, ..Exit::default() };
        write_exit(folder.path(), &exit).unwrap();
        assert_eq!(read_exit(folder.path()), Some(exit));
        std::fs::write(exit_path(folder.path()), "x").unwrap();
        assert_eq!(read_exit(folder.path()), None);
    }
}
