//! What a task has used, in the messages that containerd's clients read: one kind for each version of control groups.

use cgroup::{Cgroup, CgroupError, Controller, Host, Mode, Pressure, Stats};
use std::path::Path;
use task::{Any, StatsResponse, metrics_v1 as v1, metrics_v2 as v2, pack};

/// Measures the group at `path`. Runs in a helper.
///
/// # Errors
/// There is no such group, or it cannot be read.
pub(super) fn of(path: &Path) -> Result<StatsResponse, CgroupError> {
    let not_found = || CgroupError::NotFound { path: path.display().to_string() };
    let host = Host::detect().map_err(|_| not_found())?;
    let group = host.open(path.to_str().ok_or_else(not_found)?)?;
    let stats = group.stats()?;
    let metrics: Any = match host.mode() {
        Mode::V2 => pack(&unified(&group, &stats)?),
        Mode::V1 | Mode::Hybrid => pack(&split(&group, &stats)?),
    };
    Ok(StatsResponse { stats: Some(metrics) })
}

fn split(group: &Cgroup, stats: &Stats) -> Result<v1::Metrics, CgroupError> {
    let mut memory = v1::MemoryStat::default();
    group.pairs(Controller::Memory, "memory.stat", |key, value| memory.set(key, value))?;
    let entry = |name: &str| -> Result<Option<v1::MemoryEntry>, CgroupError> {
        let number = |what: &str| group.number(Controller::Memory, &format!("memory.{name}{what}"));
        let Some(usage) = number("usage_in_bytes")? else { return Ok(None) };
        Ok(Some(v1::MemoryEntry {
            limit: number("limit_in_bytes")?.unwrap_or(0),
            usage,
            max: number("max_usage_in_bytes")?.unwrap_or(0),
            failcnt: number("failcnt")?.unwrap_or(0),
        }))
    };
    (memory.usage, memory.swap) = (entry("")?, entry("memsw.")?);
    (memory.kernel, memory.kernel_tcp) = (entry("kmem.")?, entry("kmem.tcp.")?);
    let mut out_of_memory = v1::MemoryOomControl::default();
    group.pairs(Controller::Memory, "memory.oom_control", |key, value| match key {
        "oom_kill_disable" => out_of_memory.oom_kill_disable = value,
        "under_oom" => out_of_memory.under_oom = value,
        "oom_kill" => out_of_memory.oom_kill = value,
        _ => {}
    })?;
    let hugetlb = stats.hugetlb.iter().map(|size| v1::HugetlbStat {
        usage: size.usage,
        max: size.max_usage,
        failcnt: size.failures,
        pagesize: size.page_size.clone(),
    });
    Ok(v1::Metrics {
        hugetlb: hugetlb.collect(),
        pids: Some(v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit.unwrap_or(0) }),
        cpu: Some(v1::CpuStat {
            usage: Some(v1::CpuUsage {
                total: stats.cpu.usage_ns,
                kernel: stats.cpu.system_ns,
                user: stats.cpu.user_ns,
                per_cpu: group.numbers(Controller::Cpuacct, "cpuacct.usage_percpu")?,
            }),
            throttling: Some(v1::Throttle {
                periods: stats.cpu.periods,
                throttled_periods: stats.cpu.throttled_periods,
                throttled_time: stats.cpu.throttled_ns,
            }),
        }),
        memory: Some(memory),
        blkio: Some(block_io(stats)),
        memory_oom_control: Some(out_of_memory),
        ..v1::Metrics::default()
    })
}

fn block_io(stats: &Stats) -> v1::BlkioStat {
    let mut io = v1::BlkioStat::default();
    for device in &stats.io.devices {
        let entry = |op: &str, value| v1::BlkioEntry {
            op: op.into(),
            device: String::new(),
            major: device.major.into(),
            minor: device.minor.into(),
            value,
        };
        io.io_service_bytes_recursive.extend([
            entry("Read", device.read_bytes),
            entry("Write", device.written_bytes),
            entry("Discard", device.discarded_bytes),
        ]);
        io.io_serviced_recursive.extend([entry("Read", device.reads), entry("Write", device.writes)]);
    }
    io
}

fn unified(group: &Cgroup, stats: &Stats) -> Result<v2::Metrics, CgroupError> {
    let mut memory = v2::MemoryStat::default();
    group.pairs(Controller::Memory, "memory.stat", |key, value| memory.set(key, value))?;
    let number = |file: &str| group.number(Controller::Memory, file);
    memory.usage = stats.memory.usage;
    memory.usage_limit = stats.memory.limit.unwrap_or(u64::MAX);
    memory.swap_usage = stats.memory.swap_usage;
    memory.swap_limit = stats.memory.swap_limit.unwrap_or(u64::MAX);
    memory.max_usage = number("memory.peak")?.unwrap_or(0);
    memory.swap_max_usage = number("memory.swap.peak")?.unwrap_or(0);
    memory.psi = stats.pressure.memory.map(pressure);
    let mut events = v2::MemoryEvents::default();
    group.pairs(Controller::Memory, "memory.events", |key, value| match key {
        "low" => events.low = value,
        "high" => events.high = value,
        "max" => events.max = value,
        "oom" => events.oom = value,
        "oom_kill" => events.oom_kill = value,
        "oom_group_kill" => events.oom_group_kill = value,
        _ => {}
    })?;
    let usage = stats.io.devices.iter().map(|device| v2::IoEntry {
        major: device.major.into(),
        minor: device.minor.into(),
        rbytes: device.read_bytes,
        wbytes: device.written_bytes,
        rios: device.reads,
        wios: device.writes,
    });
    let hugetlb = stats.hugetlb.iter().map(|size| v2::HugetlbStat {
        current: size.usage,
        max: size.max_usage,
        pagesize: size.page_size.clone(),
        failcnt: size.failures,
    });
    Ok(v2::Metrics {
        pids: Some(v2::PidsStat { current: stats.pids.current, limit: stats.pids.limit.unwrap_or(0) }),
        cpu: Some(v2::CpuStat {
            usage_usec: stats.cpu.usage_ns / 1000,
            user_usec: stats.cpu.user_ns / 1000,
            system_usec: stats.cpu.system_ns / 1000,
            nr_periods: stats.cpu.periods,
            nr_throttled: stats.cpu.throttled_periods,
            throttled_usec: stats.cpu.throttled_ns / 1000,
            psi: stats.pressure.cpu.map(pressure),
            nr_bursts: stats.cpu.burst_periods.unwrap_or(0),
            burst_usec: stats.cpu.burst_ns.unwrap_or(0) / 1000,
        }),
        memory: Some(memory),
        io: Some(v2::IoStat { usage: usage.collect(), psi: stats.pressure.io.map(pressure) }),
        hugetlb: hugetlb.collect(),
        memory_events: Some(events),
        ..v2::Metrics::default()
    })
}

fn pressure(of: Pressure) -> v2::PsiStats {
    let line = |line: cgroup::PressureLine| v2::PsiData {
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
        total: line.total_us,
    };
    v2::PsiStats { some: Some(line(of.some)), full: Some(line(of.full)) }
}
