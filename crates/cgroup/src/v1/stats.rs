//! Measuring in version 1.

use std::io;

use super::Group;
use crate::directory::Directory;
use crate::error::{CgroupError, io_error, is_gone};
use crate::host::Controller;
use crate::stats::{CpuStats, HugetlbStats, IoStats, MemoryStats, PidsStats, Stats, pairs, value_of};

/// What the kernel shows for no limit: the largest number of bytes that is whole pages, or more.
const NO_LIMIT: u64 = i64::MAX as u64 - 0xffff;

impl Group {
    pub(crate) fn stats(&self, huge_pages: &[String]) -> Result<Stats, CgroupError> {
        let memory = self.measure(Controller::Memory, memory)?.unwrap_or_default();
        let mut cpu = self.measure(Controller::Cpuacct, usage)?.unwrap_or_default();
        self.measure(Controller::Cpu, |directory| throttling(directory, &mut cpu))?;
        Ok(Stats {
            cpu,
            oom_kills: memory.1,
            memory: memory.0,
            pids: self.measure(Controller::Pids, pids)?.unwrap_or_default(),
            io: self.measure(Controller::Io, block_io)?.unwrap_or_default(),
            hugetlb: self.measure(Controller::Hugetlb, |d| hugetlb(d, huge_pages))?.unwrap_or_default(),
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

fn memory(directory: &Directory) -> io::Result<(MemoryStats, u64)> {
    let limited = |limit: Option<u64>| limit.filter(|l| *l < NO_LIMIT);
    let mut stats = MemoryStats {
        usage: directory.number("memory.usage_in_bytes")?.unwrap_or(0),
        limit: limited(directory.number("memory.limit_in_bytes")?),
        ..MemoryStats::default()
    };
    let mut inactive_file = 0;
    directory.read("memory.stat", |text| {
        pairs(text, |key, value| match key {
            "total_inactive_file" => inactive_file = value,
            "total_rss" => stats.rss = value,
            "total_pgfault" => stats.page_faults = value,
            "total_pgmajfault" => stats.major_page_faults = value,
            "total_swap" => stats.swap_usage = value,
            _ => {}
        });
    })?;
    stats.derive(inactive_file);
    if let Ok(both) = directory.number("memory.memsw.limit_in_bytes")
        && let Some(both) = limited(both)
    {
        stats.swap_limit = Some(both.saturating_sub(stats.limit.unwrap_or(0)));
    }
    Ok((stats, oom_kills(directory)?))
}

fn oom_kills(directory: &Directory) -> io::Result<u64> {
    directory.read("memory.oom_control", |text| value_of(text, "oom_kill").unwrap_or(0))
}

fn usage(directory: &Directory) -> io::Result<CpuStats> {
    let mut stats =
        CpuStats { usage_ns: directory.number("cpuacct.usage")?.unwrap_or(0), ..CpuStats::default() };
    // Separate files since 4.7, in nanoseconds; cpuacct.stat counts in hundredths of a second.
    stats.user_ns = directory.number("cpuacct.usage_user")?.unwrap_or(0);
    stats.system_ns = directory.number("cpuacct.usage_sys")?.unwrap_or(0);
    Ok(stats)
}

fn throttling(directory: &Directory, stats: &mut CpuStats) -> io::Result<()> {
    directory.read("cpu.stat", |text| {
        pairs(text, |key, value| match key {
            "nr_periods" => stats.periods = value,
            "nr_throttled" => stats.throttled_periods = value,
            "throttled_time" => stats.throttled_ns = value,
            _ => {}
        });
    })
}

fn pids(directory: &Directory) -> io::Result<PidsStats> {
    Ok(PidsStats {
        current: directory.number("pids.current")?.unwrap_or(0),
        limit: directory.number("pids.max")?,
    })
}

fn block_io(directory: &Directory) -> io::Result<IoStats> {
    let sums = |file: &str| {
        directory.read(file, |text| {
            let (mut reads, mut writes) = (0u64, 0u64);
            // Lines such as `8:0 Read 4096`, and one `Total 4096` for all.
            for line in text.lines() {
                let mut fields = line.split(' ').skip(1);
                let (kind, value) = (fields.next(), fields.next().and_then(|v| v.parse::<u64>().ok()));
                match (kind, value) {
                    (Some("Read"), Some(value)) => reads = reads.saturating_add(value),
                    (Some("Write"), Some(value)) => writes = writes.saturating_add(value),
                    _ => {}
                }
            }
            (reads, writes)
        })
    };
    let (read_bytes, written_bytes) = sums("blkio.throttle.io_service_bytes_recursive")?;
    let (reads, writes) = sums("blkio.throttle.io_serviced_recursive")?;
    Ok(IoStats { read_bytes, written_bytes, reads, writes, pressure: None })
}

fn hugetlb(directory: &Directory, sizes: &[String]) -> io::Result<Vec<HugetlbStats>> {
    sizes
        .iter()
        .map(|size| {
            Ok(HugetlbStats {
                usage: directory.number(&format!("hugetlb.{size}.usage_in_bytes"))?.unwrap_or(0),
                max_usage: directory.number(&format!("hugetlb.{size}.max_usage_in_bytes"))?.unwrap_or(0),
                page_size: size.clone(),
            })
        })
        .collect()
}
