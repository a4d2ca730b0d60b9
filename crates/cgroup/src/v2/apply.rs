//! Applying the runtime specification's resources to the files of version 2.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};
use rustix::io::Errno;
use sys::bpf::{self, DeviceProgram};

use super::{Group, program};
use crate::change::{Changes, Place};
use crate::convert::{self, Swap, check_page_size, or_max, rdma_line};
use crate::devices::{Rule, rules};
use crate::error::{ApplyError, Warning};
use crate::host::{Controller, Mode};
use crate::systemd::Unit;

impl Group {
    /// `unit`: the one to tell.
    pub(crate) fn apply(
        &self,
        resources: &LinuxResources,
        unit: Option<Unit<'_>>,
    ) -> Result<Vec<Warning>, ApplyError> {
        let rules = resources.devices().as_deref().filter(|d| !d.is_empty()).map(rules).transpose()?;
        let mut changes = Changes::new(self.path.as_str());
        // The program comes last: it is exchanged at once and needs no undoing.
        let result = self
            .apply_all(resources, &mut changes)
            .and_then(|()| match unit {
                None => Ok(()),
                // It writes the same, rounded: what was asked for is written once more.
                Some(unit) => changes.tell(unit, Mode::V2, resources).and_then(|()| {
                    changes.warnings.clear();
                    self.apply_all(resources, &mut changes)
                }),
            })
            .and_then(|()| rules.as_deref().map_or(Ok(()), |rules| self.apply_devices(rules)));
        changes.settle(result)
    }

