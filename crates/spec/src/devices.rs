//! Devices of a container: the nodes made in its /dev, and the cgroup's rules about which it may use.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Mount};

use crate::error::SpecError;
use crate::input::{DeviceKind, HostDevice, RequestedDevice, SpecInput};
use crate::path::clean_absolute;

/// The nodes to make, and the rules, in the order in which they are applied.
pub(crate) struct Devices {
    pub(crate) nodes: Vec<LinuxDevice>,
    /// In a user namespace no node can be made: the host's are bound, which the runtime does for those of the same name.
    pub(crate) binds: Vec<Mount>,
    pub(crate) rules: Vec<LinuxDeviceCgroup>,
}

/// Devices that every container may use: null, zero, full, random, urandom, tty, ptmx, and the slaves of its own terminals.
const STANDARD: [(Option<i64>, Option<i64>); 8] = [
    (Some(1), Some(3)),
    (Some(1), Some(5)),
    (Some(1), Some(7)),
    (Some(1), Some(8)),
    (Some(1), Some(9)),
    (Some(5), Some(0)),
    (Some(5), Some(2)),
    (Some(136), None),
];

/// A plain container: everything denied, then the standard devices and the requested ones. A privileged one: all the host's devices.
pub(crate) fn of_container(input: &SpecInput<'_>) -> Result<Devices, SpecError> {
    let privileged = input.container.security.privileged;
    let mut devices = Devices { nodes: Vec::new(), binds: Vec::new(), rules: Vec::new() };
    if privileged {
        devices.rules.push(rule(true, LinuxDeviceType::A, None, None, "rwm"));
        let host = input.host.devices.iter().filter(|device| !is_of_the_container(&device.path));
        for device in host {
            devices.nodes.push(node(device, &device.path));
        }
    } else {
        devices.rules = plain_device_rules();
    }
    for (index, requested) in input.devices.iter().enumerate() {
        devices.add(index, requested, input)?;
    }
    Ok(devices)
}

/// The rules of a container that is not privileged, and that asked for no device.
pub fn plain_device_rules() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        // A node may be made for any device: using it is another rule's matter.
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    let standard = STANDARD.map(|(major, minor)| rule(true, LinuxDeviceType::C, major, minor, "rwm"));
    rules.extend(standard);
    rules
}

impl Devices {
    fn add(&mut self, index: usize, asked: &RequestedDevice, input: &SpecInput<'_>) -> Result<(), SpecError> {
        let privileged = input.container.security.privileged;
        let path =
            clean_absolute(&asked.container_path).map_err(|path| SpecError::DevicePath { index, path })?;
        let permissions = permissions(asked)?;
        let node = node(&asked.host, &path);
        if input.pod.namespaces.user.is_some() && asked.host.path != path {
            self.bind(&asked.host.path, path, privileged)?;
        } else {
            self.insert(&node, path, privileged)?;
        }
        if !privileged && asked.host.kind != DeviceKind::Fifo {
            self.rules.push(rule(true, node.typ(), Some(node.major()), Some(node.minor()), permissions));
        }
        Ok(())
    }

    fn bind(&mut self, host: &Path, path: PathBuf, privileged: bool) -> Result<(), SpecError> {
        let taken = self.binds.iter().any(|bind| bind.destination() == &path);
        if taken || (!privileged && self.nodes.iter().any(|node| node.path() == &path)) {
            return Err(SpecError::DeviceTwice { path });
        }
        self.nodes.retain(|node| node.path() != &path);
        let mut bind = Mount::default();
        bind.set_destination(path).set_typ(Some("bind".into())).set_source(Some(host.to_owned()));
        bind.set_options(Some(["bind", "rprivate"].map(String::from).into()));
        self.binds.push(bind);
        Ok(())
    }

    fn insert(&mut self, node: &LinuxDevice, path: PathBuf, privileged: bool) -> Result<(), SpecError> {
        if self.binds.iter().any(|bind| bind.destination() == &path) {
            return Err(SpecError::DeviceTwice { path });
        }
        match self.nodes.iter().position(|known| known.path() == &path) {
            Some(at) if same_device(&self.nodes[at], node) => {}
            Some(at) if privileged => self.nodes[at] = node.clone(),
            Some(_) => return Err(SpecError::DeviceTwice { path }),
            None => self.nodes.push(node.clone()),
        }
        Ok(())
    }
}

/// Nodes and file systems that a container gets for itself, whatever the host has.
fn is_of_the_container(path: &Path) -> bool {
    ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"].iter().any(|own| path.starts_with(own))
        || [
            "/dev/null",
            "/dev/zero",
            "/dev/full",
            "/dev/random",
            "/dev/urandom",
            "/dev/tty",
            "/dev/ptmx",
            "/dev/console",
        ]
        .iter()
        .any(|own| path == Path::new(own))
}

fn same_device(a: &LinuxDevice, b: &LinuxDevice) -> bool {
    (a.typ(), a.major(), a.minor()) == (b.typ(), b.major(), b.minor())
}

fn permissions(asked: &RequestedDevice) -> Result<&str, SpecError> {
    let text = asked.permissions.as_str();
    let once = |letter: char| text.matches(letter).count() <= 1;
    if text.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) && ['r', 'w', 'm'].into_iter().all(once) {
        return Ok(if text.is_empty() { "rwm" } else { text });
    }
    Err(SpecError::DevicePermissions {
        path: asked.container_path.clone(),
        permissions: text.chars().take(32).collect(),
    })
}

fn node(host: &HostDevice, path: &Path) -> LinuxDevice {
    let kind = match host.kind {
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Character => LinuxDeviceType::C,
        DeviceKind::Fifo => LinuxDeviceType::P,
    };
    let mut node = LinuxDevice::default();
    node.set_path(path.to_owned())
        .set_typ(kind)
        .set_major(host.major.into())
        .set_minor(host.minor.into())
        .set_file_mode(Some(host.mode & 0o7777))
        .set_uid(Some(host.uid))
        .set_gid(Some(host.gid));
    node
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor);
    rule.set_access(Some(access.into()));
    rule
}
