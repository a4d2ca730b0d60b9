//! Which control groups this host has, and where.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

use crate::directory::Directory;
use crate::error::{CgroupError, DetectError};
use crate::group::Cgroup;
use crate::path::CgroupPath;
use crate::systemd::{self, SystemdError, Unit};
use crate::{v1, v2};

const MOUNTS: &str = "/proc/self/mountinfo";
/// More than any host's.
const LARGEST_TABLE: u64 = 64 << 20;
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// How control groups are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 1 only.
    V1,
    /// Version 1, and a tree of version 2 without controllers beside it.
    Hybrid,
    /// Version 2 only.
    V2,
}

/// A controller, of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// `blkio` in version 1, `io` in version 2.
    Io,
    /// Processor time; in version 1 its shares and quota only.
    Cpu,
    /// Version 1: measures processor time.
    Cpuacct,
    /// Processors and memory nodes.
    Cpuset,
    /// Version 1: device access. Version 2 uses a program instead.
    Devices,
    /// Version 1: freezing. Every group of version 2 can.
    Freezer,
    /// Huge pages.
    Hugetlb,
    /// Memory.
    Memory,
    /// Version 1: marks packets.
    NetCls,
    /// Version 1: priorities of packets.
    NetPrio,
    /// Version 1: performance events.
    PerfEvent,
    /// Number of processes.
    Pids,
    /// RDMA.
    Rdma,
    /// Miscellaneous scalar resources.
    Misc,
}

impl Controller {
    const ALL: [(&'static str, Controller); 15] = [
        ("blkio", Controller::Io),
        ("io", Controller::Io),
        ("cpu", Controller::Cpu),
        ("cpuacct", Controller::Cpuacct),
        ("cpuset", Controller::Cpuset),
        ("devices", Controller::Devices),
        ("freezer", Controller::Freezer),
        ("hugetlb", Controller::Hugetlb),
        ("memory", Controller::Memory),
        ("net_cls", Controller::NetCls),
        ("net_prio", Controller::NetPrio),
        ("perf_event", Controller::PerfEvent),
        ("pids", Controller::Pids),
        ("rdma", Controller::Rdma),
        ("misc", Controller::Misc),
    ];

    pub(crate) fn parse(name: &str) -> Option<Controller> {
        Controller::ALL.iter().find(|(n, _)| *n == name).map(|(_, c)| *c)
    }

    /// The kernel's name for it; `blkio` for [`Controller::Io`].
    pub fn name(self) -> &'static str {
        Controller::ALL.iter().find(|(_, c)| *c == self).map_or("", |(n, _)| n)
    }
}

/// The control groups of this host, found once; cheap to clone.
#[derive(Debug, Clone)]
pub struct Host(Arc<Hierarchies>);

/// What was found.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    pub(crate) layout: Layout,
    /// The lines of mountinfo that they were found by.
    lines: String,
    huge_pages: OnceLock<Vec<String>>,
}

#[derive(Debug)]
pub(crate) enum Layout {
    V1(v1::Mounts),
    V2(v2::Mount),
}

/// What [`Host::detect`] goes by in this process, if somebody has told.
static TOLD: OnceLock<String> = OnceLock::new();

/// Lets [`Host::detect`] go by what [`Host::mounts`] told of this host, for a process whose children all have to find the same: the whole
/// table of mounts takes the kernel long to write where there are many. The first word counts; an empty one says nothing.
pub fn tell_mounts(lines: String) {
    if !lines.is_empty() {
        let _ = TOLD.set(lines);
    }
}

impl Host {
    /// Finds the mounted hierarchies and opens them.
    ///
    /// # Errors
    /// When nothing is mounted, or what is mounted cannot be opened.
    pub fn detect() -> Result<Host, DetectError> {
        if let Some(lines) = TOLD.get() {
            return Host::at(lines);
        }
        let text = sys::file::read(MOUNTS, LARGEST_TABLE)
            .map_err(|source| DetectError::Read { path: MOUNTS, source })?;
        Host::at(&String::from_utf8_lossy(&text))
    }

