//! Looks for what the demonstration might have left on the machine: processes, mounts, interfaces, nftables tables, control groups, files.

use super::scratch::Scratch;
use rustix::process::{Pid, WaitOptions, getpid, wait};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What there was before, of the things that carry no name of ours.
pub(super) struct Before {
    interfaces: BTreeSet<String>,
    tables: Option<BTreeSet<String>>,
}

impl Before {
    /// Looks.
    pub(super) fn look() -> Before {
        Before { interfaces: interfaces(), tables: nftables() }
    }

    /// Returns a line for each thing that is left, and whether nftables could be looked at.
    pub(super) fn left(&self, scratch: &Scratch, veths: &BTreeSet<String>) -> (Vec<String>, bool) {
        let mut left = Vec::new();
        left.extend(
            children().into_iter().map(|(pid, name)| format!("process {} ({name})", pid.as_raw_nonzero())),
        );
        left.extend(
            mounts_below(scratch.directory()).iter().map(|place| format!("mount {}", place.display())),
        );
        let new: Vec<String> = interfaces().difference(&self.interfaces).cloned().collect();
        // Somebody else may have made an interface meanwhile; ours are known.
        let ours = new.iter().filter(|name| **name == scratch.bridge || veths.contains(*name));
        left.extend(ours.map(|name| format!("interface {name}")));
        let tables = nftables();
        if let (Some(before), Some(now)) = (&self.tables, &tables) {
            let named = |table: &&String| table.contains(&scratch.tag) || table.contains(&scratch.bridge);
            left.extend(now.difference(before).filter(named).map(|table| format!("nftables {table}")));
        }
        left.extend(
            control_groups(&scratch.tag).iter().map(|group| format!("control group {}", group.display())),
        );
        if scratch.directory().exists() {
            left.push(format!("directory {}", scratch.directory().display()));
        }
        (left, tables.is_some())
    }
}

/// The interfaces that are ports of a bridge now.
pub(super) fn ports_of(bridge: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The children of this process that have not been waited for, with their names. After the daemon has ended its shims are among them.
pub(super) fn children() -> Vec<(Pid, String)> {
    let own = getpid().as_raw_nonzero().get();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = parse_stat(&stat)?;
        (rest == own).then(|| Some((Pid::from_raw(pid)?, name.to_owned()))).flatten()
    };
    pids.filter_map(child).collect()
}

/// Waits for every child that has ended. To be called when no `Child` of the standard library is waited for any more.
pub(super) fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Name and parent in `/proc/PID/stat` (proc_pid_stat(5)); the name is in parentheses and may hold anything.
fn parse_stat(stat: &str) -> Option<(&str, i32)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    Some((name, after.split(' ').nth(1)?.parse().ok()?))
}

/// Places of mounts at or below a directory, the oldest first.
pub(super) fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    places.filter(|place| place.starts_with(directory)).collect()
}

/// Directories of this name in every hierarchy: `/sys/fs/cgroup/NAME` of version 2, `/sys/fs/cgroup/CONTROLLER/NAME` of version 1.
pub(super) fn control_groups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = std::iter::once(root.to_owned()).chain(hierarchies).map(|hierarchy| hierarchy.join(name));
    // `cpu` and `cpuacct` are often two names of one hierarchy.
    places
        .filter(|place| place.is_dir())
        .filter_map(|place| place.canonicalize().ok())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn interfaces() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// The tables by the `nft` program; `None` where there is none.
fn nftables() -> Option<BTreeSet<String>> {
    let output = Command::new("nft")
        .args(["list", "tables"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        assert_eq!(parse_stat("12 (a) b (c) S 7 1 1"), Some(("a) b (c", 7)));
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn a_child_is_found_until_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let id = child.id().cast_signed();
        let found = children().iter().any(|(pid, _)| pid.as_raw_nonzero().get() == id);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        assert!(!children().iter().any(|(pid, _)| pid.as_raw_nonzero().get() == id));
    }

    #[test]
    fn proc_is_a_mount_below_the_root() {
        assert!(mounts_below(Path::new("/proc")).contains(&PathBuf::from("/proc")));
        assert!(mounts_below(Path::new("/proc/no/such")).is_empty());
    }
}
