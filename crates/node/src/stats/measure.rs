//! Everything that can be measured of pods and containers, for metrics. It takes longer than a look at what is asked for often.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cgroup::Stats;
use model::container::Container;
use model::pod::Pod;
use model::time::Timestamp;
use network::InterfaceStats;

use super::processes::{self, Processes};
use super::{Layer, LayerAge, interfaces, layers};
use crate::context::{Context, blocking};
use crate::record::{ContainerRecord, PodRecord};

/// All running pods at about one moment.
#[derive(Debug, Clone, Default)]
pub struct Measurements {
    pub pods: Vec<PodMeasurement>,
    /// The one that the writable layers are in.
    pub filesystem: Option<FileSystem>,
    /// Names below `/dev` of the block devices that were used.
    pub devices: BTreeMap<(u32, u32), String>,
}

/// One pod.
#[derive(Debug, Clone)]
pub struct PodMeasurement {
    pub record: Arc<PodRecord>,
    pub at: Timestamp,
    /// Of the cgroup that its containers are below.
    pub cgroup: Option<Stats>,
    pub interfaces: Vec<InterfaceStats>,
    pub containers: Vec<ContainerMeasurement>,
}

/// One container that runs.
#[derive(Debug, Clone)]
pub struct ContainerMeasurement {
    pub record: Arc<ContainerRecord>,
    pub at: Timestamp,
    pub cgroup: Stats,
    pub processes: Processes,
    pub layer: Option<Layer>,
}

/// A file system as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// What is mounted, as in the mount table.
    pub device: String,
    pub bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

/// Measures all pods that run.
pub(crate) async fn measure(context: &Arc<Context>) -> Measurements {
    let shared = context.clone();
    let measured = blocking(move || {
        let snapshot = shared.published.load();
        let ready = snapshot.pods.values().filter(|pod| pod.state.pod == Pod::Ready);
        let pods: Vec<_> = ready
            .map(|record| PodMeasurement {
                at: crate::clock::now(),
                cgroup: shared.cgroups.open(&record.state.cgroup.path).and_then(|group| group.stats()).ok(),
                interfaces: interfaces(&shared, record),
                containers: snapshot
                    .containers_of(&record.id)
                    .filter_map(|record| container(&shared, record))
                    .collect(),
                record: record.clone(),
            })
            .collect();
        let filesystem = filesystem(shared.images.containers_path());
        Measurements { devices: devices(&pods), filesystem, pods }
    })
    .await;
    layers::refresh(context);
    measured
}

/// `None` where it ended meanwhile.
fn container(context: &Context, record: &Arc<ContainerRecord>) -> Option<ContainerMeasurement> {
    let Container::Running { pid, .. } = record.state.container else { return None };
    let group = context.cgroups.open(&record.facts.cgroup).ok()?;
    Some(ContainerMeasurement {
        cgroup: group.stats().ok()?,
        processes: processes::look(&group.processes(true).ok()?, Some(pid)),
        // Metrics are not asked for so often that their first answer should lack it.
        layer: context.layers.get(context, &record.id, LayerAge::Fresh),
        at: crate::clock::now(),
        record: record.clone(),
    })
}

fn devices(pods: &[PodMeasurement]) -> BTreeMap<(u32, u32), String> {
    let of_pods = pods.iter().filter_map(|pod| pod.cgroup.as_ref());
    let of_containers = pods.iter().flat_map(|pod| &pod.containers).map(|container| &container.cgroup);
    let used = of_pods.chain(of_containers).flat_map(|stats| &stats.io.devices);
    let mut names = BTreeMap::new();
    for device in used {
        names.entry((device.major, device.minor)).or_insert_with(|| name(device.major, device.minor));
    }
    names
}

/// sysfs(5): the last part of what `/sys/dev/block/8:0` leads to; a device that went away keeps its number as a name.
fn name(major: u32, minor: u32) -> String {
    let number = format!("{major}:{minor}");
    let target = std::fs::read_link(Path::new("/sys/dev/block").join(&number)).ok();
    let last = target.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    last.map_or(number, |name| format!("/dev/{}", name.replace('!', "/")))
}

fn filesystem(path: &Path) -> Option<FileSystem> {
    let whole = rustix::fs::statvfs(path).ok()?;
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(FileSystem {
        device: mounts.lines().find_map(|line| source(line, &number)).unwrap_or(&number).to_owned(),
        bytes: whole.f_blocks.saturating_mul(whole.f_frsize),
        inodes: whole.f_files,
        free_inodes: whole.f_ffree,
    })
}

/// What is mounted according to a line of proc_pid_mountinfo(5), where that is the device with this number.
fn source<'a>(line: &'a str, number: &str) -> Option<&'a str> {
    let (before, after) = line.split_once(" - ")?;
    if before.split(' ').nth(2)? != number {
        return None;
    }
    after.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mount_table_names_the_device() {
        let line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue";
        assert_eq!(source(line, "98:0"), Some("/dev/root"));
        assert_eq!(source(line, "98:1"), None);
        let here = filesystem(Path::new("/")).unwrap();
        assert!(!here.device.is_empty() && here.bytes > 0, "{here:?}");
        assert_eq!(name(4095, 4095), "4095:4095");
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(line in "\\PC*") {
            let _ = source(&line, "8:0");
        }
    }
}