    /// The lines of mountinfo that [`tell_mounts`] is told by.
    pub fn mounts(&self) -> &str {
        &self.0.lines
    }

    /// Opens the hierarchies that a table of mounts has.
    fn at(text: &str) -> Result<Host, DetectError> {
        let mut version1: Vec<(Mounted<'_>, Directory)> = Vec::new();
        let mut version2: Option<(String, Directory)> = None;
        let mut lines = String::new();
        for (line, mounted) in text.lines().filter_map(|line| Some((line, Mounted::parse(line)?))) {
            // The same hierarchy may be mounted again elsewhere; the first mount is the host's.
            let known = match mounted.kind {
                Kind::V2 => version2.is_some(),
                Kind::V1 { .. } => version1.iter().any(|(m, _)| m.kind == mounted.kind),
            };
            if known {
                continue;
            }
            let path = unescape(mounted.mount_point);
            let directory = Directory::mount_point(&path)
                .map_err(|source| DetectError::Open { path: path.clone(), source })?;
            lines.push_str(line);
            lines.push('\n');
            match mounted.kind {
                Kind::V2 => version2 = Some((path, directory)),
                Kind::V1 { .. } => version1.push((mounted, directory)),
            }
        }
        let mounts = version1.into_iter().map(|(mounted, directory)| v1::Mount {
            label: match mounted.kind {
                Kind::V1 { options } => options.to_string(),
                Kind::V2 => String::new(),
            },
            controllers: mounted.controllers(),
            directory,
        });
        // A hierarchy of version 1 without controllers, as systemd keeps one for itself, does not make a host of version 1.
        let mounts: Vec<v1::Mount> = mounts.collect();
        let layout = match (mounts.iter().any(|m| !m.controllers.is_empty()), version2) {
            (false, Some((path, root))) => Layout::V2(v2::Mount { root, path }),
            (true, unified) => Layout::V1(v1::Mounts { mounts, unified: unified.map(|(_, root)| root) }),
            (false, None) => return Err(DetectError::NoCgroups),
        };
        Ok(Host(Arc::new(Hierarchies { layout, lines, huge_pages: OnceLock::new() })))
    }

    /// How control groups are laid out here.
    pub fn mode(&self) -> Mode {
        self.0.mode()
    }

    /// Whether `controller` can limit groups here.
    pub fn has(&self, controller: Controller) -> bool {
        match &self.0.layout {
            Layout::V1(mounts) => mounts.mounts.iter().any(|m| m.controllers.contains(&controller)),
            Layout::V2(mount) => mount.controllers().contains(&controller),
        }
    }

    /// Makes the group `path`, and those above it, in every hierarchy, and opens it. A group that exists is opened.
    ///
    /// `path` counts from the root of each hierarchy, with or without a leading slash.
    ///
    /// # Errors
    /// A bad path; what the kernel says. What this call had made is removed again then.
    pub fn create(&self, path: &str) -> Result<Cgroup, CgroupError> {
        let path = CgroupPath::parse(path)?;
        match &self.0.layout {
            Layout::V1(mounts) => Ok(Cgroup::from_v1(self.0.clone(), mounts.create(path)?)),
            Layout::V2(mount) => Ok(Cgroup::from_v2(self.0.clone(), mount.create(path)?)),
        }
    }

    /// Opens the group `path`.
    ///
    /// # Errors
    /// A bad path, or [`CgroupError::NotFound`] if no hierarchy has it.
    pub fn open(&self, path: &str) -> Result<Cgroup, CgroupError> {
        let path = CgroupPath::parse(path)?;
        match &self.0.layout {
            Layout::V1(mounts) => Ok(Cgroup::from_v1(self.0.clone(), mounts.open(path)?)),
            Layout::V2(mount) => Ok(Cgroup::from_v2(self.0.clone(), mount.open(path)?)),
        }
    }

    /// Has systemd make the group `path` as a unit, see [`crate::Driver::create`].
    pub(crate) fn start_unit(
        &self,
        path: &str,
        resources: &LinuxResources,
        processes: &[i32],
    ) -> Result<Cgroup, CgroupError> {
        let path = CgroupPath::parse(path)?;
        let Some(unit) = Unit::at(path.as_str()) else {
            let why = "is not where systemd would put a slice or a scope, such as /a.slice/a-b.slice/x.scope";
            return Err(CgroupError::BadPath { path: path.as_str().into(), why });
        };
        let failed = |source| CgroupError::Systemd { path: path.as_str().into(), source };
        systemd::start(unit, self.mode(), resources, processes).map_err(failed)?;
        let group = match &self.0.layout {
            // What systemd does not use of version 1 it leaves to us, also to move processes there.
            Layout::V1(mounts) => mounts.create(path.clone()).and_then(|group| {
                processes.iter().try_for_each(|pid| group.add_process(*pid))?;
                Ok(Cgroup::from_v1(self.0.clone(), group))
            }),
            Layout::V2(mount) => {
                mount.adopt(path.clone()).map(|group| Cgroup::from_v2(self.0.clone(), group))
            }
        };
        if group.is_err() && !unit.is_slice() {
            let _ = systemd::stop(unit);
        }
        group
    }

    /// Removes the group `path` and all below it from every hierarchy; absent is fine. Processes in it are left alone, and make
    /// it busy: kill them first.
    ///
    /// # Errors
    /// A bad path; [`CgroupError::Timeout`] if it stays busy for `wait`.
    pub fn delete(&self, path: &str, wait: Duration) -> Result<(), CgroupError> {
        self.0.delete(&CgroupPath::parse(path)?, wait)
    }
}

impl Hierarchies {
    /// The sizes of huge pages, as controllers spell them.
    pub(crate) fn huge_pages(&self) -> &[String] {
        self.huge_pages.get_or_init(|| huge_pages(Path::new(HUGE_PAGES)))
    }

