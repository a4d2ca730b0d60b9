//! A container's spec as its handler wants it.

use std::collections::BTreeMap;
use std::path::Path;

use model::id::ContainerId;
use model::request::{ContainerRequest, PodRequest};
use oci_spec::runtime::{LinuxDeviceCgroup, Mount, Spec};

use super::{Features, Handler, HandlerError, PrivilegedPolicy, base_spec};

/// What a runtime needs for a mount that is read-only with all below it.
pub(crate) const RECURSIVE_READ_ONLY: &str = "mounts that are read-only recursively";

/// The keys by which CRI runtimes say what a container is; no request changes what they say.
const OURS: &str = "io.kubernetes.cri.";

/// What the spec is of.
pub(crate) struct Adapted<'a> {
    pub(crate) pod: &'a PodRequest,
    pub(crate) pod_dir: &'a Path,
    pub(crate) id: &'a ContainerId,
    pub(crate) container: &'a ContainerRequest,
    /// What the runtime of this program can do here.
    pub(crate) builtin: Features,
}

/// Changes `spec`, which is as the runtime of this program takes it.
pub(crate) fn adapt(handler: &Handler, spec: Spec, of: &Adapted<'_>) -> Result<Spec, HandlerError> {
    let config = &handler.config;
    if of.container.security.privileged && config.privileged == PrivilegedPolicy::Refuse {
        return Err(HandlerError::Privileged { name: config.name.clone() });
    }
    let mut spec = match &config.base_spec {
        Some(path) => base_spec::put_on(path, &spec)?,
        None => spec,
    };
    if of.container.security.privileged && config.privileged == PrivilegedPolicy::WithoutHostDevices {
        without_host_devices(&mut spec, of.container);
    }
    let mut annotations = spec.annotations().clone().unwrap_or_default();
    let passed = passed(&of.pod.annotations, &config.pod_annotations);
    annotations.extend(passed.chain(self::passed(&of.container.annotations, &config.container_annotations)));
    spec.set_annotations(Some(annotations));
    if handler.is_foreign() {
        for_foreign(handler, &mut spec, of)?;
    }
    Ok(spec)
}

/// The annotations whose keys one of the patterns allows.
pub(super) fn passed<'a>(
    annotations: &'a BTreeMap<String, String>,
    patterns: &'a [String],
) -> impl Iterator<Item = (String, String)> + use<'a> {
    let allowed = |key: &str| !key.starts_with(OURS) && patterns.iter().any(|pattern| matches(pattern, key));
    annotations.iter().filter(move |(key, _)| allowed(key)).map(|(key, value)| (key.clone(), value.clone()))
}

/// A pattern is a key, or the beginning of keys with a `*` behind it.
fn matches(pattern: &str, key: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == key, |beginning| key.starts_with(beginning))
}

/// What was asked for by name stays.
fn without_host_devices(spec: &mut Spec, container: &ContainerRequest) {
    let Some(mut linux) = spec.linux().clone() else { return };
    let asked = |path: &Path| container.devices.iter().any(|device| path.starts_with(&device.container_path));
    let nodes: Vec<_> = linux.devices().iter().flatten().filter(|node| asked(node.path())).cloned().collect();
    let mut rules = spec::plain_device_rules();
    rules.extend(nodes.iter().map(|node| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true).set_typ(Some(node.typ())).set_access(Some("rwm".into()));
        rule.set_major(Some(node.major())).set_minor(Some(node.minor()));
        rule
    }));
    let mut resources = linux.resources().clone().unwrap_or_default();
    resources.set_devices(Some(rules));
    linux.set_devices(Some(nodes)).set_resources(Some(resources));
    spec.set_linux(Some(linux));
}

/// What other runtimes are told that the spec is of. It only declares: crun before 1.8.3 refuses newer ones, and who knows newer fields
/// reads them whatever it says.
const OLDEST_VERSION: &str = "1.0.2";

/// Descriptors are passed to the runtime of this program only; others find what is attached by its path.
fn for_foreign(handler: &Handler, spec: &mut Spec, of: &Adapted<'_>) -> Result<(), HandlerError> {
    if let Some(variable) = raw_variable(of.container) {
        return Err(HandlerError::RawEnvironment { variable });
    }
    let wants = |option: &str| {
        let options = spec.mounts().iter().flatten().filter_map(|mount| mount.options().as_ref()).flatten();
        options.into_iter().any(|wanted| wanted == option)
    };
    if wants("rro") {
        handler.need(of.builtin, RECURSIVE_READ_ONLY, |has| has.recursive_read_only)?;
    }
    if wants("ridmap") {
        handler.need(of.builtin, "mounts with mapped owners", |has| has.user_namespaces)?;
    }
    spec.set_version(OLDEST_VERSION.into());
    let mut root = spec.root().clone().unwrap_or_default();
    root.set_path(shim::config::root_path(of.pod_dir, of.id.as_str()));
    spec.set_root(Some(root));
    let users = of.pod.namespaces.user.as_ref();
    let mounts = spec.mounts().iter().flatten().map(|mount| {
        let mut mount = mount.clone();
        attach_by_path(&mut mount, of);
        if let Some(users) = users.filter(|_| is_mapped(&mount)) {
            mount.set_uid_mappings(Some(spec::id_mappings(&users.uids)));
            mount.set_gid_mappings(Some(spec::id_mappings(&users.gids)));
        }
        mount
    });
    let mounts = mounts.collect();
    spec.set_mounts(Some(mounts));
    Ok(())
}

fn is_mapped(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|option| option == "ridmap")
}

fn attach_by_path(mount: &mut Mount, of: &Adapted<'_>) {
    let number = mount.source().as_ref().and_then(|source| source.to_str()?.parse().ok());
    if let Some(number) = number.filter(|_| mount.typ().as_deref() == Some("descriptor")) {
        let path = shim::config::volume_path(of.pod_dir, of.id.as_str(), number);
        mount.set_typ(Some("bind".into())).set_source(Some(path));
    }
}

/// The first variable whose value the runtime spec cannot carry.
fn raw_variable(container: &ContainerRequest) -> Option<String> {
    let raw = spec::raw_environment(container);
    let end = raw.iter().position(|byte| *byte == b'=')?;
    Some(String::from_utf8_lossy(&raw[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_pattern_allows_is_passed_on() {
        let annotations: BTreeMap<String, String> = [
            "io.katacontainers.config",
            "io.katacontainers",
            "dev.gvisor.x",
            "io.kubernetes.cri.sandbox-id",
            "a",
        ]
        .map(|key| (key.to_owned(), "v".to_owned()))
        .into();
        let keys = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            let mut keys: Vec<String> = passed(&annotations, &patterns).map(|(key, _)| key).collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&[]), [""; 0]);
        assert_eq!(keys(&["io.katacontainers.*"]), ["io.katacontainers.config"]);
        assert_eq!(keys(&["a", "b"]), ["a"]);
        assert_eq!(keys(&["*"]), ["a", "dev.gvisor.x", "io.katacontainers", "io.katacontainers.config"]);
    }
}
