//! The file that makes a folder a checkpoint of a pod: what is in it, and of what it was made. Written last, and not trusted when read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use model::digest::Digest;
use model::request::{ContainerRequest, PodRequest};
use serde::{Deserialize, Serialize};

use super::Written;

pub(super) const MANIFEST: &str = "pod-checkpoint.json";
const VERSION: u32 = 1;
const LARGEST: u64 = 16 << 20;
/// Containers of one pod, and more than any has.
const MOST: usize = 1024;

/// A checkpoint of a pod.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    /// What `uname -m` says: processes run nowhere else.
    pub(super) machine: String,
    pub(super) pod: PodRequest,
    pub(super) containers: Vec<Container>,
    pub(super) shared_memory: Option<Written>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) request: ContainerRequest,
    pub(super) image_id: String,
    pub(super) volume_images: Vec<String>,
    pub(super) changes: Written,
}

impl Manifest {
    pub(super) fn new(
        pod: PodRequest,
        containers: Vec<Container>,
        shared_memory: Option<Written>,
    ) -> Manifest {
        Manifest { version: VERSION, machine: machine(), pod, containers, shared_memory }
    }

    /// Writes it, whole or not at all.
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        sys::file::write_atomic(&folder.join(MANIFEST), &bytes, 0o600, sys::file::Durability::Disk)
    }

    /// Reads it.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub(super) fn read(folder: &Path) -> Result<Manifest, String> {
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let mut options = File::options();
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = options.open(folder.join(MANIFEST)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("it has no {MANIFEST}, so that it is none, or one that was not finished")
            }
            _ => format!("{MANIFEST}: {error}"),
        })?;
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(format!("{MANIFEST} is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| format!("{MANIFEST}: {error}"))?;
        if bytes.len() as u64 > LARGEST {
            return Err(format!("{MANIFEST} is larger than {LARGEST} bytes"));
        }
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| format!("{MANIFEST}: {error}"))?;
        if manifest.version != VERSION {
            return Err(format!("it is of version {}, this version knows {VERSION}", manifest.version));
        }
        if manifest.machine != machine() {
            return Err(format!("it was made on {}, and this machine is {}", manifest.machine, machine()));
        }
        if manifest.containers.is_empty() || manifest.containers.len() > MOST {
            return Err(format!("it has {} containers", manifest.containers.len()));
        }
        Ok(manifest)
    }
}

impl Written {
    /// The digest that the file must have.
    pub(super) fn digest(&self) -> Result<Digest, String> {
        Digest::parse(&self.sha256).map_err(|error| format!("{MANIFEST}: {error}"))
    }
}

fn machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}
