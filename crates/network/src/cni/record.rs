//! What is remembered of each attachment, on disk, from before ADD until DEL has succeeded.
//!
//! The record holds the configuration that ADD used, so that DEL undoes what was done, also after the configuration was changed or
//! the daemon started anew.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sys::file::{Durability, write_atomic};

use super::config::{NetworkList, PluginConfig};
use super::version::Version;

/// The form of the records written here; a newer one is left alone.
const FORMAT: u32 = 1;

/// How far an attachment has come. Unless it is `Attached` and its pod lives, a DEL is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// ADD was begun and is not known to have succeeded.
    Attaching,
    Attached,
    /// DEL was begun and has not succeeded yet.
    Detaching,
}

/// One attachment of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    pub phase: Phase,
    pub pod_id: String,
    pub pod_name: String,
    pub pod_namespace: String,
    pub pod_uid: String,
    pub netns: String,
    /// Device and inode of the network namespace: a path may later name another one.
    pub netns_id: (u64, u64),
    pub interface: String,
    /// The whole `CNI_ARGS`.
    pub args: String,
    /// What the plugins were offered by capability.
    pub runtime: Map<String, Value>,
    pub network: String,
    version: String,
    disable_check: bool,
    plugins: Vec<Map<String, Value>>,
    /// The final result of ADD; absent where ADD is not known to have succeeded.
    pub result: Option<Value>,
}

/// A record cannot be used. It is never deleted for that.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("attachment record {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("attachment record {} cannot be read ({why}); the pod's DEL is still owed: repair or remove the file", path.display())]
    Unreadable { path: PathBuf, why: String },
}

/// What ADD is about to be called with.
#[derive(Debug, Clone, Default)]
pub struct Attachment {
    pub pod_id: String,
    pub pod_name: String,
    pub pod_namespace: String,
    pub pod_uid: String,
    pub netns: String,
    pub netns_id: (u64, u64),
    pub interface: String,
    pub args: String,
    pub runtime: Map<String, Value>,
}

impl Record {
    pub fn new(attachment: Attachment, list: &NetworkList) -> Record {
        Record {
            format: FORMAT,
            phase: Phase::Attaching,
            pod_id: attachment.pod_id,
            pod_name: attachment.pod_name,
            pod_namespace: attachment.pod_namespace,
            pod_uid: attachment.pod_uid,
            netns: attachment.netns,
            netns_id: attachment.netns_id,
            interface: attachment.interface,
            args: attachment.args,
            runtime: attachment.runtime,
            network: list.name.clone(),
            version: list.version.as_str().into(),
            disable_check: list.disable_check,
            plugins: list.plugins.iter().map(|plugin| plugin.body.clone()).collect(),
            result: None,
        }
    }

    /// The list that ADD used.
    pub fn list(&self) -> Result<NetworkList, String> {
        let version = Version::parse(&self.version).ok_or_else(|| format!("version {:?}", self.version))?;
        let plugins = self.plugins.iter().map(PluginConfig::from_object).collect::<Result<Vec<_>, _>>();
        Ok(NetworkList {
            name: self.network.clone(),
            version,
            versions: vec![version],
            disable_check: self.disable_check,
            disable_gc: false,
            plugins: plugins.map_err(|error| error.to_string())?,
        })
    }
}

/// The folder of the records, one file per pod.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
}

impl Records {
    /// Takes `folder`, making it (mode 0700) where it is missing.
    pub fn open(folder: PathBuf) -> io::Result<Records> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Records { folder })
    }

    fn path(&self, pod_id: &str) -> PathBuf {
        self.folder.join(format!("{pod_id}.json"))
    }

    /// Writes the record whole; it survives the death of the process.
    pub fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(&record.pod_id);
        let bytes = serde_json::to_vec(record)
            .map_err(|error| RecordError::Unreadable { path: path.clone(), why: error.to_string() })?;
        write_atomic(&path, &bytes, 0o600, Durability::Process)
            .map_err(|source| RecordError::Io { path, source })
    }

    /// The record of a pod, if there is one. `pod_id` must be a plain name.
    pub fn read(&self, pod_id: &str) -> Result<Option<Record>, RecordError> {
        read(&self.path(pod_id))
    }

    /// Removes the record; one that is gone already is fine.
    pub fn remove(&self, pod_id: &str) -> Result<(), RecordError> {
        let path = self.path(pod_id);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RecordError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Every record, in the order of pod ids; those that cannot be read come as errors.
    pub fn all(&self) -> Vec<Result<Record, RecordError>> {
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        paths.iter().filter_map(|path| read(path).transpose()).collect()
    }
}

fn read(path: &Path) -> Result<Option<Record>, RecordError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RecordError::Io { path: path.into(), source }),
    };
    let unreadable = |why: String| RecordError::Unreadable { path: path.into(), why };
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if record.format > FORMAT {
        return Err(unreadable(format!("its format {} is from a newer version", record.format)));
    }
    Ok(Some(record))
}
