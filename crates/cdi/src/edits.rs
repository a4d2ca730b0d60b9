//! A device's edits, put into a container's spec.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime as oci;

use crate::file::{DeviceNode, Edits, Hook, Mount, Rdt};

/// Puts `edits` into `spec`. What the container has at the same path or under the same name is replaced.
///
/// # Errors
/// A device of the host that is not there.
pub(crate) fn apply(spec: &mut oci::Spec, edits: &Edits) -> Result<(), String> {
    let process = spec.process_mut().get_or_insert_default();
    let environment = process.env_mut().get_or_insert_default();
    for line in &edits.env {
        let name = line.split('=').next();
        environment.retain(|known| known.split('=').next() != name);
        environment.push(line.clone());
    }
    let owner = (process.user().uid(), process.user().gid());
    let mut groups = process.user().additional_gids().clone().unwrap_or_default();
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        if !groups.contains(gid) {
            groups.push(*gid);
        }
    }
    process.user_mut().set_additional_gids((!groups.is_empty()).then_some(groups));
    for node in &edits.device_nodes {
        device(spec.linux_mut().get_or_insert_default(), node, owner)?;
    }
    for device in &edits.net_devices {
        let mut wanted = oci::LinuxNetDevice::default();
        wanted.set_name(Some(device.name.clone()));
        let devices = spec.linux_mut().get_or_insert_default().net_devices_mut().get_or_insert_default();
        devices.insert(device.host_interface_name.clone(), wanted);
    }
    mounts(spec, &edits.mounts);
    for hook in &edits.hooks {
        add_hook(spec.hooks_mut().get_or_insert_default(), hook);
    }
    if let Some(wanted) = &edits.intel_rdt {
        spec.linux_mut().get_or_insert_default().set_intel_rdt(Some(rdt(wanted)));
    }
    Ok(())
}

fn device(linux: &mut oci::Linux, wanted: &DeviceNode, (uid, gid): (u32, u32)) -> Result<(), String> {
    let path = PathBuf::from(&wanted.path);
    let (typ, major, minor) = numbers(wanted)?;
    let mut node = oci::LinuxDevice::default();
    // A container that does not run as root could not open what belongs to root.
    let or = |given: Option<u32>, own: u32| given.or((own != 0).then_some(own));
    node.set_path(path.clone())
        .set_typ(typ)
        .set_major(major)
        .set_minor(minor)
        .set_file_mode(wanted.file_mode)
        .set_uid(or(wanted.uid, uid))
        .set_gid(or(wanted.gid, gid));
    let nodes = linux.devices_mut().get_or_insert_default();
    nodes.retain(|known| *known.path() != path);
    nodes.push(node);
    if typ != oci::LinuxDeviceType::P {
        let access = if wanted.permissions.is_empty() { "rwm" } else { &wanted.permissions };
        let mut rule = oci::LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(typ))
            .set_major(Some(major))
            .set_minor(Some(minor))
            .set_access(Some(access.to_owned()));
        let limits = linux.resources_mut().get_or_insert_default();
        limits.devices_mut().get_or_insert_default().push(rule);
    }
    Ok(())
}

/// The type and numbers of a device: as the file says, else as the host has it.
fn numbers(wanted: &DeviceNode) -> Result<(oci::LinuxDeviceType, i64, i64), String> {
    let host = if wanted.host_path.is_empty() { &wanted.path } else { &wanted.host_path };
    let told = match wanted.kind.as_str() {
        "b" => Some(oci::LinuxDeviceType::B),
        "c" => Some(oci::LinuxDeviceType::C),
        "u" => Some(oci::LinuxDeviceType::U),
        "p" => return Ok((oci::LinuxDeviceType::P, 0, 0)),
        _ => None,
    };
    if let Some(kind) = told.filter(|_| (wanted.major, wanted.minor) != (0, 0)) {
        return Ok((kind, wanted.major, wanted.minor));
    }
    let found = std::fs::metadata(host).map_err(|error| format!("the host's device {host}: {error}"))?;
    let kind = match found.file_type() {
        kind if kind.is_block_device() => oci::LinuxDeviceType::B,
        kind if kind.is_char_device() => oci::LinuxDeviceType::C,
        kind if kind.is_fifo() => return Ok((oci::LinuxDeviceType::P, 0, 0)),
        _ => return Err(format!("{host} of the host is no device")),
    };
    if told.is_some_and(|told| told != kind && told != oci::LinuxDeviceType::U) {
        return Err(format!("the host's device {host} is of another type than {:?}", wanted.kind));
    }
    // How the kernel packs both numbers into one: makedev(3).
    let number = found.rdev();
    let major = ((number >> 8) & 0xfff) | ((number >> 32) & !0xfff);
    let minor = (number & 0xff) | ((number >> 12) & !0xff);
    let signed = |number: u64| i64::try_from(number).unwrap_or_default();
    Ok((told.unwrap_or(kind), signed(major), signed(minor)))
}

fn mounts(spec: &mut oci::Spec, wanted: &[Mount]) {
    if wanted.is_empty() {
        return;
    }
    let mounts = spec.mounts_mut().get_or_insert_default();
    for wanted in wanted {
        let destination = Path::new(&wanted.container_path);
        mounts.retain(|known| known.destination() != destination);
        let has = |name: &str| wanted.options.iter().any(|option| option == name);
        let kind = if wanted.kind.is_empty() { "bind" } else { &wanted.kind };
        let mut options = wanted.options.clone();
        if kind == "bind" && !has("bind") && !has("rbind") {
            options.push("rbind".into());
        }
        let mut mount = oci::Mount::default();
        mount
            .set_destination(destination.to_owned())
            .set_typ(Some(kind.to_owned()))
            .set_source(Some(PathBuf::from(&wanted.host_path)))
            .set_options(Some(options));
        mounts.push(mount);
    }
    // What is mounted at a folder comes before what is mounted in it.
    mounts.sort_by_key(|mount| mount.destination().components().count());
}

// Files may still ask for prestart hooks, and the runtime still runs them.
#[allow(deprecated)]
fn add_hook(hooks: &mut oci::Hooks, wanted: &Hook) {
    let stage = match wanted.hook_name.as_str() {
        "prestart" => hooks.prestart_mut(),
        "createContainer" => hooks.create_container_mut(),
        "startContainer" => hooks.start_container_mut(),
        "poststart" => hooks.poststart_mut(),
        "poststop" => hooks.poststop_mut(),
        // The names were checked when the file was read.
        _ => hooks.create_runtime_mut(),
    };
    let mut hook = oci::Hook::default();
    hook.set_path(PathBuf::from(&wanted.path))
        .set_args((!wanted.args.is_empty()).then(|| wanted.args.clone()))
        .set_env((!wanted.env.is_empty()).then(|| wanted.env.clone()))
        .set_timeout(wanted.timeout);
    stage.get_or_insert_default().push(hook);
}

fn rdt(wanted: &Rdt) -> oci::LinuxIntelRdt {
    let mut rdt = oci::LinuxIntelRdt::default();
    let old = [&wanted.l3_cache_schema, &wanted.mem_bw_schema].into_iter().flatten().cloned();
    let schemata: Vec<String> = old.chain(wanted.schemata.iter().flatten().cloned()).collect();
    rdt.set_clos_id(wanted.clos_id.clone())
        .set_schemata((!schemata.is_empty()).then_some(schemata))
        .set_enable_monitoring(wanted.enable_monitoring);
    rdt
}
