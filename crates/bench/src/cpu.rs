//! Processor time of everything that a runtime does: of the control group its daemon was started in, which all that it starts inherits, and of
//! its pods' group. Unlike the times of processes this counts those that have come and gone, to the nanosecond.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where version 1 measures processor time, and the one tree of version 2.
const HIERARCHIES: [&str; 4] =
    ["/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpuacct,cpu", "/sys/fs/cgroup"];

/// A control group that only measures; it is removed with this value, once nobody is in it.
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// Makes the group `name`.
    pub(crate) fn make(name: &str) -> Result<Group> {
        let path = hierarchy().join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("making {}", path.display()))
            }
            _ => Ok(Group(path)),
        }
    }

    /// Moves a process into it, with all that it will start.
    pub(crate) fn take(&self, pid: u32) -> Result<()> {
        let file = self.0.join("cgroup.procs");
        std::fs::write(&file, pid.to_string()).with_context(|| format!("writing {}", file.display()))
    }

    /// What has been used in it so far, in seconds.
    pub(crate) fn used(&self) -> f64 {
        used(&self.0)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..50 {
            if std::fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        eprintln!("{} is left: somebody is in it", self.0.display());
    }
}

/// What has been used so far in a group that others made, in seconds; 0 where there is none.
pub(crate) fn used_in(group: &str) -> f64 {
    used(&hierarchy().join(group.trim_start_matches('/')))
}

fn hierarchy() -> &'static Path {
    let measures = |path: &&str| {
        Path::new(path).join("cpuacct.usage").exists() || Path::new(path).join("cgroup.controllers").exists()
    };
    Path::new(HIERARCHIES.iter().copied().find(measures).unwrap_or(HIERARCHIES[3]))
}

fn used(group: &Path) -> f64 {
    if let Ok(text) = std::fs::read_to_string(group.join("cpuacct.usage")) {
        return text.trim().parse::<f64>().unwrap_or(0.0) / 1e9;
    }
    let text = std::fs::read_to_string(group.join("cpu.stat")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    line.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}
