//! What the tests must leave as they found it: mounts, interfaces, named namespaces, nftables, control groups, forwarding, and the places of a real installation.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command;

/// Folders whose entries are part of the picture.
const FOLDERS: &[&str] =
    &["/run/netns", "/run/pintle", "/var/lib/pintle", "/etc/pintle", "/etc/cni/net.d", "/opt/cni/bin"];

/// Settings that a network may switch on.
const SETTINGS: &[&str] =
    &["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/all/route_localnet"];

/// What was there at one moment; each thing is a line that names it.
pub(crate) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks now.
    pub(crate) fn take() -> Snapshot {
        let mut things = BTreeSet::new();
        mounts(&mut things);
        interfaces(&mut things);
        for folder in FOLDERS {
            let names = fs::read_dir(folder).into_iter().flatten().flatten();
            things.extend(names.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())));
        }
        for setting in SETTINGS {
            if let Ok(value) = fs::read_to_string(format!("/proc/sys/{setting}")) {
                things.insert(format!("{setting} = {}", value.trim()));
            }
        }
        nftables(&mut things);
        control_groups(Path::new("/sys/fs/cgroup"), 6, &mut things);
        Snapshot(things)
    }

    /// What is new and what is gone, a line each.
    fn difference(&self, after: &Snapshot) -> Vec<String> {
        let new = after.0.difference(&self.0).map(|thing| format!("new: {thing}"));
        new.chain(self.0.difference(&after.0).map(|thing| format!("gone: {thing}"))).collect()
    }
}

/// What still differs when the host had time to settle: some of the kernel's teardown goes on after the call that asked for it.
pub(crate) fn settled_difference(before: &Snapshot, patience: Duration) -> Vec<String> {
    let start = Instant::now();
    loop {
        let difference = before.difference(&Snapshot::take());
        if difference.is_empty() || start.elapsed() > patience {
            return difference;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// proc_pid_mountinfo(5): the fifth field is where it is mounted.
fn mounts(things: &mut BTreeSet<String>) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in text.lines() {
        let place = line.split(' ').nth(4).unwrap_or_default();
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        let mut thing = format!("mount {place} ({kind})");
        // One mount upon another at the same place.
        while !things.insert(thing.clone()) {
            thing.push('+');
        }
    }
}

/// Those of this process's own network namespace: /sys may show another's.
fn interfaces(things: &mut BTreeSet<String>) {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
    things.extend(names.map(|name| format!("interface {}", name.trim())));
}

fn nftables(things: &mut BTreeSet<String>) {
    let Some(nft) = command::find("nft") else { return };
    let output = Command::new(nft).args(["list", "tables"]).stderr(Stdio::null()).output();
    let tables =
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    things.extend(tables.lines().map(|table| format!("nftables {table}")));
}

fn control_groups(folder: &Path, depth: usize, things: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            things.insert(format!("control group {}", entry.path().display()));
            control_groups(&entry.path(), depth - 1, things);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_left_alone_does_not_differ_and_a_change_is_named() {
        let before = Snapshot(BTreeSet::from(["mount /a (tmpfs)".to_owned(), "b".to_owned()]));
        let after = Snapshot(BTreeSet::from(["b".to_owned(), "c".to_owned()]));
        assert_eq!(before.difference(&after), ["new: c", "gone: mount /a (tmpfs)"]);
        assert!(before.difference(&before).is_empty());
    }

    #[test]
    fn this_host_has_mounts_and_interfaces() {
        let Snapshot(things) = Snapshot::take();
        assert!(things.iter().any(|thing| thing.starts_with("mount /")));
        assert!(things.contains("interface lo"));
    }
}
