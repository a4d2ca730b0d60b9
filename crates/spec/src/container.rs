//! Puts the parts of a container's spec together.

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxCapabilities, LinuxDevice, LinuxDeviceCgroup, LinuxSeccomp, Root, Spec};

use crate::error::SpecError;
use crate::input::SpecInput;
use crate::path::clean_absolute;
use crate::seccomp_profile::SeccompPlan;
use crate::{annotations, devices, mounts, namespaces, process, resources};

/// The version of the runtime spec that is written: the first with idmapped mounts.
const OCI_VERSION: &str = "1.2.0";

/// The OCI runtime spec of a container (`config.json`).
///
/// Its root is `rootfs`, relative to the bundle. Sysctls and the hostname are not in it: they are the pod's, and set once, when the
/// pod's namespaces are made.
/// CDI devices are left to whoever has the files that describe them.
///
/// # Errors
/// What the request asks for and cannot have; [`SpecError::refusal`] says whose fault it is.
pub fn container_spec(input: &SpecInput<'_>) -> Result<Spec, SpecError> {
    let security = &input.container.security;
    if security.privileged && !input.pod.privileged {
        return Err(SpecError::PrivilegedInPlainPod);
    }
    let (process, capabilities) = process::of_container(input)?;
    let devices = devices::of_container(input)?;
    let mounts = mounts::of_container(input, devices.binds)?;
    let devices = (devices.nodes, devices.rules);
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.into())
        .set_root(Some(root))
        .set_hostname(None)
        .set_process(Some(process))
        .set_mounts(Some(mounts.mounts))
        .set_annotations(Some(annotations::of_container(input)))
        .set_linux(Some(linux(input, &capabilities, devices, mounts.rootfs_propagation)?));
    Ok(spec)
}

fn linux(
    input: &SpecInput<'_>,
    capabilities: &LinuxCapabilities,
    (devices, rules): (Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>),
    rootfs_propagation: Option<&str>,
) -> Result<Linux, SpecError> {
    let mut limits = resources::to_linux(&input.container.resources, input.host)?;
    limits.set_devices(Some(rules));
    let security = &input.container.security;
    let (masked, readonly) = if security.privileged {
        (Vec::new(), Vec::new())
    } else {
        (
            protected("masked_paths", &security.masked_paths)?,
            protected("readonly_paths", &security.readonly_paths)?,
        )
    };
    let mut linux = Linux::default();
    linux
        .set_resources(Some(limits))
        .set_cgroups_path(Some(input.cgroups_path.into()))
        .set_namespaces(Some(namespaces::of_container(input)?))
        .set_devices(Some(devices))
        .set_seccomp(seccomp_of(input, capabilities))
        .set_mount_label(input.selinux.mount.clone())
        .set_rootfs_propagation(rootfs_propagation.map(String::from))
        .set_masked_paths(Some(masked))
        .set_readonly_paths(Some(readonly));
    if let Some(users) = &input.pod.namespaces.user {
        linux
            .set_uid_mappings(Some(namespaces::id_mappings(&users.uids)))
            .set_gid_mappings(Some(namespaces::id_mappings(&users.gids)));
    }
    Ok(linux)
}

fn seccomp_of(input: &SpecInput<'_>, capabilities: &LinuxCapabilities) -> Option<LinuxSeccomp> {
    let host = input.host;
    match input.seccomp {
        _ if input.container.security.privileged => None,
        SeccompPlan::None => None,
        SeccompPlan::Default => {
            let bounding = capabilities.bounding().clone().unwrap_or_default();
            Some(seccomp::default_profile(&bounding, host.kernel, host.architecture))
        }
        SeccompPlan::Profile(profile) => Some(profile.as_ref().clone()),
    }
}

fn protected(list: &'static str, paths: &[PathBuf]) -> Result<Vec<String>, SpecError> {
    let clean = |(index, path): (usize, &PathBuf)| {
        let path = clean_absolute(path).map_err(|path| SpecError::ProtectedPath { list, index, path })?;
        Ok(path.to_string_lossy().into_owned())
    };
    paths.iter().enumerate().map(clean).collect()
}

#[cfg(test)]
mod tests;
