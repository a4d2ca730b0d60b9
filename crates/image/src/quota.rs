//! What the containers of a pod may write, held to by the file system: one project for each pod (project quotas of ext4 and XFS).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sys::quota;

use crate::tree::Usage;

/// The first project that is ours: far above those that the kubelet and people choose.
const FIRST: u32 = 0x5000_0000;
/// The note beside what a container writes that says whose pod it is of.
const NOTE: &str = "pod";

/// The projects of one file system's root file systems.
#[derive(Debug)]
pub(crate) struct Projects {
    folder: PathBuf,
    /// Bytes for each pod.
    limit: u64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u32,
    pods: HashMap<String, Project>,
    /// The pod of each owner.
    owners: HashMap<String, String>,
}

#[derive(Debug)]
struct Project {
    id: u32,
    owners: BTreeSet<String>,
}

impl Projects {
    /// Takes up what is there: `written` are the folders of what containers write, all in `folder`, and `thrown` what is on its way out.
    ///
    /// # Errors
    /// Why the file system cannot, and what would help.
    pub(crate) fn open(
        folder: &Path,
        limit: u64,
        written: &[PathBuf],
        thrown: &[PathBuf],
    ) -> Result<Projects, String> {
        let advice = "mount it with prjquota (ext4 also needs the features `quota` and `project`), or do not set image.pod_write_limit";
        let top = File::open(folder).map_err(|error| error.to_string())?;
        match quota::is_enforced(top.as_fd()) {
            Ok(true) => {}
            Ok(false) => return Err(format!("limits of projects are not enforced there; {advice}")),
            Err(error) => return Err(format!("there are no project quotas: {error}; {advice}")),
        }
        let projects = Projects {
            folder: folder.to_owned(),
            limit,
            table: Mutex::new(Table { next: FIRST, ..Table::default() }),
        };
        for path in thrown.iter().chain(written) {
            let id = File::open(path).and_then(|file| quota::project(file.as_fd())).unwrap_or(0);
            let mut table = projects.table();
            if id < FIRST {
                continue;
            }
            table.next = table.next.max(id.saturating_add(1));
            let pod = written.contains(path).then(|| std::fs::read_to_string(path.join(NOTE)).ok()).flatten();
            if let (Some(pod), Some(owner)) = (pod, path.file_name().and_then(|name| name.to_str())) {
                table.join(&pod, owner, id);
            }
        }
        let ids: Vec<u32> = projects.table().pods.values().map(|project| project.id).collect();
        // The limit may have been another.
        for id in ids {
            quota::set_limit(top.as_fd(), id, limit)
                .map_err(|error| format!("the limit cannot be set: {error}"))?;
        }
        Ok(projects)
    }

    /// Gives `directory`, the folder of what `owner` writes, which is empty, to the pod's project.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn admit(&self, pod: &str, owner: &str, directory: &Path) -> io::Result<()> {
        let top = File::open(&self.folder)?;
        let id = {
            let mut table = self.table();
            let id = match table.pods.get(pod) {
                Some(project) => project.id,
                None => {
                    let id = table.next;
                    table.next = id.checked_add(1).ok_or(io::ErrorKind::QuotaExceeded)?;
                    id
                }
            };
            table.join(pod, owner, id);
            id
        };
        let begin = || {
            quota::set_limit(top.as_fd(), id, self.limit)?;
            quota::set_project(File::open(directory)?.as_fd(), id)?;
            std::fs::write(directory.join(NOTE), pod)
        };
        begin().inspect_err(|_| self.leave(owner))
    }

    /// What an owner wrote is gone.
    pub(crate) fn leave(&self, owner: &str) {
        let Some(id) = self.table().leave(owner) else { return };
        // What is still on its way off the disk is counted, and not limited.
        let lifted = File::open(&self.folder).and_then(|top| quota::set_limit(top.as_fd(), id, 0));
        if let Err(error) = lifted {
            tracing::debug!(project = id, %error, "the limit of a project that nobody has any more stays");
        }
    }

    /// What an owner takes, if the file system knows: if it has a project for itself.
    pub(crate) fn usage(&self, owner: &str) -> Option<Usage> {
        let id = {
            let table = self.table();
            let project = table.pods.get(table.owners.get(owner)?)?;
            (project.owners.len() == 1).then_some(project.id)?
        };
        let used = quota::usage(File::open(&self.folder).ok()?.as_fd(), id).ok()?;
        Some(Usage { bytes: used.bytes, inodes: used.inodes })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn join(&mut self, pod: &str, owner: &str, id: u32) {
        let project = self.pods.entry(pod.to_owned()).or_insert(Project { id, owners: BTreeSet::new() });
        project.owners.insert(owner.to_owned());
        self.owners.insert(owner.to_owned(), pod.to_owned());
    }

    /// The project, if nobody has it any more.
    fn leave(&mut self, owner: &str) -> Option<u32> {
        let pod = self.owners.remove(owner)?;
        let project = self.pods.get_mut(&pod)?;
        project.owners.remove(owner);
        if !project.owners.is_empty() {
            return None;
        }
        self.pods.remove(&pod).map(|project| project.id)
    }
}