    fn apply_all<'a>(
        &'a self,
        resources: &LinuxResources,
        changes: &mut Changes<'a>,
    ) -> Result<(), ApplyError> {
        if let Some(memory) = resources.memory() {
            self.apply_memory(changes, memory)?;
        }
        if let Some(cpu) = resources.cpu() {
            self.apply_cpu(changes, cpu)?;
        }
        match resources.pids().map_or(0, |p| p.limit()) {
            0 => {}
            limit => {
                let value = if limit < 0 { "max".to_string() } else { limit.to_string() };
                changes.write(self.place(Controller::Pids), "pids.max", &value)?;
            }
        }
        if let Some(io) = resources.block_io() {
            self.apply_io(changes, io)?;
        }
        for limit in resources.hugepage_limits().iter().flatten() {
            let place = self.place(Controller::Hugetlb);
            let size = check_page_size(limit.page_size())?;
            changes.write(place, &format!("hugetlb.{size}.max"), &or_max(limit.limit()))?;
            let reserved = format!("hugetlb.{size}.rsvd.max");
            if place.directory.has(&reserved) {
                changes.write(place, &reserved, &or_max(limit.limit()))?;
            }
        }
        if let Some(network) = resources.network()
            && (network.class_id().is_some_and(|c| c != 0)
                || network.priorities().as_ref().is_some_and(|p| !p.is_empty()))
        {
            changes.warn("network", "cgroup version 2 does not mark packets");
        }
        for (device, limit) in resources.rdma().iter().flatten() {
            changes.write(self.place(Controller::Rdma), "rdma.max", &rdma_line(device, limit)?)?;
        }
        let mut unified: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
        unified.sort();
        for (key, value) in unified {
            self.apply_unified(changes, key, value)?;
        }
        Ok(())
    }

    fn place(&self, controller: Controller) -> Place<'_> {
        Place { directory: &self.directory, controller, version2: true }
    }

    fn apply_memory<'a>(&'a self, changes: &mut Changes<'a>, memory: &LinuxMemory) -> Result<(), ApplyError> {
        let place = self.place(Controller::Memory);
        let limit = memory.limit().filter(|l| *l != 0);
        let invalid = |field, value: i64, why| ApplyError::Invalid { field, value: value.to_string(), why };
        let swap = convert::swap(limit, memory.swap())
            .map_err(|why| invalid("memory.swap", memory.swap().unwrap_or(0), why))?;
        if let Some(limit) = limit {
            if limit < -1 {
                return Err(invalid("memory.limit", limit, "is negative and not -1"));
            }
            self.make_room(changes, limit, memory.check_before_update() == Some(true))?;
        }
        let value = match swap {
            Swap::Unchanged => None,
            Swap::Unlimited => Some("max".to_string()),
            Swap::Bytes(bytes) => Some(bytes.to_string()),
        };
        if let Some(value) = value {
            // Without swap in the kernel there is nothing that a limit of none, or no limit, would change.
            let harmless = matches!(swap, Swap::Unlimited | Swap::Bytes(0));
            match changes.write(place, "memory.swap.max", &value) {
                Err(ApplyError::NoFile { .. }) if harmless => {
                    changes.warn("memory.swap", "this kernel does not count swap for groups")
                }
                other => other?,
            }
        }
        if let Some(limit) = limit {
            changes.write(place, "memory.max", &or_max(limit))?;
        }
        if let Some(reservation) = memory.reservation().filter(|r| *r != 0) {
            changes.write(place, "memory.low", &or_max(reservation))?;
        }
        let ignored = [
            ("memory.kernelTCP", memory.kernel_tcp().is_some_and(|n| n != 0)),
            ("memory.swappiness", memory.swappiness().is_some()),
            ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ];
        for (field, _) in ignored.iter().filter(|(_, asked)| *asked) {
            changes.warn(field, "cgroup version 2 has no such setting for a group");
        }
        Ok(())
    }

    /// The kernel takes any limit and kills until it holds. So what is in use must fit before it is set: as version 1 does by itself,
    /// the kernel is asked to reclaim, and if that is not enough the limit is refused.
    fn make_room(&self, changes: &Changes<'_>, limit: i64, check: bool) -> Result<(), ApplyError> {
        let usage = || self.directory.number("memory.current").ok().flatten().unwrap_or(0);
        if limit == -1 || usage() <= limit as u64 {
            return Ok(());
        }
        if !check {
            for _ in 0..5 {
                let over = usage().saturating_sub(limit as u64);
                // Since 5.19. Failing to reclaim all of it is seen in the usage.
                if over == 0 || self.directory.write("memory.reclaim", &over.to_string()).is_ok() {
                    break;
                }
            }
        }
        match usage() {
            usage if usage > limit as u64 => {
                Err(ApplyError::BelowUsage { path: changes.path().into(), limit, usage })
            }
            _ => Ok(()),
        }
    }

    fn apply_cpu<'a>(&'a self, changes: &mut Changes<'a>, cpu: &LinuxCpu) -> Result<(), ApplyError> {
        let place = self.place(Controller::Cpu);
        if let Some(idle) = cpu.idle() {
            changes.write(place, "cpu.idle", &idle.to_string())?;
        }
        // An idle group has no weight, and the kernel refuses to set it.
        if let Some(weight) = cpu.shares().and_then(convert::cpu_weight).filter(|_| cpu.idle() != Some(1)) {
            changes.write(place, "cpu.weight", &weight.to_string())?;
        }
        self.apply_bandwidth(changes, cpu)?;
        if cpu.realtime_period().is_some_and(|p| p != 0) || cpu.realtime_runtime().is_some_and(|r| r != 0) {
            return Err(ApplyError::NoFile {
                path: changes.path().into(),
                file: "cpu.rt_runtime_us".into(),
                controller: "cpu".into(),
            });
        }
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
                changes.write(self.place(Controller::Cpuset), file, value)?;
            }
        }
        Ok(())
    }

    /// Quota and period are one file; what is not given of it stays. Burst may only become possible after them, or must shrink before.
    fn apply_bandwidth<'a>(&'a self, changes: &mut Changes<'a>, cpu: &LinuxCpu) -> Result<(), ApplyError> {
        let place = self.place(Controller::Cpu);
        let quota = cpu.quota().filter(|q| *q != 0).map(|q| if q < 0 { "max".into() } else { q.to_string() });
        let period = cpu.period().filter(|p| *p != 0);
        let max = match (quota, period) {
            (None, None) => None,
            (Some(quota), None) => Some(quota),
            (Some(quota), Some(period)) => Some(format!("{quota} {period}")),
            (None, Some(period)) => {
                let quota = changes
                    .read(place, "cpu.max", |t| t.split_whitespace().next().unwrap_or("max").to_string())?;
                Some(format!("{quota} {period}"))
            }
        };
        let mut burst = cpu.burst().map(|b| b.to_string());
        if let Some(value) = &burst {
            match changes.write(place, "cpu.max.burst", value) {
                Ok(()) => burst = None,
                Err(e) if e.is(Errno::INVAL) && max.is_some() => {}
                Err(e) => return Err(e),
            }
        }
        if let Some(max) = max {
            changes.write(place, "cpu.max", &max)?;
        }
        burst.map_or(Ok(()), |burst| changes.write(place, "cpu.max.burst", &burst))
    }

    fn apply_io<'a>(&'a self, changes: &mut Changes<'a>, io: &LinuxBlockIo) -> Result<(), ApplyError> {
        let place = self.place(Controller::Io);
        let weight = io.weight().filter(|w| *w != 0);
        let devices: Vec<_> = io
            .weight_device()
            .iter()
            .flatten()
            .filter_map(|d| Some((format!("{}:{}", d.major(), d.minor()), d.weight().filter(|w| *w != 0)?)))
            .collect();
        if weight.is_some() || !devices.is_empty() {
            // BFQ has weights of the same range as version 1; the cost model has a range of its own.
            let bfq = place.directory.has("io.bfq.weight");
            let file = if bfq { "io.bfq.weight" } else { "io.weight" };
            if place.directory.has(file) {
                let scaled = |w: u16| {
                    if bfq { u64::from(w) } else { convert::io_weight(w).unwrap_or(u64::from(w)) }
                };
                if let Some(weight) = weight {
                    changes.write(place, file, &scaled(weight).to_string())?;
                }
                for (name, weight) in devices {
                    let undo = (file, format!("{name} default"));
                    changes.write_undone_by(place, file, &format!("{name} {}", scaled(weight)), undo)?;
                }
            } else {
                changes.warn("blockIO.weight", "this kernel has neither io.weight nor io.bfq.weight");
            }
        }
        let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
            ("rbps", io.throttle_read_bps_device()),
            ("wbps", io.throttle_write_bps_device()),
            ("riops", io.throttle_read_iops_device()),
            ("wiops", io.throttle_write_iops_device()),
        ];
        for (key, devices) in throttles {
            for device in devices.iter().flatten() {
                let name = format!("{}:{}", device.major(), device.minor());
                let old = changes.read(place, "io.max", |text| old_io_max(text, &name, key))?;
                // No rate is how version 1 removes a limit.
                let rate = if device.rate() == 0 { "max".into() } else { device.rate().to_string() };
                let undo = ("io.max", format!("{name} {key}={old}"));
                changes.write_undone_by(place, "io.max", &format!("{name} {key}={rate}"), undo)?;
            }
        }
        Ok(())
    }

    fn apply_unified<'a>(
        &'a self,
        changes: &mut Changes<'a>,
        key: &str,
        value: &str,
    ) -> Result<(), ApplyError> {
        check_unified_key(key)?;
        let prefix = key.split('.').next().unwrap_or(key);
        let controller = Controller::parse(prefix).unwrap_or(Controller::Misc);
        // Files such as io.max take one line at a time.
        for line in value.lines() {
            changes.write(self.place(controller), key, line)?;
        }
        Ok(())
    }

    fn apply_devices(&self, rules: &[Rule]) -> Result<(), ApplyError> {
        let error = |source| ApplyError::Write {
            path: self.path.as_str().into(),
            file: "the device program".into(),
            value: format!("{} rules", rules.len()),
            source,
        };
        let program = DeviceProgram::load(&program::assemble(rules)).map_err(error)?;
        let group = self.directory.as_fd();
        let old = bpf::device_programs(group).map_err(error)?;
        if let [only] = old.as_slice()
            && bpf::attach_device_program(group, &program, Some(only)).is_ok()
        {
            return Ok(());
        }
        // Every attached program must agree, so the new one first: access is never wider than either.
        bpf::attach_device_program(group, &program, None).map_err(error)?;
        for old in &old {
            bpf::detach_device_program(group, old).map_err(error)?;
        }
        Ok(())
    }
}

