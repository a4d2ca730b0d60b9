//! Processor time, its limits, and stalls.

use cgroup::{CpuStats, Pressure, PressureLine, Stalls};

use super::{Family, Look, counter, counters, gauge, seconds};

fn cpu<'a>(look: &Look<'a>) -> Option<&'a CpuStats> {
    Some(&look.cgroup?.cpu)
}

/// Periods are counted only where there is a quota to enforce.
fn limited<'a>(look: &Look<'a>) -> Option<&'a CpuStats> {
    cpu(look).filter(|cpu| cpu.quota_us.is_some())
}

fn stalled(
    look: &Look<'_>,
    of: fn(&Stalls) -> Option<Pressure>,
    line: fn(&Pressure) -> PressureLine,
) -> Option<u64> {
    let pressure = of(&look.cgroup?.pressure)?;
    Some(line(&pressure).total_us / 1_000_000)
}

pub(super) const FAMILIES: &[Family] = &[
    counters(
        "container_cpu_usage_seconds_total",
        "Processor time used, in seconds.",
        &["cpu"],
        |look, sink| {
            if let Some(cpu) = cpu(look) {
                sink.put(&["total"], seconds(cpu.usage_ns));
            }
        },
    ),
    counter("container_cpu_user_seconds_total", "Processor time used in user mode, in seconds.", |look| {
        Some(seconds(cpu(look)?.user_ns))
    }),
    counter("container_cpu_system_seconds_total", "Processor time used in the kernel, in seconds.", |look| {
        Some(seconds(cpu(look)?.system_ns))
    }),
    counter(
        "container_cpu_cfs_periods_total",
        "Enforcement periods of the quota that have passed.",
        |look| Some(limited(look)?.periods),
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Enforcement periods in which the quota ran out.",
        |look| Some(limited(look)?.throttled_periods),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Time kept from running by the quota, in seconds.",
        |look| Some(seconds(limited(look)?.throttled_ns)),
    ),
    counter(
        "container_cpu_cfs_burst_periods_total",
        "Enforcement periods in which saved time was used beyond the quota.",
        |look| limited(look)?.burst_periods,
    ),
    counter(
        "container_cpu_cfs_burst_seconds_total",
        "Saved time that was used beyond the quota, in seconds.",
        |look| limited(look)?.burst_ns.map(seconds),
    ),
    gauge("container_spec_cpu_period", "The quota's enforcement period, in microseconds.", |look| {
        Some(cpu(look)?.period_us)
    }),
    gauge("container_spec_cpu_quota", "Processor time in each period, in microseconds.", |look| {
        cpu(look)?.quota_us
    }),
    gauge("container_spec_cpu_shares", "Weight beside others, in shares.", |look| Some(cpu(look)?.shares)),
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Time in which some tasks waited for a processor, in seconds.",
        |look| stalled(look, |stalls| stalls.cpu, |pressure| pressure.some),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Time in which all tasks waited for a processor, in seconds.",
        |look| stalled(look, |stalls| stalls.cpu, |pressure| pressure.full),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Time in which some tasks waited for memory, in seconds.",
        |look| stalled(look, |stalls| stalls.memory, |pressure| pressure.some),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Time in which all tasks waited for memory, in seconds.",
        |look| stalled(look, |stalls| stalls.memory, |pressure| pressure.full),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Time in which some tasks waited for a block device, in seconds.",
        |look| stalled(look, |stalls| stalls.io, |pressure| pressure.some),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Time in which all tasks waited for a block device, in seconds.",
        |look| stalled(look, |stalls| stalls.io, |pressure| pressure.full),
    ),
];
