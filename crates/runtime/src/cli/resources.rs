//! `update`: resources from a file or from flags.

use std::io::Read;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::arguments::{Flag, Parsed};
use super::commands::one;
use super::{Context, Outcome, Problem};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("resources", Some('r'), "FILE", "linux.resources as JSON; - is standard input"),
    Flag::value("memory", None, "BYTES", "memory limit; -1 is none"),
    Flag::value("memory-reservation", None, "BYTES", "memory to keep under pressure"),
    Flag::value("memory-swap", None, "BYTES", "memory and swap; -1 is no limit"),
    Flag::value("cpu-period", None, "MICROSECONDS", "CPU period"),
    Flag::value("cpu-quota", None, "MICROSECONDS", "CPU time in a period"),
    Flag::value("cpu-share", None, "N", "CPU weight"),
    Flag::value("cpuset-cpus", None, "LIST", "CPUs to run on"),
    Flag::value("cpuset-mems", None, "LIST", "memory nodes to use"),
    Flag::value("pids-limit", None, "N", "most processes; -1 is no limit"),
];

pub(super) fn update(context: &Context, parsed: &Parsed) -> Outcome {
    let resources = match parsed.path("resources") {
        Some(path) if path.as_os_str() == "-" => {
            let mut bytes = Vec::new();
            std::io::stdin().take(1 << 20).read_to_end(&mut bytes)?;
            serde_json::from_slice(&bytes)?
        }
        Some(path) => serde_json::from_slice(&std::fs::read(&path)?)
            .map_err(|error| Problem::usage(format!("{}: {error}", path.display())))?,
        None => from_flags(parsed)?,
    };
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
    if given(&["cpu-period", "cpu-quota", "cpu-share", "cpuset-cpus", "cpuset-mems"]) {
        let mut cpu = LinuxCpu::default();
        cpu.set_period(parsed.number("cpu-period")?);
        cpu.set_quota(parsed.number("cpu-quota")?);
        cpu.set_shares(parsed.number("cpu-share")?);
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
