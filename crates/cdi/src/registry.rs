//! The folders of files that describe devices, read when somebody asks for one, and again only where a file has changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::Spec;

use crate::edits;
use crate::error::{DeviceError, FileError};
use crate::file::{self, Described, Form};
use crate::name::split;

/// The largest file that is read.
const FILE_LIMIT: u64 = 8 << 20;

/// How many files of one folder are looked at.
const FILES: usize = 4096;

/// What tells whether a file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// A file as it was read.
type Known = (Version, Result<Arc<Described>, FileError>);

/// The files of one folder that can be used.
type Folder = Vec<(PathBuf, Arc<Described>)>;

/// The devices of this node. Reading files is left to the moment in which a container wants a device.
#[derive(Debug, Default)]
pub struct Registry {
    folders: Vec<PathBuf>,
    known: Mutex<BTreeMap<PathBuf, Known>>,
}

impl Registry {
    /// Devices that are described in `folders`; a later one replaces what an earlier one says of the same device.
    pub fn new(folders: Vec<PathBuf>) -> Registry {
        Registry { folders, known: Mutex::default() }
    }

    /// Gives a container the devices called `names`. Files that cannot be used are returned; they keep nobody from the others' devices.
    ///
    /// # Errors
    /// A device that no file describes, or two do, or that the host has not. `spec` is in pieces then.
    pub fn inject(&self, spec: &mut Spec, names: &[String]) -> Result<Vec<FileError>, DeviceError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let (folders, unreadable) = self.read();
        let mut begun: Vec<&Path> = Vec::new();
        for name in names {
            let (kind, device) = split(name).ok_or_else(|| DeviceError::Name { given: name.clone() })?;
            let (path, described) = find(&folders, name, kind, device)?.ok_or_else(|| {
                DeviceError::Unknown { device: name.clone(), unreadable: unreadable.clone() }
            })?;
            let failed = |why| DeviceError::Edit { device: name.clone(), file: path.clone(), why };
            if !begun.contains(&path.as_path()) {
                begun.push(path);
                edits::apply(spec, &described.container_edits).map_err(failed)?;
            }
            for found in described.devices.iter().filter(|found| found.name == device) {
                edits::apply(spec, &found.container_edits).map_err(failed)?;
            }
        }
        Ok(unreadable)
    }

    /// The folders as they are now, and the files that cannot be used.
    fn read(&self) -> (Vec<Folder>, Vec<FileError>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut now, mut folders, mut unreadable) = (BTreeMap::new(), Vec::new(), Vec::new());
        for folder in &self.folders {
            let mut described = Vec::new();
            for (path, form) in entries(folder) {
                let read = version(&path).map(|version| match known.remove(&path) {
                    Some(read) if read.0 == version => read,
                    _ => (version, read(&path, form)),
                });
                match &read {
                    Ok((_, Ok(found))) => described.push((path.clone(), found.clone())),
                    Ok((_, Err(error))) => unreadable.push(error.clone()),
                    Err(why) => unreadable.push(FileError { path: path.clone(), why: why.clone() }),
                }
                if let Ok(read) = read {
                    now.insert(path, read);
                }
            }
            folders.push(described);
        }
        *known = now;
        (folders, unreadable)
    }
}

/// The file that describes a device: that of the last folder that has one.
fn find<'a>(
    folders: &'a [Folder],
    name: &str,
    kind: &str,
    device: &str,
) -> Result<Option<&'a (PathBuf, Arc<Described>)>, DeviceError> {
    let describes = |described: &Described| {
        described.kind == kind && described.devices.iter().any(|found| found.name == device)
    };
    for folder in folders.iter().rev() {
        let mut found = folder.iter().filter(|(_, described)| describes(described));
        match (found.next(), found.next()) {
            (None, _) => {}
            (Some(one), None) => return Ok(Some(one)),
            (Some((first, _)), Some((second, _))) => {
                let (first, second) = (first.clone(), second.clone());
                return Err(DeviceError::Ambiguous { device: name.to_owned(), first, second });
            }
        }
    }
    Ok(None)
}

/// The files that may describe devices, by name. That there is no such folder is fine.
fn entries(folder: &Path) -> Vec<(PathBuf, Form)> {
    let paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let form = |path: PathBuf| match path.extension()?.to_str()? {
        "json" => Some((path, Form::Json)),
        "yaml" | "yml" => Some((path, Form::Yaml)),
        _ => None,
    };
    let mut entries: Vec<_> = paths.filter_map(form).take(FILES).collect();
    entries.sort();
    entries
}

fn version(path: &Path) -> Result<Version, String> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    // A pipe in that folder would be waited for for ever.
    if !found.is_file() {
        return Err("is no file".into());
    }
    Ok(Version {
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

fn read(path: &Path, form: Form) -> Result<Arc<Described>, FileError> {
    let read = || -> Result<Described, String> {
        let mut text = String::new();
        let file = File::open(path).map_err(|error| error.to_string())?;
        file.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > FILE_LIMIT {
            return Err(format!("is longer than {FILE_LIMIT} bytes"));
        }
        file::parse(&text, form)
    };
    read().map(Arc::new).map_err(|why| FileError { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests;
