//! Hooks that the node's administrator has put into folders: which of them a container gets, after oci-hooks(5), version 1.0.0.

mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

/// The largest file that is read.
const FILE_LIMIT: u64 = 1 << 20;

/// A file that says nothing usable of a hook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub why: String,
}

/// What of a container decides which hooks it gets, beside its command.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub annotations: &'a BTreeMap<String, String>,
    /// It has files of the host because somebody asked for them.
    pub bind_mounts: bool,
}

/// The folders. Their files are read anew for each container, so that a change needs no word to anybody.
#[derive(Debug, Clone, Default)]
pub struct Folders(Vec<PathBuf>);

impl Folders {
    /// Hooks of `folders`; a file of a later one replaces the file of the same name of an earlier one.
    pub fn new(folders: Vec<PathBuf>) -> Folders {
        Folders(folders)
    }

    /// Whether there are none, so that nothing needs to be looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the hooks that this container gets, in the order of their files' names, behind those it has. Returns the files that
    /// cannot be used.
    pub fn add(&self, spec: &mut Spec, asked: &Asked<'_>) -> Vec<FileError> {
        let mut unusable = Vec::new();
        for (_, path) in self.files() {
            let read = read(&path).and_then(|text| file::parse(&text));
            let described = match read {
                Ok(described) => described,
                Err(why) => {
                    unusable.push(FileError { path, why });
                    continue;
                }
            };
            let command = spec.process().as_ref().and_then(|process| process.args().as_ref()?.first());
            if described.when.matches(asked, command.map(String::as_str).unwrap_or_default()) {
                described.add_to(spec.hooks_mut().get_or_insert_default());
            }
        }
        unusable
    }

    /// The files that count, by name.
    fn files(&self) -> BTreeMap<std::ffi::OsString, PathBuf> {
        let entries = self.0.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
        let named = entries.map(|entry| (entry.file_name(), entry.path()));
        named.filter(|(_, path)| path.extension().is_some_and(|extension| extension == "json")).collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    // A pipe in that folder would be waited for for ever.
    if !fs::metadata(path).map_err(said)?.is_file() {
        return Err("is no file".into());
    }
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text)).map_err(said)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(format!("is longer than {FILE_LIMIT} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
