//! Update: changes the resources of a container that exists.

use std::path::Path;

use oci_spec::runtime::LinuxResources;

use crate::error::{Stage, UpdateError, Warning};

/// Applies those of `resources` that are set; the others stay. All or nothing: what was set before a refusal is put back.
///
/// # Errors
/// The cgroup refused a value, or the container is stopped.
pub fn update(state_root: &Path, id: &str, resources: &LinuxResources) -> Result<Vec<Warning>, UpdateError> {
    let told = crate::cgroups::with_group(state_root, id, |group| group.apply(resources))?;
    Ok(told
        .into_iter()
        .map(|warning| Warning {
            stage: Stage::Cgroup,
            message: format!("{}: {}", warning.field, warning.why),
        })
        .collect())
}
