//! `update`: resources from a file or from flags.

use std::io::Read;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::arguments::{Flag, Parsed};
use super::lifecycle::one;
use super::{Context, Outcome, Problem};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("resources", Some('r'), "FILE", "linux.resources as JSON; - is standard input"),
    Flag::value("memory", None, "BYTES", "memory limit; -1 is none"),
    Flag::value("memory-reservation", None, "BYTES", "memory to keep under pressure"),
    Flag::value("memory-swap", None, "BYTES", "memory and swap; -1 is no limit"),
    Flag::value("cpu-period", None, "MICROSECONDS", "CPU period"),
    Flag::value("cpu-quota", None, "MICROSECONDS", "CPU time in a period"),
    Flag::value("cpu-share", None, "N", "CPU weight"),
    Flag::value("cpu-burst", None, "MICROSECONDS", "CPU time beyond the quota, saved up before"),
    Flag::value("cpu-idle", None, "0|1", "1: run only when nothing else does"),
    Flag::value("cpu-rt-period", None, "MICROSECONDS", "period for real-time scheduling"),
    Flag::value("cpu-rt-runtime", None, "MICROSECONDS", "real-time CPU time in a period"),
    Flag::value("blkio-weight", None, "N", "weight of block IO, 10 to 1000"),
    Flag::value("l3-cache-schema", None, "SCHEMA", "cache ways of the container's resctrl group"),
    Flag::value("mem-bw-schema", None, "SCHEMA", "memory bandwidth of the container's resctrl group"),
    Flag::value("cpuset-cpus", None, "LIST", "CPUs to run on"),
    Flag::value("cpuset-mems", None, "LIST", "memory nodes to use"),
    Flag::value("pids-limit", None, "N", "most processes; -1 is no limit"),
];

pub(super) fn update(context: &Context, parsed: &Parsed) -> Outcome {
    let resources = match parsed.path("resources") {
        Some(path) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().take(1 << 20).read_to_end(&mut bytes)?;
            crate::json_place::parse(&bytes)
                .map_err(|cause| Problem::usage(format!("standard input: {cause}")))?
        }
        Some(path) => crate::json_place::parse(&std::fs::read(&path)?)
            .map_err(|cause| Problem::usage(format!("{}: {cause}", path.display())))?,
        None => from_flags(parsed)?,
    };
    let schemata: Vec<&str> =
        [parsed.text("l3-cache-schema")?, parsed.text("mem-bw-schema")?].into_iter().flatten().collect();
    if !schemata.is_empty() {
        let (record, _) = crate::state(&context.root, one(parsed)?)?;
        let group = record.rdt.ok_or_else(|| {
            Problem::usage("the container has no resctrl group: its configuration has no linux.intelRdt")
        })?;
        group.write_schemata(&schemata)?;
    }
    for warning in crate::update(&context.root, one(parsed)?, &resources)? {
        context.log.warning(&warning.to_string());
    }
    Ok(0)
}

fn from_flags(parsed: &Parsed) -> Result<LinuxResources, Problem> {
    let mut resources = LinuxResources::default();
    let given = |names: &[&str]| names.iter().any(|name| parsed.all(name).next().is_some());
    if given(&["memory", "memory-reservation", "memory-swap"]) {
        let mut memory = LinuxMemory::default();
        memory.set_limit(parsed.number("memory")?);
        memory.set_reservation(parsed.number("memory-reservation")?);
        memory.set_swap(parsed.number("memory-swap")?);
        resources.set_memory(Some(memory));
    }
    if let Some(weight) = parsed.number("blkio-weight")? {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(weight));
        resources.set_block_io(Some(io));
    }
    if FLAGS.iter().any(|flag| flag.name.starts_with("cpu") && given(&[flag.name])) {
        let mut cpu = LinuxCpu::default();
        cpu.set_period(parsed.number("cpu-period")?);
        cpu.set_quota(parsed.number("cpu-quota")?);
        cpu.set_shares(parsed.number("cpu-share")?);
        cpu.set_burst(parsed.number("cpu-burst")?);
        cpu.set_idle(parsed.number("cpu-idle")?);
        cpu.set_realtime_period(parsed.number("cpu-rt-period")?);
        cpu.set_realtime_runtime(parsed.number("cpu-rt-runtime")?);
        cpu.set_cpus(parsed.text("cpuset-cpus")?.map(Into::into));
        cpu.set_mems(parsed.text("cpuset-mems")?.map(Into::into));
        resources.set_cpu(Some(cpu));
    }
    if let Some(limit) = parsed.number("pids-limit")? {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}
