//! Applying the runtime specification's resources to the files of version 1.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources, LinuxThrottleDevice,
};
use rustix::io::Errno;

use super::{Group, devices};
use crate::change::{Changes, Place};
use crate::convert::{check_page_size, rdma_line};
use crate::devices::rules;
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
        if let Some(key) = resources.unified().iter().flat_map(|u| u.keys()).min() {
            return Err(ApplyError::UnifiedOnV1 { key: key.clone() });
        }
        let rules = resources.devices().as_deref().filter(|d| !d.is_empty()).map(rules).transpose()?;
        let mut changes = Changes::new(self.path.as_str());
        let told = self.apply_all(resources, &mut changes).and_then(|()| match unit {
            None => Ok(()),
            // It writes the same, rounded: what was asked for is written once more.
            Some(unit) => changes.tell(unit, Mode::V1, resources).and_then(|()| {
                changes.warnings.clear();
                self.apply_all(resources, &mut changes)
            }),
        });
        let result = told.and_then(|()| match &rules {
            Some(rules) => {
                let place = self.place(&changes, Controller::Devices, "devices.allow")?;
                devices::apply(&mut changes, place, rules)
            }
            None => Ok(()),
        });
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
            self.apply_cpuset(changes, cpu)?;
        }
        match resources.pids().map_or(0, |p| p.limit()) {
            0 => {}
            limit => {
                let value = if limit < 0 { "max".to_string() } else { limit.to_string() };
                changes.write(self.place(changes, Controller::Pids, "pids.max")?, "pids.max", &value)?;
            }
        }
        if let Some(io) = resources.block_io() {
            self.apply_io(changes, io)?;
        }
        for limit in resources.hugepage_limits().iter().flatten() {
            self.apply_hugepages(changes, limit)?;
        }
        if let Some(network) = resources.network() {
            if let Some(class) = network.class_id().filter(|c| *c != 0) {
                let place = self.place(changes, Controller::NetCls, "net_cls.classid")?;
                changes.write(place, "net_cls.classid", &class.to_string())?;
            }
            for priority in network.priorities().iter().flatten() {
                let place = self.place(changes, Controller::NetPrio, "net_prio.ifpriomap")?;
                let value = format!("{} {}", priority.name(), priority.priority());
                changes.write(place, "net_prio.ifpriomap", &value)?;
            }
        }
        for (device, limit) in resources.rdma().iter().flatten() {
            let place = self.place(changes, Controller::Rdma, "rdma.max")?;
            changes.write(place, "rdma.max", &rdma_line(device, limit)?)?;
        }
        Ok(())
    }

    fn place<'a>(
        &'a self,
        changes: &Changes<'_>,
        controller: Controller,
        file: &str,
    ) -> Result<Place<'a>, ApplyError> {
        match self.find(controller) {
            Some(directory) => Ok(Place { directory, controller, version2: false }),
            None => Err(ApplyError::NoController {
                path: changes.path().into(),
                file: file.into(),
                controller: controller.name().into(),
            }),
        }
    }

    fn apply_memory<'a>(&'a self, changes: &mut Changes<'a>, memory: &LinuxMemory) -> Result<(), ApplyError> {
        let limits = Limits::of(memory)?;
        let place = |changes: &Changes<'_>, file| self.place(changes, Controller::Memory, file);
        if limits.memory.is_some() || limits.both.is_some() {
            let place = place(changes, LIMIT)?;
            set_limits(changes, place, limits, memory.check_before_update() == Some(true))?;
        }
        let numbers = [
            ("memory.soft_limit_in_bytes", memory.reservation()),
            ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp()),
        ];
        for (file, value) in numbers {
            if let Some(value) = value.filter(|v| *v != 0) {
                changes.write(place(changes, file)?, file, &value.to_string())?;
            }
        }
        if let Some(swappiness) = memory.swappiness() {
            if swappiness > 100 {
                return Err(ApplyError::Invalid {
                    field: "memory.swappiness",
                    value: swappiness.to_string(),
                    why: "is a percentage",
                });
            }
            let place = place(changes, "memory.swappiness")?;
            changes.write(place, "memory.swappiness", &swappiness.to_string())?;
        }
        if let Some(disable) = memory.disable_oom_killer() {
            let file = "memory.oom_control";
            if !disable && self.find(Controller::Memory).is_none() {
                return Ok(());
            }
            let place = place(changes, file)?;
            let old = changes.read(place, file, |t| crate::stats::value_of(t, "oom_kill_disable"))?;
            if old != Some(u64::from(disable)) {
                let value = u64::from(disable).to_string();
                changes.write_undone_by(place, file, &value, (file, old.unwrap_or(0).to_string()))?;
            }
        }
        Ok(())
    }

    fn apply_cpu<'a>(&'a self, changes: &mut Changes<'a>, cpu: &LinuxCpu) -> Result<(), ApplyError> {
        let place = |changes: &Changes<'_>, file| self.place(changes, Controller::Cpu, file);
        let set = |n: Option<u64>| n.filter(|n| *n != 0);
        if let Some(idle) = cpu.idle() {
            changes.write(place(changes, "cpu.idle")?, "cpu.idle", &idle.to_string())?;
        }
        // An idle group has no shares, and the kernel refuses to set them.
        if let Some(shares) = set(cpu.shares()).filter(|_| cpu.idle() != Some(1)) {
            let clamped = shares.clamp(2, 262_144);
            if clamped != shares {
                changes.warn("cpu.shares", format!("{shares} is out of range and taken as {clamped}"));
            }
            changes.write(place(changes, "cpu.shares")?, "cpu.shares", &clamped.to_string())?;
        }
        let quota = cpu.quota().filter(|q| *q != 0).map(|q| if q < 0 { -1 } else { q });
        if quota.is_some() || set(cpu.period()).is_some() || cpu.burst().is_some() {
            let place = place(changes, "cpu.cfs_quota_us")?;
            set_bandwidth(changes, place, set(cpu.period()), quota, cpu.burst())?;
        }
        let (period, runtime) =
            (set(cpu.realtime_period()), cpu.realtime_runtime().filter(|runtime| *runtime != 0));
        if period.is_some() || runtime.is_some() {
            let place = place(changes, "cpu.rt_runtime_us")?;
            write_either_first(
                changes,
                place,
                ("cpu.rt_period_us", period.map(|p| p.to_string())),
                ("cpu.rt_runtime_us", runtime.map(|r| r.to_string())),
            )?;
        }
        Ok(())
    }

    fn apply_cpuset<'a>(&'a self, changes: &mut Changes<'a>, cpu: &LinuxCpu) -> Result<(), ApplyError> {
        for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
                changes.write(self.place(changes, Controller::Cpuset, file)?, file, value)?;
            }
        }
        Ok(())
    }

    fn apply_io<'a>(&'a self, changes: &mut Changes<'a>, io: &LinuxBlockIo) -> Result<(), ApplyError> {
        self.apply_io_weights(changes, io)?;
        let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
            ("blkio.throttle.read_bps_device", io.throttle_read_bps_device()),
            ("blkio.throttle.write_bps_device", io.throttle_write_bps_device()),
            ("blkio.throttle.read_iops_device", io.throttle_read_iops_device()),
            ("blkio.throttle.write_iops_device", io.throttle_write_iops_device()),
        ];
        for (file, devices) in throttles {
            for device in devices.iter().flatten() {
                let place = self.place(changes, Controller::Io, file)?;
                let name = format!("{}:{}", device.major(), device.minor());
                let old = changes.read(place, file, |t| crate::stats::value_of(t, &name))?.unwrap_or(0);
                let value = format!("{name} {}", device.rate());
                changes.write_undone_by(place, file, &value, (file, format!("{name} {old}")))?;
            }
        }
        Ok(())
    }

    /// Weights need an I/O scheduler that has them (CFQ once, BFQ now). Where there is none nothing can be weighed, which limits nobody.
    fn apply_io_weights<'a>(
        &'a self,
        changes: &mut Changes<'a>,
        io: &LinuxBlockIo,
    ) -> Result<(), ApplyError> {
        let weight = io.weight().filter(|w| *w != 0);
        let devices = io.weight_device().as_deref().unwrap_or_default();
        if weight.is_some() || devices.iter().any(|d| d.weight().is_some_and(|w| w != 0)) {
            let place = self.place(changes, Controller::Io, "blkio.weight")?;
            let pair =
                [("blkio.weight", "blkio.weight_device"), ("blkio.bfq.weight", "blkio.bfq.weight_device")];
            match pair.iter().find(|(file, _)| place.directory.has(file)) {
                None => changes
                    .warn("blockIO.weight", "this kernel has neither blkio.weight nor blkio.bfq.weight"),
                Some((file, device_file)) => {
                    if let Some(weight) = weight {
                        changes.write(place, file, &weight.to_string())?;
                    }
                    for device in devices {
                        let Some(weight) = device.weight().filter(|w| *w != 0) else { continue };
                        if !place.directory.has(device_file) {
                            changes.warn("blockIO.weightDevice", format!("this kernel has no {device_file}"));
                            break;
                        }
                        let name = format!("{}:{}", device.major(), device.minor());
                        let undo = (*device_file, format!("{name} 0"));
                        changes.write_undone_by(place, device_file, &format!("{name} {weight}"), undo)?;
                    }
                }
            }
        }
        if io.leaf_weight().is_some_and(|w| w != 0)
            || devices.iter().any(|d| d.leaf_weight().is_some_and(|w| w != 0))
        {
            changes.warn("blockIO.leafWeight", "kernels since 5.0 have no leaf weights");
        }
        Ok(())
    }

    fn apply_hugepages<'a>(
        &'a self,
        changes: &mut Changes<'a>,
        limit: &LinuxHugepageLimit,
    ) -> Result<(), ApplyError> {
        let size = check_page_size(limit.page_size())?;
        let file = format!("hugetlb.{size}.limit_in_bytes");
        let place = self.place(changes, Controller::Hugetlb, &file)?;
        changes.write(place, &file, &limit.limit().to_string())?;
        // Reservations count by themselves since 5.7; without a limit of their own they fail at the fault, not at the mmap.
        let reserved = format!("hugetlb.{size}.rsvd.limit_in_bytes");
        if place.directory.has(&reserved) {
            changes.write(place, &reserved, &limit.limit().to_string())?;
        }
        Ok(())
    }
}

