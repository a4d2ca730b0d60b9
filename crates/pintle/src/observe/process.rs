//! The daemon's own process, under the names that every Prometheus client library uses.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Read from /proc when somebody asks.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(read) = read() else { return Ok(()) };
        let cpu = ConstCounter::new(read.cpu_seconds);
        let name = "process_cpu";
        let seconds = Some(&Unit::Seconds);
        cpu.encode(encoder.encode_descriptor(name, "Processor time used", seconds, cpu.metric_type())?)?;
        let gauges = [
            ("process_resident_memory", "Memory in use", Some(&Unit::Bytes), read.resident_bytes),
            ("process_open_fds", "Open descriptors", None, read.open_files),
            ("process_threads", "Threads", None, read.threads),
        ];
        for (name, help, unit, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

struct Read {
    cpu_seconds: f64,
    resident_bytes: i64,
    open_files: i64,
    threads: i64,
}

/// proc_pid_stat(5); the command's name before the fields may hold anything, so they are counted from behind it.
fn read() -> Option<Read> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<i64>().ok();
    let ticks = field(14)? + field(15)?;
    let page = i64::try_from(rustix::param::page_size()).ok()?;
    Some(Read {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        resident_bytes: field(24)? * page,
        open_files: i64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()?,
        threads: field(20)?,
    })
}
