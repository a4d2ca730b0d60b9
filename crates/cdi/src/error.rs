//! Why a device cannot be given to a container, and why a file describes none.

use std::path::PathBuf;

/// Why a container cannot have the devices it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("{given:?} is no name of a CDI device; those are of the form vendor.com/class=device")]
    Name { given: String },
    #[error(
        "annotation {key:?}: {given:?} is no name of a CDI device; those are of the form vendor.com/class=device"
    )]
    Annotation { key: String, given: String },
    #[error("no CDI file describes the device {device}{}", beside(.unreadable))]
    Unknown { device: String, unreadable: Vec<FileError> },
    #[error("the CDI device {device} is described twice, by {} and {}", first.display(), second.display())]
    Ambiguous { device: String, first: PathBuf, second: PathBuf },
    #[error("the CDI device {device} of {}: {why}", file.display())]
    Edit { device: String, file: PathBuf, why: String },
}

fn beside(unreadable: &[FileError]) -> String {
    let files: Vec<String> = unreadable.iter().map(ToString::to_string).collect();
    if files.is_empty() {
        String::new()
    } else {
        format!("; files that cannot be used: {}", files.join("; "))
    }
}

/// A file that describes no devices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub why: String,
}