/// What `io.max` has for one key of one device; `max` if nothing.
fn old_io_max(text: &str, name: &str, key: &str) -> String {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|fields| fields.split(' ').find_map(|f| f.strip_prefix(key)?.strip_prefix('=')))
        .unwrap_or("max")
        .to_string()
}

/// Refuses what is no file of a controller: paths, and files that move, freeze or kill processes.
fn check_unified_key(key: &str) -> Result<(), ApplyError> {
    let invalid =
        |why| Err(ApplyError::Invalid { field: "unified", value: key.chars().take(100).collect(), why });
    if key.contains(|c: char| c == '/' || c.is_control()) || key.starts_with('.') || !key.contains('.') {
        return invalid("is not the name of a controller's file, such as memory.high");
    }
    if key.starts_with("cgroup.") && !matches!(key, "cgroup.max.depth" | "cgroup.max.descendants") {
        return invalid("is not a resource");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_keys_are_files_of_controllers() {
        for good in ["memory.high", "io.max", "cgroup.max.depth", "hugetlb.2MB.max"] {
            assert!(check_unified_key(good).is_ok(), "{good}");
        }
        for bad in ["", "memory", "../memory.max", "a/b.c", ".x", "cgroup.kill", "cgroup.procs", "a.\0"] {
            assert!(check_unified_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn throttles_are_put_back_one_by_one() {
        let text =
            "8:0 rbps=1048576 wbps=max riops=max wiops=120\n8:16 rbps=5 wbps=max riops=max wiops=max\n";
        assert_eq!(old_io_max(text, "8:0", "wiops"), "120");
        assert_eq!(old_io_max(text, "8:1", "rbps"), "max");
        assert_eq!(old_io_max(text, "8:16", "rbps"), "5");
    }
}
