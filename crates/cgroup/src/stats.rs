//! What a control group has used.

/// Use of resources by a group and the groups below it. What the host does not measure is zero or absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages, one entry for each size.
    pub hugetlb: Vec<HugetlbStats>,
    /// How often the kernel killed a process of this group, or below it, for want of memory.
    pub oom_kills: u64,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CpuStats {
    /// All of it, in nanoseconds.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Enforcement periods that passed while the group had a quota.
    pub periods: u64,
    /// Those in which it ran out of quota.
    pub throttled_periods: u64,
    /// How long it was kept from running by its quota.
    pub throttled_ns: u64,
    /// Stalls for want of a processor; version 2 only.
    pub pressure: Option<Pressure>,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStats {
    /// All that is charged to the group.
    pub usage: u64,
    /// What cannot simply be dropped: usage without inactive file pages.
    pub working_set: u64,
    /// The group's own limit, if it has one.
    pub limit: Option<u64>,
    /// Limit less working set, if there is a limit.
    pub available: Option<u64>,
    /// Anonymous memory.
    pub rss: u64,
    /// Minor and major faults.
    pub page_faults: u64,
    /// Faults that needed a device.
    pub major_page_faults: u64,
    /// Swap in use.
    pub swap_usage: u64,
    /// The limit of swap alone, if there is one.
    pub swap_limit: Option<u64>,
    /// Stalls for want of memory; version 2 only.
    pub pressure: Option<Pressure>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be, if limited.
    pub limit: Option<u64>,
}

/// Block devices, summed over all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IoStats {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Stalls for want of a device; version 2 only.
    pub pressure: Option<Pressure>,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugetlbStats {
    /// As the kernel writes it: `2MB`.
    pub page_size: String,
    /// Bytes in use.
    pub usage: u64,
    /// Most bytes ever in use, where the kernel says so.
    pub max_usage: u64,
}

/// Pressure stall information of one resource (the kernel's `Documentation/accounting/psi.rst`).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some task was stalled.
    pub some: PressureLine,
    /// Every task was stalled.
    pub full: PressureLine,
}

/// Shares of time in percent, and the total.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PressureLine {
    /// Over 10 seconds.
    pub avg10: f64,
    /// Over 60 seconds.
    pub avg60: f64,
    /// Over 300 seconds.
    pub avg300: f64,
    /// Microseconds since the group was made.
    pub total_us: u64,
}

impl MemoryStats {
    /// Fills in what follows from usage, limit and the inactive file pages.
    pub(crate) fn derive(&mut self, inactive_file: u64) {
        self.working_set = self.usage.saturating_sub(inactive_file);
        self.available = self.limit.map(|limit| limit.saturating_sub(self.working_set));
    }
}

/// Calls `each` with the pairs of a file of `key value` lines.
pub(crate) fn pairs(text: &str, mut each: impl FnMut(&str, u64)) {
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ')
            && let Ok(value) = value.trim().parse()
        {
            each(key, value);
        }
    }
}

/// The value of `key` in a file of `key value` lines.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Parses a `*.pressure` file; `None` if it has no such lines.
pub(crate) fn pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    let mut found = false;
    for line in text.lines() {
        let Some((kind, rest)) = line.split_once(' ') else { continue };
        let target = match kind {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in rest.split(' ').filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => target.avg10 = value.parse().ok()?,
                "avg60" => target.avg60 = value.parse().ok()?,
                "avg300" => target.avg300 = value.parse().ok()?,
                "total" => target.total_us = value.parse().ok()?,
                _ => {}
            }
        }
        found = true;
    }
    found.then_some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_parsed() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=123456\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=99\n";
        let parsed = pressure(text).unwrap();
        assert_eq!((parsed.some.avg10, parsed.some.avg60, parsed.some.total_us), (1.5, 0.2, 123_456));
        assert_eq!((parsed.full.avg10, parsed.full.total_us), (0.1, 99));
        assert_eq!(pressure(""), None);
        assert_eq!(pressure("some avg10=x"), None);
        let events = "low 0\noom 2\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(value_of(events, "oom_kill"), Some(3));
        assert_eq!(value_of(events, "oom"), Some(2));
        assert_eq!(value_of(events, "kill"), None);
    }

    #[test]
    fn a_working_set_is_never_negative() {
        let mut memory = MemoryStats { usage: 100, limit: Some(80), ..MemoryStats::default() };
        memory.derive(200);
        assert_eq!((memory.working_set, memory.available), (0, Some(80)));
        memory.derive(10);
        assert_eq!((memory.working_set, memory.available), (90, Some(0)));
    }
}
