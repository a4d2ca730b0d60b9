//! The host's device nodes that a request names.

use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use model::request::Device;
use spec::{DeviceKind, HostDevice, RequestedDevice};

/// How deep a folder of devices is looked into, and how many are taken at most.
const DEPTH: usize = 8;
const COUNT: usize = 1024;

/// Looks the asked devices up; a folder stands for all device nodes below it. The error says which is not there or is no device.
pub(crate) fn requested(asked: &[Device]) -> Result<Vec<RequestedDevice>, String> {
    let mut found = Vec::new();
    for device in asked {
        let (host, inside) = (&device.host_path, &device.container_path);
        let metadata = std::fs::metadata(host).map_err(|why| format!("device {}: {why}", host.display()))?;
        if metadata.is_dir() {
            below(host, inside, device, DEPTH, &mut found)?;
        } else {
            let host = node(host, &metadata)
                .ok_or_else(|| format!("{} is neither a device node nor a folder of them", host.display()))?;
            found.push(request(device, inside, host));
        }
    }
    Ok(found)
}

fn request(device: &Device, inside: &Path, host: HostDevice) -> RequestedDevice {
    let container_path = if inside.as_os_str().is_empty() { host.path.clone() } else { inside.to_owned() };
    RequestedDevice { container_path, host, permissions: device.permissions.clone() }
}

fn below(
    host: &Path,
    inside: &Path,
    device: &Device,
    depth: usize,
    found: &mut Vec<RequestedDevice>,
) -> Result<(), String> {
    let failed = |why: std::io::Error| format!("device folder {}: {why}", host.display());
    for entry in std::fs::read_dir(host).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        let target = inside.join(entry.file_name());
        if metadata.is_dir() && depth > 0 {
            below(&entry.path(), &target, device, depth - 1, found)?;
        } else if let Some(node) = node(&entry.path(), &metadata) {
            if found.len() == COUNT {
                return Err(format!("device folder {} holds more than {COUNT} devices", host.display()));
            }
            found.push(request(device, &target, node));
        }
    }
    Ok(())
}

/// The device node at `path`, if it is one.
pub(crate) fn node(path: &Path, metadata: &std::fs::Metadata) -> Option<HostDevice> {
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => DeviceKind::Character,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    let number = metadata.st_rdev();
    Some(HostDevice {
        path: path.to_owned(),
        kind,
        major: rustix::fs::major(number),
        minor: rustix::fs::minor(number),
        mode: metadata.st_mode() & 0o777,
        uid: metadata.st_uid(),
        gid: metadata.st_gid(),
    })
}
