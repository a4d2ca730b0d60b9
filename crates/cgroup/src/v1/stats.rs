//! Measuring in version 1.

use std::io;

use super::Group;
use crate::directory::{Directory, File};
use crate::error::{CgroupError, io_error, is_gone};
use crate::host::Controller;
use crate::meter::{Files, Meter, StallFiles, optional};
use crate::stats::{
    CpuStats, HugetlbStats, IoStats, MemoryDetail, MemoryStats, PidsStats, Stats, Usage, device_number,
    pairs, value_of,
};

/// What the kernel shows for no limit: the largest number of bytes that is whole pages, or more.
const NO_LIMIT: u64 = i64::MAX as u64 - 0xffff;

/// What is read often, open. A controller that is not mounted has no files.
#[derive(Debug)]
pub(crate) struct UsageFiles {
    cpu: Option<File>,
    memory: Option<MemoryFiles>,
}

#[derive(Debug)]
struct MemoryFiles {
    usage: File,
    limit: File,
    stat: File,
    /// Absent where swap is not accounted for.
    both: Option<File>,
}

impl UsageFiles {
    pub(crate) fn read(&self) -> io::Result<Usage> {
        Ok(Usage {
            cpu_ns: self.cpu.as_ref().map_or(Ok(None), File::number)?.unwrap_or(0),
            memory: self.memory.as_ref().map(MemoryFiles::read).transpose()?.unwrap_or_default(),
            ..Usage::default()
        })
    }
}

impl MemoryFiles {
    fn open(directory: &Directory) -> io::Result<MemoryFiles> {
        Ok(MemoryFiles {
            usage: File::open(directory, "memory.usage_in_bytes")?,
            limit: File::open(directory, "memory.limit_in_bytes")?,
            stat: File::open(directory, "memory.stat")?,
            both: optional(File::open(directory, "memory.memsw.limit_in_bytes"))?,
        })
    }

    fn read(&self) -> io::Result<MemoryStats> {
        let mut stats = self.stat.read(parse_memory)?;
        stats.usage = self.usage.number()?.unwrap_or(0);
        stats.limit = limited(self.limit.number()?);
        let both = self.both.as_ref().map_or(Ok(None), File::number)?;
        stats.swap_limit = limited(both).map(|both| both.saturating_sub(stats.limit.unwrap_or(0)));
        stats.derive();
        Ok(stats)
    }
}

impl Group {
    pub(crate) fn meter(&self) -> Result<Meter, CgroupError> {
        let files = UsageFiles {
            cpu: self.measure(Controller::Cpuacct, |d| File::open(d, "cpuacct.usage"))?,
            memory: self.measure(Controller::Memory, MemoryFiles::open)?,
        };
        let stalls = StallFiles::open(self.unified.as_ref());
        Ok(Meter::new(self.path.clone(), Files::V1(files), stalls, self.census()))
    }

    pub(crate) fn stats(&self, huge_pages: &[String]) -> Result<Stats, CgroupError> {
        let mut cpu = self.measure(Controller::Cpuacct, cpu_time)?.unwrap_or_default();
        self.measure(Controller::Cpu, |directory| bandwidth(directory, &mut cpu))?;
        Ok(Stats {
            cpu,
            memory: self.measure(Controller::Memory, |d| MemoryFiles::open(d)?.read())?.unwrap_or_default(),
            memory_detail: self.measure(Controller::Memory, memory_detail)?.unwrap_or_default(),
            oom_kills: self.oom_kills()?,
            pids: self.measure(Controller::Pids, pids)?.unwrap_or_default(),
            io: self.measure(Controller::Io, block_io)?.unwrap_or_default(),
            hugetlb: self.measure(Controller::Hugetlb, |d| hugetlb(d, huge_pages))?.unwrap_or_default(),
            pressure: StallFiles::open(self.unified.as_ref()).read(),
        })
    }

    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupError> {
        Ok(self.measure(Controller::Memory, oom_kills)?.unwrap_or(0))
    }

