//! CDI, the Container Device Interface: devices that vendors describe in files, with everything a container needs to use them.
//!
//! The format is that of <https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>, versions 0.3.0 to 1.1.0.

mod edits;
mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod name;
mod registry;

pub use error::{DeviceError, FileError};
pub use name::{ANNOTATION_PREFIX, requested};
pub use registry::Registry;
