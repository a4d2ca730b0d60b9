//! `events`: what a container uses, again and again, and when the kernel killed one of its processes for want of memory.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arguments::{Flag, Parsed};
use super::lifecycle::one;
use super::{Context, Outcome, Problem};
use crate::UpdateError;

pub(super) const FLAGS: &[Flag] = &[
    Flag::value(
        "interval",
        None,
        "TIME",
        "time from one to the next, such as 500ms, 5s or 1m; by default 5s",
    ),
    Flag::switch("stats", None, "show once what it uses"),
];

/// How often it is looked whether a process was killed for want of memory.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn events(context: &Context, parsed: &Parsed) -> Outcome {
    let id = one(parsed)?;
    let interval = duration(parsed.text("interval")?.unwrap_or("5s"))
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| Problem::usage("--interval must be a time above 0, such as 500ms, 5s or 1m"))?;
    if parsed.has("stats") {
        let stats = crate::stats(&context.root, id)?;
        return print("stats", id, Some(data(&stats))).map(|()| 0);
    }
    let (record, _) = crate::state(&context.root, id)?;
    let init = record.init()?.ok_or(UpdateError::Stopped { id: id.into() })?;
    let mut kills = crate::stats(&context.root, id)?.oom_kills;
    let mut next = Instant::now() + interval;
    loop {
        let ended = sys::process::wait_for_end(init.as_fd(), LOOK.min(interval).as_millis() as u64);
        match crate::stats(&context.root, id) {
            Ok(stats) => {
                for _ in kills..stats.oom_kills {
                    print("oom", id, None)?;
                }
                kills = stats.oom_kills;
                if Instant::now() >= next {
                    print("stats", id, Some(data(&stats)))?;
                    next += interval;
                }
            }
            // It was deleted, or has ended and has nothing to tell any more.
            Err(UpdateError::Stopped { .. } | UpdateError::Lookup(_)) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        if ended {
            return Ok(0);
        }
    }
}

/// One event a line, the kind and the id in front, as some read it by the letter; whoever reads may be gone.
fn print(kind: &str, id: &str, data: Option<Value>) -> Result<(), Problem> {
    let data = data.map_or_else(String::new, |data| format!(",\"data\":{data}"));
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{{\"type\":{},\"id\":{}{data}}}\n", json!(kind), json!(id)).as_bytes())?;
    Ok(out.flush()?)
}

/// A time as Go writes it, with one unit.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// The statistics under the names that readers of runc's events know.
fn data(stats: &cgroup::Stats) -> Value {
    let memory = &stats.memory;
    let detail = &stats.memory_detail;
    let entry = |usage: u64, max: u64, limit: Option<u64>, failures: u64| json!({"usage": usage, "max": max, "limit": limit.unwrap_or(u64::MAX), "failcnt": failures});
    let io = |each: fn(&cgroup::DeviceIo) -> [(&'static str, u64); 2]| -> Vec<Value> {
        let row = |device: &cgroup::DeviceIo| {
            let (major, minor) = (device.major, device.minor);
            each(device).map(|(op, value)| json!({"major": major, "minor": minor, "op": op, "value": value}))
        };
        stats.io.devices.iter().flat_map(row).collect()
    };
    let hugetlb: serde_json::Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|size| {
            let value = json!({"usage": size.usage, "max": size.max_usage, "failcnt": size.failures});
            (size.page_size.clone(), value)
        })
        .collect();
    json!({
        "cpu": {
            "usage": {"total": stats.cpu.usage_ns, "user": stats.cpu.user_ns, "kernel": stats.cpu.system_ns},
            "throttling": {
                "periods": stats.cpu.periods,
                "throttledPeriods": stats.cpu.throttled_periods,
                "throttledTime": stats.cpu.throttled_ns,
            },
            "psi": stats.pressure.cpu.as_ref().map(stalls),
        },
        "cpuset": {},
        "memory": {
            "cache": memory.cache,
            "usage": entry(memory.usage, detail.max_usage.unwrap_or(0), memory.limit, detail.failures),
            "swap": entry(memory.swap_usage, 0, memory.swap_limit, 0),
            "kernel": entry(detail.kernel.unwrap_or(0), 0, None, 0),
            "kernelTCP": entry(0, 0, None, 0),
            "raw": {
                "rss": memory.rss,
                "mapped_file": memory.mapped_file,
                "active_file": memory.active_file,
                "inactive_file": memory.inactive_file,
                "pgfault": memory.page_faults,
                "pgmajfault": memory.major_page_faults,
                "total_inactive_file": memory.inactive_file,
            },
            "psi": stats.pressure.memory.as_ref().map(stalls),
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": io(|d| [("Read", d.read_bytes), ("Write", d.written_bytes)]),
            "ioServicedRecursive": io(|d| [("Read", d.reads), ("Write", d.writes)]),
            "psi": stats.pressure.io.as_ref().map(stalls),
        },
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn stalls(pressure: &cgroup::Pressure) -> Value {
    let line = |line: &cgroup::PressureLine| json!({"avg10": line.avg10, "avg60": line.avg60, "avg300": line.avg300, "total": line.total_us});
    json!({"some": line(&pressure.some), "full": line(&pressure.full)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_go() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Some(Duration::from_secs(90)));
        for bad in ["", "5", "s", "-1s", "1d", "1e9999h", "1..2s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