const LIMIT: &str = "memory.limit_in_bytes";
const BOTH: &str = "memory.memsw.limit_in_bytes";

/// Limits of memory and of memory and swap together; -1 is none.
#[derive(Debug, Clone, Copy)]
struct Limits {
    memory: Option<i64>,
    both: Option<i64>,
}

impl Limits {
    fn of(memory: &LinuxMemory) -> Result<Limits, ApplyError> {
        let limits =
            Limits { memory: memory.limit().filter(|l| *l != 0), both: memory.swap().filter(|s| *s != 0) };
        let invalid = |field, value: i64, why| ApplyError::Invalid { field, value: value.to_string(), why };
        if let Some(limit) = limits.memory.filter(|l| *l < -1) {
            return Err(invalid("memory.limit", limit, "is negative and not -1"));
        }
        if let Some(both) = limits.both {
            if both < -1 {
                return Err(invalid("memory.swap", both, "is negative and not -1"));
            }
            if both != -1 && limits.memory.is_some_and(|m| m == -1 || m > both) {
                let why = "is smaller than the memory limit, which it includes";
                return Err(invalid("memory.swap", both, why));
            }
        }
        Ok(limits)
    }
}

/// The kernel keeps memory at or below memory and swap together at every moment, so the order depends on what is set now.
fn set_limits<'a>(
    changes: &mut Changes<'a>,
    place: Place<'a>,
    limits: Limits,
    check: bool,
) -> Result<(), ApplyError> {
    let unlimited = |limit: i64| if limit == -1 { u64::MAX } else { limit as u64 };
    if let Some(limit) = limits.memory.filter(|l| check && *l != -1) {
        let usage = changes.read(place, "memory.usage_in_bytes", parse_number)?;
        if usage > limit as u64 {
            return Err(ApplyError::BelowUsage { path: changes.path().into(), limit, usage });
        }
    }
    let swap_is_counted = place.directory.has(BOTH);
    let mut both = limits.both;
    if limits.memory == Some(-1) && both.is_none() && swap_is_counted {
        both = Some(-1);
    }
    if !swap_is_counted && let Some(asked) = both {
        if asked != -1 && Some(asked) != limits.memory {
            return Err(ApplyError::NoFile {
                path: changes.path().into(),
                file: BOTH.into(),
                controller: "memory".into(),
            });
        }
        changes.warn("memory.swap", "this kernel does not count swap for groups (swapaccount=0)");
        both = None;
    }
    let mut steps = [(LIMIT, limits.memory), (BOTH, both)];
    if let (Some(memory), Some(_)) = (limits.memory, both) {
        let now = changes.read(place, BOTH, parse_number)?;
        if unlimited(memory) > now {
            steps.reverse();
        }
    }
    for (file, value) in steps {
        let Some(value) = value else { continue };
        match changes.write(place, file, &value.to_string()) {
            Err(e) if e.is(Errno::BUSY) => {
                let usage = changes.read(place, &file.replace("limit", "usage"), parse_number)?;
                return Err(ApplyError::BelowUsage { path: changes.path().into(), limit: value, usage });
            }
            other => other?,
        }
    }
    Ok(())
}

