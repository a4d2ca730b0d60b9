//! Measuring in version 2.

use std::io;

use super::Group;
use crate::directory::Directory;
use crate::error::{CgroupError, io_error, is_gone};
use crate::stats::{
    CpuStats, HugetlbStats, IoStats, MemoryStats, PidsStats, Pressure, Stats, pairs, pressure, value_of,
};

impl Group {
    pub(crate) fn stats(&self, huge_pages: &[String]) -> Result<Stats, CgroupError> {
        // `cpu.stat` is in every group, also without the controller: if it is gone, the group is.
        let cpu = cpu(&self.directory).map_err(|e| self.error(e))?;
        let d = &self.directory;
        Ok(Stats {
            cpu,
            memory: optional(memory(d)).map_err(|e| self.error(e))?,
            pids: optional(pids(d)).map_err(|e| self.error(e))?,
            io: optional(block_io(d)).map_err(|e| self.error(e))?,
            hugetlb: optional(hugetlb(d, huge_pages)).map_err(|e| self.error(e))?,
            oom_kills: optional(oom_kills(d)).map_err(|e| self.error(e))?,
        })
    }

    pub(crate) fn oom_kills(&self) -> Result<u64, CgroupError> {
        match oom_kills(&self.directory) {
            // Without the memory controller nothing is killed for the group; without the group nothing is known.
            Err(e) if is_gone(&e) && self.directory.has("cgroup.procs") => Ok(0),
            other => other.map_err(|e| self.error(e)),
        }
    }

    fn error(&self, source: io::Error) -> CgroupError {
        if is_gone(&source) {
            return CgroupError::NotFound { path: self.path.as_str().into() };
        }
        io_error("measure", &self.path, "statistics", source)
    }
}

/// What a controller that the group was not given does not measure is left at zero.
fn optional<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

/// Absent where the kernel has no pressure accounting, or has it turned off (`EOPNOTSUPP`).
fn stalls(directory: &Directory, file: &str) -> Option<Pressure> {
    directory.read(file, pressure).ok().flatten()
}

fn cpu(directory: &Directory) -> io::Result<CpuStats> {
    let mut stats = CpuStats::default();
    directory.read("cpu.stat", |text| {
        pairs(text, |key, value| match key {
            "usage_usec" => stats.usage_ns = value.saturating_mul(1000),
            "user_usec" => stats.user_ns = value.saturating_mul(1000),
            "system_usec" => stats.system_ns = value.saturating_mul(1000),
            "nr_periods" => stats.periods = value,
            "nr_throttled" => stats.throttled_periods = value,
            "throttled_usec" => stats.throttled_ns = value.saturating_mul(1000),
            _ => {}
        });
    })?;
    stats.pressure = stalls(directory, "cpu.pressure");
    Ok(stats)
}

fn memory(directory: &Directory) -> io::Result<MemoryStats> {
    let mut stats = MemoryStats {
        usage: directory.number("memory.current")?.unwrap_or(0),
        limit: directory.number("memory.max")?,
        ..MemoryStats::default()
    };
    let mut inactive_file = 0;
    directory.read("memory.stat", |text| {
        pairs(text, |key, value| match key {
            "inactive_file" => inactive_file = value,
            "anon" => stats.rss = value,
            "pgfault" => stats.page_faults = value,
            "pgmajfault" => stats.major_page_faults = value,
            _ => {}
        });
    })?;
    stats.derive(inactive_file);
    // Absent where the kernel counts no swap.
    stats.swap_usage = directory.number("memory.swap.current").ok().flatten().unwrap_or(0);
    stats.swap_limit = directory.number("memory.swap.max").ok().flatten();
    stats.pressure = stalls(directory, "memory.pressure");
    Ok(stats)
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

fn block_io(directory: &Directory) -> io::Result<IoStats> {
    let mut stats = directory.read("io.stat", parse_io)?;
    stats.pressure = stalls(directory, "io.pressure");
    Ok(stats)
}

/// Lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn parse_io(text: &str) -> IoStats {
    let mut stats = IoStats::default();
    for (key, value) in text.split_whitespace().filter_map(|field| field.split_once('=')) {
        let sum = match key {
            "rbytes" => &mut stats.read_bytes,
            "wbytes" => &mut stats.written_bytes,
            "rios" => &mut stats.reads,
            "wios" => &mut stats.writes,
            _ => continue,
        };
        *sum = sum.saturating_add(value.parse().unwrap_or(0));
    }
    stats
}

fn hugetlb(directory: &Directory, sizes: &[String]) -> io::Result<Vec<HugetlbStats>> {
    sizes
        .iter()
        .map(|size| {
            let usage = directory.number(&format!("hugetlb.{size}.current"))?.unwrap_or(0);
            // Version 2 keeps no high-water mark of huge pages.
            Ok(HugetlbStats { page_size: size.clone(), usage, max_usage: 0 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_summed() {
        let text =
            "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=9 dios=9\n8:16 rbytes=5 wbytes=6 rios=7 wios=8\n";
        let stats = parse_io(text);
        assert_eq!((stats.read_bytes, stats.written_bytes, stats.reads, stats.writes), (15, 26, 8, 10));
    }
}
