//! What plugins want of a container that is being created, put into its runtime spec.

mod parts;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hook, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespace, LinuxNamespaceType, Mount,
    PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};

use crate::api;
use crate::error::SpecError;
use crate::limits::{add_limits, device_type};
use crate::owners::unmarked;

/// Adjusts `spec`. The names of CDI devices are left to the caller, who knows what they mean.
///
/// # Errors
/// Something that cannot be expressed in a spec, or that no container can have. The spec is in pieces then.
pub fn adjust_spec(spec: &mut Spec, adjust: &api::ContainerAdjustment) -> Result<(), SpecError> {
    let annotations = spec.annotations_mut().get_or_insert_default();
    for (key, value) in &adjust.annotations {
        match unmarked(key) {
            (key, true) => drop(annotations.remove(key)),
            (key, false) => drop(annotations.insert(key.to_owned(), value.clone())),
        }
    }
    if let Some(hooks) = &adjust.hooks {
        add_hooks(spec, hooks)?;
    }
    process(spec.process_mut().get_or_insert_default(), adjust)?;
    if let Some(linux) = &adjust.linux {
        linux_part(spec, linux)?;
    }
    mounts(spec, &adjust.mounts)
}

fn process(process: &mut Process, adjust: &api::ContainerAdjustment) -> Result<(), SpecError> {
    let environment = process.env_mut().get_or_insert_default();
    for wanted in &adjust.env {
        let (key, removed) = unmarked(&wanted.key);
        if key.is_empty() || key.contains(['=', '\0']) || wanted.value.contains('\0') {
            return Err(refused(
                format!("the environment variable {key:?}"),
                "that is no name, or no value, of one",
            ));
        }
        let named = |line: &String| line.split_once('=').is_some_and(|(name, _)| name == key);
        let place = environment.iter().position(named);
        match (place, removed) {
            (Some(place), true) => drop(environment.remove(place)),
            (Some(place), false) => environment[place] = format!("{key}={}", wanted.value),
            (None, true) => {}
            (None, false) => environment.push(format!("{key}={}", wanted.value)),
        }
    }
    if !adjust.args.is_empty() {
        process.set_args(Some(adjust.args.clone()));
    }
    for wanted in &adjust.rlimits {
        let kind: PosixRlimitType = parts::parse("the resource limit", &wanted.r#type)?;
        let limit = PosixRlimitBuilder::default().typ(kind).hard(wanted.hard).soft(wanted.soft).build();
        let limit = limit.map_err(|why| refused(format!("the resource limit {kind}"), &why.to_string()))?;
        let mut limits = process.rlimits().clone().unwrap_or_default();
        limits.retain(|known| known.typ() != kind);
        limits.push(limit);
        process.set_rlimits(Some(limits));
    }
    let Some(linux) = &adjust.linux else { return Ok(()) };
    if let Some(score) = &linux.oom_score_adj {
        let in_range = i32::try_from(score.value).ok().filter(|score| (-1000..=1000).contains(score));
        let score = in_range.ok_or_else(|| {
            refused(format!("oom_score_adj to {}", score.value), "it is from -1000 to 1000")
        })?;
        process.set_oom_score_adj(Some(score));
    }
    if let Some(priority) = &linux.io_priority {
        process.set_io_priority(parts::io_priority(priority)?);
    }
    if let Some(scheduler) = &linux.scheduler {
        process.set_scheduler(parts::scheduler(scheduler)?);
    }
    Ok(())
}

fn linux_part(spec: &mut Spec, adjust: &api::LinuxContainerAdjustment) -> Result<(), SpecError> {
    let linux = spec.linux_mut().get_or_insert_default();
    for device in &adjust.devices {
        let (path, removed) = unmarked(&device.path);
        let path = Path::new(path);
        linux.devices_mut().get_or_insert_default().retain(|known| known.path() != path);
        if !removed {
            let (node, rule) = node(path, device)?;
            linux.devices_mut().get_or_insert_default().push(node);
            let limits = linux.resources_mut().get_or_insert_default();
            limits.devices_mut().get_or_insert_default().push(rule);
        }
    }
    if let Some(resources) = &adjust.resources {
        add_limits(linux.resources_mut().get_or_insert_default(), resources)?;
    }
    if !adjust.cgroups_path.is_empty() {
        let path = Path::new(&adjust.cgroups_path);
        // What systemd makes has a name and no path.
        let is_named = linux.cgroups_path().as_deref().is_some_and(|own| !own.is_absolute());
        if is_named && (adjust.cgroups_path.contains('/') || adjust.cgroups_path.split(':').count() != 3) {
            return Err(refused(
                format!("the cgroup to {path:?}"),
                "that is not of the form slice:prefix:name",
            ));
        }
        let leads_up = path.components().any(|part| part == std::path::Component::ParentDir);
        if !is_named && (!path.is_absolute() || leads_up) {
            return Err(refused(format!("the cgroup to {path:?}"), "that is no absolute path without '..'"));
        }
        linux.set_cgroups_path(Some(path.to_owned()));
    }
    for namespace in &adjust.namespaces {
        let (kind, removed) = unmarked(&namespace.r#type);
        let typ = LinuxNamespaceType::try_from(kind)
            .map_err(|why| refused(format!("the namespace {kind:?}"), &why.to_string()))?;
        let namespaces = linux.namespaces_mut().get_or_insert_default();
        namespaces.retain(|known| known.typ() != typ);
        if !removed {
            let mut wanted = LinuxNamespace::default();
            wanted
                .set_typ(typ)
                .set_path((!namespace.path.is_empty()).then(|| PathBuf::from(&namespace.path)));
            namespaces.push(wanted);
        }
    }
    for (key, value) in &adjust.sysctl {
        let sysctls = linux.sysctl_mut().get_or_insert_default();
        match unmarked(key) {
            (key, true) => drop(sysctls.remove(key)),
            (key, false) => drop(sysctls.insert(key.to_owned(), value.clone())),
        }
    }
    for (host, device) in &adjust.net_devices {
        let devices = linux.net_devices_mut().get_or_insert_default();
        match unmarked(host) {
            (host, true) => drop(devices.remove(host)),
            (host, false) => drop(devices.insert(host.to_owned(), parts::net_device(device))),
        }
    }
    if let Some(policy) = &adjust.seccomp_policy {
        linux.set_seccomp(Some(parts::seccomp(policy)?));
    }
    if let Some(policy) = &adjust.memory_policy {
        linux.set_memory_policy(Some(parts::memory_policy(policy)?));
    }
    if let Some(rdt) = &adjust.rdt {
        let before = if rdt.remove { None } else { linux.intel_rdt().clone() };
        linux.set_intel_rdt(parts::rdt(before, rdt));
    }
    Ok(())
}

/// A device node, and the rule without which nobody can open it.
fn node(path: &Path, wanted: &api::LinuxDevice) -> Result<(LinuxDevice, LinuxDeviceCgroup), SpecError> {
    let typ = device_type(&wanted.r#type)?;
    if !path.is_absolute() || typ == LinuxDeviceType::A {
        let why = "a device has an absolute path and one of the types b, c, u and p";
        return Err(refused(format!("the device {path:?}"), why));
    }
    let mut node = LinuxDevice::default();
    node.set_path(path.to_owned())
        .set_typ(typ)
        .set_major(wanted.major)
        .set_minor(wanted.minor)
        .set_file_mode(wanted.file_mode.as_ref().map(|mode| mode.value))
        .set_uid(wanted.uid.as_ref().map(|id| id.value))
        .set_gid(wanted.gid.as_ref().map(|id| id.value));
    let access = if typ == LinuxDeviceType::B { "rwm" } else { "rw" };
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(typ))
        .set_major(Some(wanted.major))
        .set_minor(Some(wanted.minor))
        .set_access(Some(access.into()));
    Ok((node, rule))
}

fn mounts(spec: &mut Spec, wanted: &[api::Mount]) -> Result<(), SpecError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut propagation = None;
    let mounts = spec.mounts_mut().get_or_insert_default();
    for wanted in wanted {
        let (destination, removed) = unmarked(&wanted.destination);
        let destination = Path::new(destination);
        if !destination.is_absolute() {
            return Err(refused(format!("a mount at {destination:?}"), "that is no absolute path"));
        }
        mounts.retain(|known| known.destination() != destination);
        if removed {
            continue;
        }
        let has = |name: &str| wanted.options.iter().any(|option| option == name);
        if has("rshared") || has("shared") {
            propagation = Some("rshared");
        } else if (has("rslave") || has("slave")) && propagation.is_none() {
            propagation = Some("rslave");
        }
        let kind = match wanted.r#type.as_str() {
            "" if has("bind") || has("rbind") => "bind",
            kind => kind,
        };
        let mut mount = Mount::default();
        mount
            .set_destination(destination.to_owned())
            .set_typ(Some(kind.to_owned()))
            .set_source(Some(PathBuf::from(&wanted.source)))
            .set_options(Some(wanted.options.clone()));
        mounts.push(mount);
    }
    // What is mounted at a folder comes before what is mounted in it.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    let linux = spec.linux_mut().get_or_insert_default();
    let present = linux.rootfs_propagation().as_deref();
    if let Some(propagation) = propagation.filter(|_| present != Some("rshared")) {
        linux.set_rootfs_propagation(Some(propagation.to_owned()));
    }
    Ok(())
}

