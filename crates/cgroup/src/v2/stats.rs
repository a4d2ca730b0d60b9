//! Measuring in version 2.

use std::io;

use super::Group;
use crate::convert;
use crate::directory::{Directory, File};
use crate::error::{CgroupError, io_error, is_gone};
use crate::meter::{Files, Meter, StallFiles, optional};
use crate::stats::{
    CpuStats, HugetlbStats, IoStats, MemoryDetail, MemoryStats, PidsStats, Stats, Usage, device_number,
    pairs, value_of,
};

/// What is read often, open.
#[derive(Debug)]
pub(crate) struct UsageFiles {
    cpu: File,
    /// Absent where the group was not given the controller.
    memory: Option<MemoryFiles>,
}

#[derive(Debug)]
struct MemoryFiles {
    usage: File,
    limit: File,
    stat: File,
    /// Absent where the kernel counts no swap.
    swap: Option<(File, File)>,
}

impl UsageFiles {
    pub(crate) fn read(&self) -> io::Result<Usage> {
        Ok(Usage {
            cpu_ns: self.cpu.read(|text| value_of(text, "usage_usec"))?.unwrap_or(0).saturating_mul(1000),
            memory: self.memory.as_ref().map(MemoryFiles::read).transpose()?.unwrap_or_default(),
            ..Usage::default()
        })
    }
}

impl MemoryFiles {
    fn open(directory: &Directory) -> io::Result<MemoryFiles> {
        let open = |name| File::open(directory, name);
        let swap = || -> io::Result<_> { Ok((open("memory.swap.current")?, open("memory.swap.max")?)) };
        Ok(MemoryFiles {
            usage: open("memory.current")?,
            limit: open("memory.max")?,
            stat: open("memory.stat")?,
            swap: optional(swap())?,
        })
    }

    fn read(&self) -> io::Result<MemoryStats> {
        let mut stats = self.stat.read(parse_memory)?;
        stats.usage = self.usage.number()?.unwrap_or(0);
        stats.limit = self.limit.number()?;
        if let Some((usage, limit)) = &self.swap {
            stats.swap_usage = usage.number()?.unwrap_or(0);
            stats.swap_limit = limit.number()?;
        }
        stats.derive();
        Ok(stats)
    }
}

impl Group {
    pub(crate) fn meter(&self) -> Result<Meter, CgroupError> {
        let open = || -> io::Result<UsageFiles> {
            Ok(UsageFiles {
                // In every group, also without the controller.
                cpu: File::open(&self.directory, "cpu.stat")?,
                memory: optional(MemoryFiles::open(&self.directory))?,
            })
        };
        let files = open().map_err(|e| self.error(e))?;
        let directory = Some(&self.directory);
        Ok(Meter::new(self.path.clone(), Files::V2(files), StallFiles::open(directory), directory))
    }

    pub(crate) fn stats(&self, huge_pages: &[String]) -> Result<Stats, CgroupError> {
        // `cpu.stat` is in every group, also without the controller: if it is gone, the group is.
        let cpu = cpu(&self.directory).map_err(|e| self.error(e))?;
        let d = &self.directory;
        let memory = self.optional(MemoryFiles::open(d).and_then(|files| files.read()))?;
        Ok(Stats {
            cpu,
            memory_detail: self.optional(memory_detail(d, &memory))?,
            memory,
            pids: self.optional(pids(d))?,
            io: self.optional(d.read("io.stat", parse_io))?,
            hugetlb: self.optional(hugetlb(d, huge_pages))?,
            oom_kills: self.optional(oom_kills(d))?,
            pressure: StallFiles::open(Some(d)).read(),
        })
    }

    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupError> {
        match oom_kills(&self.directory) {
            // Without the memory controller nothing is killed for the group; without the group nothing is known.
            Err(e) if is_gone(&e) && self.directory.has("cgroup.procs") => Ok(0),
            other => other.map_err(|e| self.error(e)),
        }
    }

    /// What a controller that the group was not given does not measure is left at zero.
    fn optional<T: Default>(&self, result: io::Result<T>) -> Result<T, CgroupError> {
        Ok(optional(result).map_err(|e| self.error(e))?.unwrap_or_default())
    }

    fn error(&self, source: io::Error) -> CgroupError {
        if is_gone(&source) {
            return CgroupError::NotFound { path: self.path.as_str().into() };
        }
        io_error("measure", &self.path, "statistics", source)
    }
}

fn cpu(directory: &Directory) -> io::Result<CpuStats> {
    let mut stats = directory.read("cpu.stat", parse_cpu)?;
    let weight = optional(directory.number("cpu.weight"))?.flatten();
    stats.shares = weight.map_or(0, convert::cpu_shares);
    if let Some((quota, period)) = optional(directory.read("cpu.max", parse_bandwidth))? {
        stats.quota_us = quota;
        stats.period_us = period;
    }
    Ok(stats)
}

fn parse_cpu(text: &str) -> CpuStats {
    let mut stats = CpuStats::default();
    pairs(text, |key, value| match key {
        "usage_usec" => stats.usage_ns = value.saturating_mul(1000),
        "user_usec" => stats.user_ns = value.saturating_mul(1000),
        "system_usec" => stats.system_ns = value.saturating_mul(1000),
        "nr_periods" => stats.periods = value,
        "nr_throttled" => stats.throttled_periods = value,
        "throttled_usec" => stats.throttled_ns = value.saturating_mul(1000),
        "nr_bursts" => stats.burst_periods = Some(value),
        "burst_usec" => stats.burst_ns = Some(value.saturating_mul(1000)),
        _ => {}
    });
    stats
}

