//! The processes of a runtime: its daemon, and the helpers it keeps beside the containers. Read from /proc.

use crate::pods::MARKER;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// What one process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Memory {
    /// Its pages, those shared with others divided among them.
    pub(crate) pss_kib: f64,
    pub(crate) rss_kib: f64,
    /// Pages nobody shares.
    pub(crate) private_kib: f64,
}

/// Reads `/proc/PID/smaps_rollup` (proc_pid_smaps(5)); `None` when the process has ended.
pub(crate) fn memory(pid: i32) -> Option<Memory> {
    fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().map(|text| parse_memory(&text))
}

fn parse_memory(text: &str) -> Memory {
    let mut memory = Memory::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let kib: f64 = value.parse().unwrap_or(0.0);
        match name {
            "Pss:" => memory.pss_kib = kib,
            "Rss:" => memory.rss_kib = kib,
            "Private_Clean:" | "Private_Dirty:" => memory.private_kib += kib,
            _ => {}
        }
    }
    memory
}

/// Processor time of all threads so far, in nanoseconds (`schedstat`; ticks would be too coarse for an idle daemon).
pub(crate) fn cpu_nanos(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let time = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    };
    threads.filter_map(time).sum()
}

/// How many threads a process has.
pub(crate) fn threads(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().count()
}

/// How many descriptors a process has.
pub(crate) fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().count()
}

/// Processor time so far, in seconds, of a process with the threads and children that have ended (proc_pid_stat(5)).
pub(crate) fn cpu_secs(pid: i32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // utime, stime, cutime and cstime, counted from behind the name.
    let fields = text.rsplit_once(") ")?.1.split(' ').skip(11).take(4);
    let ticks: f64 = fields.filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// The most memory that a process has had since [`reset_peak`].
pub(crate) fn peak_kib(pid: i32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Makes the peak of a process's memory what it has now (proc_pid_clear_refs(5)).
pub(crate) fn reset_peak(pid: i32) -> std::io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// The helpers of a runtime whose daemon has this id: what descends from the daemon, what lies in a pod's control group, and the parents of
/// what lies there (shims and monitors, which are adopted by process 1); without the programs of the containers.
pub(crate) fn helpers(daemon: i32, cgroup_parent: &str) -> Vec<i32> {
    let parents: BTreeMap<i32, i32> = pids().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let in_group = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.contains(&format!(":{cgroup_parent}/"))
    };
    let grouped: BTreeSet<i32> = parents.keys().copied().filter(in_group).collect();
    let keepers: BTreeSet<i32> = grouped.iter().filter_map(|pid| parents.get(pid).copied()).collect();
    let descends = |pid: i32| {
        let ancestors =
            std::iter::successors(Some(pid), |pid| parents.get(pid).copied().filter(|parent| *parent > 1));
        ancestors.skip(1).take(parents.len()).any(|ancestor| ancestor == daemon)
    };
    let is_program = |pid: i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // A process without a command line is the kernel's or has ended.
        line.is_empty() || contains(&line, MARKER.as_bytes())
    };
    let is_helper = |pid: &i32| {
        let near = grouped.contains(pid) || keepers.contains(pid) || descends(*pid);
        near && *pid > 1 && *pid != daemon && !is_program(*pid)
    };
    parents.keys().copied().filter(is_helper).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent in `/proc/PID/stat`: the second field behind the name, which is in parentheses and may hold anything.
fn parent(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_read() {
        let text = "00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss: 100 kB\nPss: 50 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 5 kB\n";
        assert_eq!(parse_memory(text), Memory { pss_kib: 50.0, rss_kib: 100.0, private_kib: 15.0 });
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        let own = std::process::id().cast_signed();
        assert!(memory(own).unwrap().rss_kib > 0.0);
        assert!(cpu_nanos(own) > 0);
        assert!(cpu_secs(own).is_some());
        let large = vec![1u8; 32 << 20];
        let with = peak_kib(own).unwrap();
        drop(large);
        reset_peak(own).unwrap();
        assert!(peak_kib(own).unwrap() < with);
    }

    #[test]
    fn a_child_is_a_helper_and_a_containers_program_is_not() {
        let own = std::process::id().cast_signed();
        let mut helper = std::process::Command::new("sleep").arg("31").spawn().unwrap();
        let mut program = std::process::Command::new("sleep").arg(MARKER).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let found = helpers(own, "/no-such-group");
        helper.kill().unwrap();
        program.kill().unwrap();
        helper.wait().unwrap();
        program.wait().unwrap();
        assert!(found.contains(&helper.id().cast_signed()));
        assert!(!found.contains(&program.id().cast_signed()));
    }
}