    /// `None` where the controller is not mounted.
    fn measure<R>(
        &self,
        controller: Controller,
        read: impl FnOnce(&Directory) -> io::Result<R>,
    ) -> Result<Option<R>, CgroupError> {
        let Some(directory) = self.find(controller) else { return Ok(None) };
        match read(directory) {
            Ok(value) => Ok(Some(value)),
            Err(e) if is_gone(&e) => Err(CgroupError::NotFound { path: self.path.as_str().into() }),
            Err(e) => Err(io_error("measure", &self.path, controller.name(), e)),
        }
    }
}

fn limited(limit: Option<u64>) -> Option<u64> {
    limit.filter(|limit| *limit < NO_LIMIT)
}

/// Keys beginning with `total_` are of the group and those below it.
fn parse_memory(text: &str) -> MemoryStats {
    let mut stats = MemoryStats::default();
    pairs(text, |key, value| match key {
        "pgfault" => stats.own_page_faults = value,
        "pgmajfault" => stats.own_major_page_faults = value,
        "total_cache" => stats.cache = value,
        "total_rss" => stats.rss = value,
        "total_mapped_file" => stats.mapped_file = value,
        "total_dirty" => stats.dirty = value,
        "total_writeback" => stats.writeback = value,
        "total_workingset_refault_anon" => stats.refaults_anon = Some(value),
        "total_workingset_refault_file" => stats.refaults_file = Some(value),
        "total_swap" => stats.swap_usage = value,
        "total_pgfault" => stats.page_faults = value,
        "total_pgmajfault" => stats.major_page_faults = value,
        "total_inactive_file" => stats.inactive_file = value,
        "total_active_file" => stats.active_file = value,
        _ => {}
    });
    stats
}

fn memory_detail(directory: &Directory) -> io::Result<MemoryDetail> {
    Ok(MemoryDetail {
        max_usage: directory.number("memory.max_usage_in_bytes")?,
        failures: directory.number("memory.failcnt")?.unwrap_or(0),
        // Absent where the kernel's own memory is not accounted for.
        kernel: optional(directory.number("memory.kmem.usage_in_bytes"))?.flatten(),
        reservation: limited(directory.number("memory.soft_limit_in_bytes")?).unwrap_or(0),
        memory_and_swap_limit: optional(directory.number("memory.memsw.limit_in_bytes"))?.and_then(limited),
        high_events: None,
        max_events: None,
    })
}

fn oom_kills(directory: &Directory) -> io::Result<u64> {
    directory.read("memory.oom_control", |text| value_of(text, "oom_kill").unwrap_or(0))
}

fn cpu_time(directory: &Directory) -> io::Result<CpuStats> {
    Ok(CpuStats {
        usage_ns: directory.number("cpuacct.usage")?.unwrap_or(0),
        // Separate files since 4.7, in nanoseconds; cpuacct.stat counts in hundredths of a second.
        user_ns: directory.number("cpuacct.usage_user")?.unwrap_or(0),
        system_ns: directory.number("cpuacct.usage_sys")?.unwrap_or(0),
        ..CpuStats::default()
    })
}

fn bandwidth(directory: &Directory, stats: &mut CpuStats) -> io::Result<()> {
    // Absent in a kernel without bandwidth control.
    optional(directory.read("cpu.stat", |text| parse_bandwidth(text, stats)))?;
    stats.shares = optional(directory.number("cpu.shares"))?.flatten().unwrap_or(0);
    stats.period_us = optional(directory.number("cpu.cfs_period_us"))?.flatten().unwrap_or(0);
    let quota = optional(directory.text("cpu.cfs_quota_us"))?;
    // -1 is no limit.
    stats.quota_us = quota.and_then(|quota| quota.parse().ok());
    Ok(())
}

fn parse_bandwidth(text: &str, stats: &mut CpuStats) {
    pairs(text, |key, value| match key {
        "nr_periods" => stats.periods = value,
        "nr_throttled" => stats.throttled_periods = value,
        "throttled_time" => stats.throttled_ns = value,
        "nr_bursts" => stats.burst_periods = Some(value),
        "burst_time" => stats.burst_ns = Some(value),
        _ => {}
    });
}