    pub(crate) fn mode(&self) -> Mode {
        match &self.layout {
            Layout::V1(mounts) if mounts.unified.is_none() => Mode::V1,
            Layout::V1(_) => Mode::Hybrid,
            Layout::V2(_) => Mode::V2,
        }
    }

    /// The unit of systemd that the group `path` is, or would be.
    pub(crate) fn unit<'a>(&self, path: &'a CgroupPath) -> Option<Unit<'a>> {
        Unit::at(path.as_str()).filter(|_| systemd::runs())
    }

    pub(crate) fn delete(&self, path: &CgroupPath, wait: Duration) -> Result<(), CgroupError> {
        let deadline = Instant::now() + wait;
        if let Some(unit) = self.unit(path)
            && self.is_empty(path)
            && let Err(error) = systemd::stop(unit)
        {
            // Systemd hears of it from the kernel too.
            self.remove(path, deadline, wait)?;
            return match error {
                SystemdError::Unreachable { .. } | SystemdError::Absent => Ok(()),
                source => Err(CgroupError::Systemd { path: path.as_str().into(), source }),
            };
        }
        self.remove(path, deadline, wait)
    }

    /// Whether there is the group, and nobody in it: systemd would end processes, which are to make the group busy.
    fn is_empty(&self, path: &CgroupPath) -> bool {
        let processes = match &self.layout {
            Layout::V1(mounts) => mounts.open(path.clone()).and_then(|group| group.processes(true)),
            Layout::V2(mount) => mount.open(path.clone()).and_then(|group| group.processes(true)),
        };
        processes.is_ok_and(|processes| processes.is_empty())
    }

    fn remove(&self, path: &CgroupPath, deadline: Instant, wait: Duration) -> Result<(), CgroupError> {
        match &self.layout {
            Layout::V1(mounts) => mounts.delete(path, deadline, wait),
            Layout::V2(mount) => mount.delete(path, deadline, wait),
        }
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)) about a cgroup hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mounted<'a> {
    mount_point: &'a str,
    kind: Kind<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    /// With the options of its superblock, which name the controllers.
    V1 {
        options: &'a str,
    },
    V2,
}