/// Quota and period of a `cpu.max`, such as `max 100000`.
fn parse_bandwidth(text: &str) -> (Option<u64>, u64) {
    let (quota, period) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    (quota.parse().ok(), period.parse().unwrap_or(0))
}

fn parse_memory(text: &str) -> MemoryStats {
    let mut stats = MemoryStats::default();
    pairs(text, |key, value| match key {
        "anon" => stats.rss = value,
        "file" => stats.cache = value,
        "kernel" => stats.kernel = Some(value),
        "file_mapped" => stats.mapped_file = value,
        "file_dirty" => stats.dirty = value,
        "file_writeback" => stats.writeback = value,
        "inactive_file" => stats.inactive_file = value,
        "active_file" => stats.active_file = value,
        "workingset_refault_anon" => stats.refaults_anon = Some(value),
        "workingset_refault_file" => stats.refaults_file = Some(value),
        "pgscan" => stats.scanned = Some(value),
        "pgsteal" => stats.reclaimed = Some(value),
        "pgfault" => stats.page_faults = value,
        "pgmajfault" => stats.major_page_faults = value,
        _ => {}
    });
    stats.own_page_faults = stats.page_faults;
    stats.own_major_page_faults = stats.major_page_faults;
    stats
}

fn memory_detail(directory: &Directory, memory: &MemoryStats) -> io::Result<MemoryDetail> {
    let (high, max) =
        directory.read("memory.events", |text| (value_of(text, "high"), value_of(text, "max")))?;
    Ok(MemoryDetail {
        max_usage: optional(directory.number("memory.peak"))?.flatten(),
        failures: max.unwrap_or(0),
        kernel: memory.kernel,
        reservation: directory.number("memory.min")?.unwrap_or(0),
        memory_and_swap_limit: None,
        high_events: high,
        max_events: max,
    })
}

fn oom_kills(directory: &Directory) -> io::Result<u64> {
    directory.read("memory.events", |text| value_of(text, "oom_kill").unwrap_or(0))
}

fn pids(directory: &Directory) -> io::Result<PidsStats> {
    Ok(PidsStats {
        current: directory.number("pids.current")?.unwrap_or(0),
        limit: directory.number("pids.max")?,
    })
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn parse_io(text: &str) -> IoStats {
    let mut stats = IoStats::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some(number) = fields.next().and_then(device_number) else { continue };
        let device = stats.device(number);
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match key {
                "rbytes" => device.read_bytes = value,
                "wbytes" => device.written_bytes = value,
                "dbytes" => device.discarded_bytes = value,
                "rios" => device.reads = value,
                "wios" => device.writes = value,
                _ => {}
            }
        }
    }
    stats
}

fn hugetlb(directory: &Directory, sizes: &[String]) -> io::Result<Vec<HugetlbStats>> {
    let of_size = |size: &String| -> io::Result<HugetlbStats> {
        let refused = |text: &str| value_of(text, "max").unwrap_or(0);
        Ok(HugetlbStats {
            usage: directory.number(&format!("hugetlb.{size}.current"))?.unwrap_or(0),
            // Version 2 keeps no high-water mark of huge pages.
            max_usage: 0,
            failures: optional(directory.read(&format!("hugetlb.{size}.events"), refused))?.unwrap_or(0),
            page_size: size.clone(),
        })
    };
    sizes.iter().map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stats::DeviceIo;

    #[test]
    fn devices_are_told_apart() {
        let text =
            "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=9 dios=9\n253:16 rbytes=5 wbytes=6 rios=7 wios=8\n";
        let stats = parse_io(text);
        let one = DeviceIo {
            major: 8,
            minor: 0,
            read_bytes: 10,
            written_bytes: 20,
            discarded_bytes: 9,
            reads: 1,
            writes: 2,
        };
        assert_eq!(stats.devices[0], one);
        assert_eq!((stats.devices[1].major, stats.devices[1].minor, stats.devices[1].writes), (253, 16, 8));
        assert_eq!(stats.devices.len(), 2);
    }

    #[test]
    fn memory_and_time_have_their_own_names_here() {
        let stats =
            parse_memory("anon 1\nfile 2\nkernel 3\nfile_mapped 4\npgfault 5\npgscan 6\npgscan_kswapd 7\n");
        assert_eq!((stats.rss, stats.cache, stats.kernel, stats.mapped_file), (1, 2, Some(3), 4));
        assert_eq!((stats.page_faults, stats.own_page_faults, stats.scanned), (5, 5, Some(6)));
        let stats = parse_cpu("usage_usec 5\nuser_usec 3\nsystem_usec 2\n");
        assert_eq!((stats.usage_ns, stats.user_ns, stats.system_ns), (5000, 3000, 2000));
        assert_eq!(parse_bandwidth("max 100000\n"), (None, 100_000));
        assert_eq!(parse_bandwidth("5000 100000\n"), (Some(5000), 100_000));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            parse_io(&text);
            parse_cpu(&text);
            parse_memory(&text);
            parse_bandwidth(&text);
        }
    }
}
