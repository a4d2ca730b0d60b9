//! What a control group has used.

/// What is asked for often: processor time, memory and stalls of a group and the groups below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Processor time, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory.
    pub memory: MemoryStats,
    /// Stalls.
    pub pressure: Stalls,
}

/// Use of resources by a group and the groups below it, in full. What the host does not measure is zero or absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// What else is counted of memory.
    pub memory_detail: MemoryDetail,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Block devices.
    pub io: IoStats,
    /// Huge pages, one entry for each size.
    pub hugetlb: Vec<HugetlbStats>,
    /// Stalls.
    pub pressure: Stalls,
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
    /// Periods in which it used more than its quota out of what it had saved; since Linux 5.14.
    pub burst_periods: Option<u64>,
    /// How much more that was.
    pub burst_ns: Option<u64>,
    /// The group's weight, in shares as version 1 counts them.
    pub shares: u64,
    /// The time it may run in each period, in microseconds, if that is limited.
    pub quota_us: Option<u64>,
    /// The length of a period in microseconds.
    pub period_us: u64,
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
    /// Pages of files.
    pub cache: u64,
    /// Those of them that processes have mapped.
    pub mapped_file: u64,
    /// Those that were used lately.
    pub active_file: u64,
    /// Those that were not.
    pub inactive_file: u64,
    /// Those that differ from the disk.
    pub dirty: u64,
    /// Those on their way to the disk.
    pub writeback: u64,
    /// Minor and major faults.
    pub page_faults: u64,
    /// Faults that needed a device.
    pub major_page_faults: u64,
    /// Minor and major faults of the group alone, without those below it. Version 2 counts the two together.
    pub own_page_faults: u64,
    /// The same of major faults.
    pub own_major_page_faults: u64,
    /// How often an anonymous page was needed again after it was evicted.
    pub refaults_anon: Option<u64>,
    /// The same of pages of files.
    pub refaults_file: Option<u64>,
    /// Memory of the kernel itself; here in version 2 only, see [`MemoryDetail::kernel`].
    pub(crate) kernel: Option<u64>,
    /// Pages that were looked at to find some to evict; version 2 only.
    pub scanned: Option<u64>,
    /// Pages that were evicted; version 2 only.
    pub reclaimed: Option<u64>,
    /// Swap in use.
    pub swap_usage: u64,
    /// The limit of swap alone, if there is one.
    pub swap_limit: Option<u64>,
}

/// What takes further files to read than [`MemoryStats`], in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryDetail {
    /// The highest usage ever; version 2 has it since Linux 5.19.
    pub max_usage: Option<u64>,
    /// How often usage was about to exceed the limit.
    pub failures: u64,
    /// Memory of the kernel itself, such as stacks and sockets, that is part of the usage.
    pub kernel: Option<u64>,
    /// What the group keeps when memory is short.
    pub reservation: u64,
    /// The limit of memory and swap together; version 1 only.
    pub memory_and_swap_limit: Option<u64>,
    /// How often the group was slowed down because of its `memory.high`; version 2 only.
    pub high_events: Option<u64>,
    /// How often its usage was about to exceed `memory.max`; version 2 only.
    pub max_events: Option<u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many threads there are.
    pub current: u64,
    /// How many there may be, if limited.
    pub limit: Option<u64>,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IoStats {
    /// One entry for each device that was used.
    pub devices: Vec<DeviceIo>,
}

/// What was read from and written to one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Which one.
    pub major: u32,
    /// Which one.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes that the device was told to forget.
    pub discarded_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
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
    /// How often a page was refused because of the limit.
    pub failures: u64,
}

/// Stalls for want of each resource. Kept by the tree of version 2, also where that has no controllers; absent where it is not mounted
/// or the kernel does not account for stalls.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stalls {
    /// A processor.
    pub cpu: Option<Pressure>,
    /// Memory.
    pub memory: Option<Pressure>,
    /// A block device.
    pub io: Option<Pressure>,
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
    pub(crate) fn derive(&mut self) {
        self.working_set = self.usage.saturating_sub(self.inactive_file);
        self.available = self.limit.map(|limit| limit.saturating_sub(self.working_set));
    }
}

impl IoStats {
    /// The entry of a device, made where there is none yet.
    pub(crate) fn device(&mut self, (major, minor): (u32, u32)) -> &mut DeviceIo {
        let same = |known: &DeviceIo| (known.major, known.minor) == (major, minor);
        let at = self.devices.iter().position(same).unwrap_or_else(|| {
            self.devices.push(DeviceIo { major, minor, ..DeviceIo::default() });
            self.devices.len() - 1
        });
        &mut self.devices[at]
    }
}

/// A device as control files name it: `8:16`.
pub(crate) fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
    use proptest::prelude::*;

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
        assert_eq!(device_number("8:16"), Some((8, 16)));
        assert_eq!(device_number("8"), None);
    }

    #[test]
    fn a_working_set_is_never_negative() {
        let mut memory =
            MemoryStats { usage: 100, inactive_file: 200, limit: Some(80), ..MemoryStats::default() };
        memory.derive();
        assert_eq!((memory.working_set, memory.available), (0, Some(80)));
        memory.inactive_file = 10;
        memory.derive();
        assert_eq!((memory.working_set, memory.available), (90, Some(0)));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            let _ = pressure(&text);
            let _ = device_number(&text);
            pairs(&text, |_, _| {});
        }

        #[test]
        fn stalls_lead_back(avg in 0.0f64..100.0, total: u64) {
            let line = |kind: &str| format!("{kind} avg10={avg} avg60={avg} avg300={avg} total={total}\n");
            let expected = PressureLine { avg10: avg, avg60: avg, avg300: avg, total_us: total };
            let parsed = pressure(&(line("some") + &line("full")));
            prop_assert_eq!(parsed, Some(Pressure { some: expected, full: expected }));
        }
    }
}
