//! The namespaces of a container: its own, its pod's, or the host's.

use std::path::Path;

use model::request::{IdMapping, NamespaceMode, PidNamespace};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType};

use crate::error::SpecError;
use crate::input::{CgroupVersion, PidPlan, SpecInput};

/// The list of the runtime spec: what is not in it is the host's.
///
/// With cgroup v2 a container has a cgroup namespace, so that it sees its own cgroup as the root; privileged ones see the host's. With
/// v1 the runtime mounts the container's own directories, and there is nothing to hide.
pub(crate) fn of_container(input: &SpecInput<'_>) -> Result<Vec<LinuxNamespace>, SpecError> {
    agree(input)?;
    let plan = input.namespaces;
    let mut namespaces = vec![new(LinuxNamespaceType::Mount)];
    let joined = [
        (LinuxNamespaceType::User, &plan.user),
        (LinuxNamespaceType::Network, &plan.network),
        (LinuxNamespaceType::Ipc, &plan.ipc),
        (LinuxNamespaceType::Uts, &plan.uts),
    ];
    for (kind, path) in joined {
        if let Some(path) = path {
            namespaces.push(join(kind, path));
        }
    }
    match &plan.pid {
        PidPlan::Own => namespaces.push(new(LinuxNamespaceType::Pid)),
        PidPlan::Path(path) => namespaces.push(join(LinuxNamespaceType::Pid, path)),
        PidPlan::Host => {}
    }
    if input.host.cgroup == CgroupVersion::V2 && !input.container.security.privileged {
        namespaces.push(new(LinuxNamespaceType::Cgroup));
    }
    Ok(namespaces)
}

/// The id maps of the pod's user namespace, for whoever reads the spec: the namespace has them already.
pub fn id_mappings(mappings: &[IdMapping]) -> Vec<LinuxIdMapping> {
    let one = |mapping: &IdMapping| {
        LinuxIdMappingBuilder::default()
            .host_id(mapping.host_id)
            .container_id(mapping.container_id)
            .size(mapping.length)
            .build()
            .unwrap_or_default()
    };
    mappings.iter().map(one).collect()
}

/// A container cannot have more of the host than its pod was allowed.
fn agree(input: &SpecInput<'_>) -> Result<(), SpecError> {
    let (asked, pod) = (&input.container.security.namespaces, &input.pod.namespaces);
    let refuse = |namespace| Err(SpecError::HostNamespace { namespace });
    if asked.user.is_some() && asked.user != pod.user {
        return Err(SpecError::UserNamespace);
    }
    if asked.network == NamespaceMode::Host && pod.network != NamespaceMode::Host {
        return refuse("network");
    }
    if asked.ipc == NamespaceMode::Host && pod.ipc != NamespaceMode::Host {
        return refuse("IPC");
    }
    if asked.pid == PidNamespace::Host && pod.pid != PidNamespace::Host {
        return refuse("PID");
    }
    Ok(())
}

fn new(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(None);
    namespace
}

fn join(kind: LinuxNamespaceType, path: &Path) -> LinuxNamespace {
    let mut namespace = new(kind);
    namespace.set_path(Some(path.to_owned()));
    namespace
}