fn pids(directory: &Directory) -> io::Result<PidsStats> {
    Ok(PidsStats {
        current: directory.number("pids.current")?.unwrap_or(0),
        limit: directory.number("pids.max")?,
    })
}

fn block_io(directory: &Directory) -> io::Result<IoStats> {
    let mut stats = IoStats::default();
    directory.read("blkio.throttle.io_service_bytes_recursive", |text| {
        operations(text, |device, operation, value| {
            let device = stats.device(device);
            match operation {
                "Read" => device.read_bytes = value,
                "Write" => device.written_bytes = value,
                "Discard" => device.discarded_bytes = value,
                _ => {}
            }
        });
    })?;
    directory.read("blkio.throttle.io_serviced_recursive", |text| {
        operations(text, |device, operation, value| {
            let device = stats.device(device);
            match operation {
                "Read" => device.reads = value,
                "Write" => device.writes = value,
                _ => {}
            }
        });
    })?;
    Ok(stats)
}

/// Lines such as `8:0 Read 4096`, and one `Total 4096` for all.
fn operations(text: &str, mut each: impl FnMut((u32, u32), &str, u64)) {
    for line in text.lines() {
        let mut fields = line.split(' ');
        if let Some(device) = fields.next().and_then(device_number)
            && let Some(operation) = fields.next()
            && let Some(value) = fields.next().and_then(|value| value.parse().ok())
        {
            each(device, operation, value);
        }
    }
}

fn hugetlb(directory: &Directory, sizes: &[String]) -> io::Result<Vec<HugetlbStats>> {
    let number = |size: &str, what: &str| -> io::Result<u64> {
        Ok(directory.number(&format!("hugetlb.{size}.{what}"))?.unwrap_or(0))
    };
    let of_size = |size: &String| -> io::Result<HugetlbStats> {
        Ok(HugetlbStats {
            usage: number(size, "usage_in_bytes")?,
            max_usage: number(size, "max_usage_in_bytes")?,
            failures: number(size, "failcnt")?,
            page_size: size.clone(),
        })
    };
    sizes.iter().map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_that_of_the_whole_subtree() {
        let text = "cache 1\nrss 2\npgfault 3\npgmajfault 4\ntotal_cache 10\ntotal_rss 20\ntotal_mapped_file 30\n\
                    total_swap 40\ntotal_pgfault 50\ntotal_pgmajfault 60\ntotal_inactive_file 70\ntotal_active_file 80\n\
                    total_dirty 90\ntotal_writeback 100\ntotal_workingset_refault_file 110\n";
        let stats = parse_memory(text);
        assert_eq!((stats.cache, stats.rss, stats.mapped_file, stats.swap_usage), (10, 20, 30, 40));
        assert_eq!((stats.page_faults, stats.own_page_faults), (50, 3));
        assert_eq!((stats.major_page_faults, stats.own_major_page_faults), (60, 4));
        assert_eq!((stats.inactive_file, stats.active_file), (70, 80));
        assert_eq!((stats.dirty, stats.writeback), (90, 100));
        assert_eq!((stats.refaults_file, stats.refaults_anon), (Some(110), None));
    }

    #[test]
    fn devices_have_their_operations() {
        let mut seen = Vec::new();
        let text = "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n8:x Read 1\n";
        operations(text, |device, operation, value| seen.push((device, operation.to_owned(), value)));
        assert_eq!(seen.len(), 3);
        assert_eq!(seen[1], ((8, 0), "Write".to_owned(), 20));
    }

    #[test]
    fn what_an_old_kernel_does_not_count_is_absent() {
        let mut stats = CpuStats::default();
        parse_bandwidth("nr_periods 5\nnr_throttled 2\nthrottled_time 9\n", &mut stats);
        assert_eq!((stats.periods, stats.throttled_periods, stats.throttled_ns), (5, 2, 9));
        assert_eq!((stats.burst_periods, stats.burst_ns), (None, None));
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            parse_memory(&text);
            operations(&text, |_, _, _| {});
            parse_bandwidth(&text, &mut CpuStats::default());
        }
    }
}