fn parse_number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// Period, quota and burst. The kernel checks each against the others and against the group above, so that a value may only become
/// possible after another: what it calls invalid is tried again at the end.
fn set_bandwidth<'a>(
    changes: &mut Changes<'a>,
    place: Place<'a>,
    period: Option<u64>,
    quota: Option<i64>,
    burst: Option<u64>,
) -> Result<(), ApplyError> {
    let steps = [
        ("cpu.cfs_period_us", period.map(|p| p.to_string())),
        ("cpu.cfs_quota_us", quota.map(|q| q.to_string())),
        ("cpu.cfs_burst_us", burst.map(|b| b.to_string())),
    ];
    let mut open: Vec<(&str, String)> = steps.into_iter().filter_map(|(f, v)| Some((f, v?))).collect();
    while !open.is_empty() {
        let before = open.len();
        let mut refused = Vec::new();
        let mut error = None;
        for (file, value) in open {
            match changes.write(place, file, &value) {
                Err(e) if e.is(Errno::INVAL) => {
                    error = error.or(Some(e));
                    refused.push((file, value));
                }
                other => other?,
            }
        }
        match error {
            Some(error) if refused.len() == before => return Err(error),
            _ => open = refused,
        }
    }
    Ok(())
}

/// Writes two values of which either may have to be first.
fn write_either_first<'a>(
    changes: &mut Changes<'a>,
    place: Place<'a>,
    first: (&str, Option<String>),
    second: (&str, Option<String>),
) -> Result<(), ApplyError> {
    let mut later = None;
    if let (file, Some(value)) = &first {
        match changes.write(place, file, value) {
            Err(e) if e.is(Errno::INVAL) && second.1.is_some() => later = Some((file, value)),
            other => other?,
        }
    }
    if let (file, Some(value)) = &second {
        changes.write(place, file, value)?;
    }
    later.map_or(Ok(()), |(file, value)| changes.write(place, file, value))
}