// Plugins still ask for prestart hooks, and the runtime still runs them.
#[allow(deprecated)]
fn add_hooks(spec: &mut Spec, wanted: &api::Hooks) -> Result<(), SpecError> {
    let hooks = spec.hooks_mut().get_or_insert_default();
    add(hooks.prestart_mut(), &wanted.prestart)?;
    add(hooks.create_runtime_mut(), &wanted.create_runtime)?;
    add(hooks.create_container_mut(), &wanted.create_container)?;
    add(hooks.start_container_mut(), &wanted.start_container)?;
    add(hooks.poststart_mut(), &wanted.poststart)?;
    add(hooks.poststop_mut(), &wanted.poststop)
}

fn add(hooks: &mut Option<Vec<Hook>>, wanted: &[api::Hook]) -> Result<(), SpecError> {
    for wanted in wanted {
        if !Path::new(&wanted.path).is_absolute() {
            return Err(refused(format!("the hook {:?}", wanted.path), "that is no absolute path"));
        }
        let mut hook = Hook::default();
        hook.set_path(PathBuf::from(&wanted.path))
            .set_args((!wanted.args.is_empty()).then(|| wanted.args.clone()))
            .set_env((!wanted.env.is_empty()).then(|| wanted.env.clone()))
            .set_timeout(wanted.timeout.as_ref().map(|seconds| seconds.value));
        hooks.get_or_insert_default().push(hook);
    }
    Ok(())
}

fn refused(what: String, why: &str) -> SpecError {
    SpecError { what, why: why.into() }
}

#[cfg(test)]
mod tests;
