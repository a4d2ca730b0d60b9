//! What this machine and this process have, read once at the start.

use std::io;
use std::path::Path;

use seccomp::{Architecture, KernelVersion};
use spec::{CgroupVersion, DeviceKind, HostDevice, HostFacts};

use crate::confinement::Confinement;

/// Reads the facts that specs are made from.
pub(crate) fn facts(cgroups: &cgroup::Host, confinement: &Confinement) -> io::Result<HostFacts> {
    Ok(HostFacts {
        hostname: std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim_end().to_owned(),
        cgroup: match cgroups.mode() {
            cgroup::Mode::V2 => CgroupVersion::V2,
            cgroup::Mode::V1 | cgroup::Mode::Hybrid => CgroupVersion::V1,
        },
        kernel: kernel(),
        architecture: architecture(),
        capabilities: bounding_set()?,
        devices: devices(),
        hugepage_sizes: hugepage_sizes(cgroups),
        oom_score_adj_floor: oom_score_adj_floor()?,
        apparmor: confinement.apparmor(),
    })
}

/// The release that uname(2) tells: its first two numbers.
fn kernel() -> KernelVersion {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse().ok());
    KernelVersion(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn architecture() -> Architecture {
    if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 }
}

/// capabilities(7): nothing outside of the bounding set can be given on.
fn bounding_set() -> io::Result<oci_spec::runtime::Capabilities> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no CapBnd"))?;
    Ok(spec::capabilities::from_bits(bits))
}

/// Without CAP_SYS_RESOURCE a score can only be raised from where the daemon's own is.
fn oom_score_adj_floor() -> io::Result<Option<i32>> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    if effective & (1 << CAP_SYS_RESOURCE) != 0 {
        return Ok(None);
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    Ok(own.trim().parse().ok())
}

/// All device nodes of /dev, for privileged containers. Pseudo-terminals and shared memory are each container's own.
fn devices() -> Vec<HostDevice> {
    let mut found = Vec::new();
    let mut folders = vec![(Path::new("/dev").to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (Ok(metadata), path) = (entry.metadata(), entry.path()) else { continue };
            let own = ["pts", "shm", "mqueue", "console", "fd"]
                .iter()
                .any(|name| path == Path::new("/dev").join(name));
            if own {
                continue;
            }
            if metadata.is_dir() && depth < 4 {
                folders.push((path, depth + 1));
            } else if let Some(device) = crate::devices::node(&path, &metadata)
                && device.kind != DeviceKind::Fifo
            {
                found.push(device);
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// Page sizes that have a hugetlb controller, in the kernel's spelling.
fn hugepage_sizes(cgroups: &cgroup::Host) -> Vec<String> {
    if !cgroups.has(cgroup::Controller::Hugetlb) {
        return Vec::new();
    }
    let names = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    names
        .filter_map(|entry| {
            let kilobytes: u64 =
                entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some(match kilobytes {
                kb if kb >= 1 << 20 => format!("{}GB", kb >> 20),
                kb if kb >= 1 << 10 => format!("{}MB", kb >> 10),
                kb => format!("{kb}KB"),
            })
        })
        .collect()
}