impl<'a> Mounted<'a> {
    fn parse(line: &'a str) -> Option<Mounted<'a>> {
        let (before, after) = line.split_once(" - ")?;
        let mount_point = before.split(' ').nth(4)?;
        let mut fields = after.split(' ');
        let kind = match fields.next()? {
            "cgroup2" => Kind::V2,
            "cgroup" => {
                let options = fields.nth(1)?;
                Kind::V1 { options: options.strip_prefix("rw,").unwrap_or(options) }
            }
            _ => return None,
        };
        Some(Mounted { mount_point, kind })
    }

    fn controllers(&self) -> Vec<Controller> {
        match self.kind {
            Kind::V1 { options } => options.split(',').filter_map(Controller::parse).collect(),
            Kind::V2 => Vec::new(),
        }
    }
}

/// The caller's group in the hierarchy that has `controller`, none of which is version 2's, as a path below its root.
pub(crate) fn own_path(controller: &str) -> std::io::Result<String> {
    let text = sys::file::read("/proc/self/cgroup", LARGEST_TABLE)?;
    let text = String::from_utf8_lossy(&text);
    let path = text.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = path.trim_start_matches('/');
        controllers.split(',').any(|name| name == controller).then_some(if path.is_empty() {
            "."
        } else {
            path
        })
    });
    path.map(str::to_owned)
        .ok_or_else(|| std::io::Error::other("/proc/self/cgroup does not name this process's group"))
}

/// Undoes the octal escapes of mountinfo.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_string(), |path, (escape, plain)| path.replace(escape, plain))
}

/// The sizes for which `folder` has an entry `hugepages-<n>kB`, spelt as in controllers' files.
fn huge_pages(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries
        .filter_map(|e| {
            e.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(huge_page_name).collect()
}

fn huge_page_name(kilobytes: u64) -> String {
    const UNITS: [(u64, &str); 2] = [(1 << 20, "GB"), (1 << 10, "MB")];
    match UNITS.iter().find(|(size, _)| kilobytes >= *size) {
        Some((size, unit)) => format!("{}{unit}", kilobytes / size),
        None => format!("{kilobytes}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_recognised() {
        let line =
            "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct";
        let mounted = Mounted::parse(line).unwrap();
        assert_eq!(mounted.mount_point, "/sys/fs/cgroup/cpu,cpuacct");
        assert_eq!(mounted.controllers(), [Controller::Cpu, Controller::Cpuacct]);
        let line = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup none rw,name=systemd";
        assert_eq!(Mounted::parse(line).unwrap().controllers(), []);
        let line = "25 20 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Mounted::parse(line).unwrap().kind, Kind::V2);
        assert_eq!(Mounted::parse("25 20 0:22 / / rw - ext4 /dev/vda rw"), None);
        assert_eq!(Mounted::parse("nonsense"), None);
        assert_eq!(unescape("/a\\040b"), "/a b");
    }

    #[test]
    fn what_is_told_of_the_mounts_finds_the_same() {
        let Ok(found) = Host::detect() else { return };
        let again = Host::at(found.mounts()).unwrap();
        assert_eq!((again.mounts(), again.mode()), (found.mounts(), found.mode()));
        assert!(found.mounts().lines().all(|line| Mounted::parse(line).is_some()));
        assert!(Host::at("25 20 0:22 / / rw - ext4 /dev/vda rw").is_err());
    }

    #[test]
    fn huge_pages_are_named_as_the_controller_does() {
        assert_eq!(
            [64, 2048, 32_768, 1_048_576, 16_777_216].map(huge_page_name),
            ["64KB", "2MB", "32MB", "1GB", "16GB"]
        );
    }
}
