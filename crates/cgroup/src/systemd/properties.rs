//! What systemd is told of a unit: how it is kept, and the runtime specification's resources in systemd's words (systemd.resource-control(5)).
//!
//! What systemd has no word for (huge pages, RDMA, limits of single devices) it leaves alone in the group's files.

use dbus::Value;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources};

use super::{Property, Unit};
use crate::convert::{self, Swap};
use crate::devices::{self, Kind, Rule};
use crate::host::Mode;

/// Systemd's "no limit".
const INFINITY: u64 = u64::MAX;

/// Systemd keeps quotas as whole percents of a processor; in microseconds of a second.
const PERCENT: u64 = 10_000;

/// The kernel's `cpu.cfs_period_us`, where none is given.
const DEFAULT_PERIOD: u64 = 100_000;

/// How long systemd waits before it kills what does not end by itself.
const STOPPING_MICROS: u64 = 10_000_000;

/// No machine has processors or memory nodes of higher numbers (`CONFIG_NR_CPUS`).
const MOST_BITS: usize = 8192;

/// Properties that came later than the oldest systemd that can be expected (239), and when.
const SINCE: [(&str, u32); 4] =
    [("MemoryMin", 240), ("CPUQuotaPeriodUSec", 242), ("AllowedCPUs", 244), ("AllowedMemoryNodes", 244)];

/// Scopes have had this since 253. Without it systemd ends all of a scope when the kernel has killed one process for want of memory.
const OOM_POLICY: (&str, u32) = ("OOMPolicy", 253);

/// `CPUWeight` of nothing, which is `cpu.idle`.
const IDLE_SINCE: u32 = 252;

/// How a unit is kept that is begun with `processes` in it.
pub(super) fn of_transient(unit: Unit<'_>, processes: &[i32]) -> Vec<Property> {
    let text = |text: &str| Value::Text(text.into());
    let yes = Value::Bool(true);
    let mut all = vec![
        ("Description", Value::Text(format!("Containers in {}", unit.name))),
        // What the machine's shutdown ends is the business of whoever runs containers.
        ("DefaultDependencies", Value::Bool(false)),
        // What has failed is forgotten as well, so that its name is free.
        ("CollectMode", text("inactive-or-failed")),
        ("CPUAccounting", yes.clone()),
        ("MemoryAccounting", yes.clone()),
        ("TasksAccounting", yes.clone()),
    ];
    if !unit.is_slice() {
        all.extend([
            ("Slice", text(unit.slice)),
            // What is below it is ours, and so are the files that systemd has no property for.
            ("Delegate", yes),
            ("TimeoutStopUSec", Value::U64(STOPPING_MICROS)),
            (OOM_POLICY.0, text("continue")),
            ("PIDs", Value::Numbers(processes.iter().map(|pid| pid.cast_unsigned()).collect())),
        ]);
    }
    all
}

/// Those that this version of systemd knows; 0 is an unknown one.
pub(super) fn known(all: Vec<Property>, version: u32) -> Vec<Property> {
    let since = |(name, value): &Property| match (*name, value) {
        ("CPUWeight", Value::U64(0)) => IDLE_SINCE,
        _ => SINCE.iter().chain([&OOM_POLICY]).find(|(late, _)| late == name).map_or(0, |(_, since)| *since),
    };
    all.into_iter().filter(|property| version == 0 || version >= since(property)).collect()
}

/// The limits among `resources`, those that are set.
pub(super) fn limits(resources: &LinuxResources, mode: Mode) -> Vec<Property> {
    let is_v2 = mode == Mode::V2;
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        if is_v2 { memory_v2(memory, &mut all) } else { memory_v1(memory, &mut all) }
    }
    if let Some(cpu) = resources.cpu() {
        processors(cpu, is_v2, &mut all);
    }
    match resources.pids().map_or(0, |pids| pids.limit()) {
        0 => {}
        limit => all.push(("TasksMax", bytes(limit))),
    }
    if let Some(io) = resources.block_io() {
        io_weight(io, is_v2, &mut all);
    }
    match resources.devices().as_deref() {
        // Version 2 has a program of ours at the group, which systemd leaves alone.
        Some(rules) if !is_v2 && !rules.is_empty() => devices_v1(rules, &mut all),
        _ => {}
    }
    if is_v2 {
        for (key, value) in resources.unified().iter().flatten() {
            unified(key, value, &mut all);
        }
    }
    all
}

/// -1 is no limit.
fn bytes(value: i64) -> Value {
    Value::U64(u64::try_from(value).unwrap_or(INFINITY))
}

fn memory_v1(memory: &LinuxMemory, all: &mut Vec<Property>) {
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        all.push(("MemoryLimit", bytes(limit)));
    }
}

fn memory_v2(memory: &LinuxMemory, all: &mut Vec<Property>) {
    if let Some(limit) = memory.limit().filter(|limit| *limit != 0) {
        all.push(("MemoryMax", bytes(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|reservation| *reservation != 0) {
        all.push(("MemoryLow", bytes(reservation)));
    }
    match convert::swap(memory.limit(), memory.swap()) {
        Ok(Swap::Unlimited) => all.push(("MemorySwapMax", Value::U64(INFINITY))),
        Ok(Swap::Bytes(bytes)) => all.push(("MemorySwapMax", Value::U64(bytes))),
        // What makes no sense is refused where the files are written.
        Ok(Swap::Unchanged) | Err(_) => {}
    }
}

fn processors(cpu: &LinuxCpu, is_v2: bool, all: &mut Vec<Property>) {
    match cpu.shares().filter(|shares| *shares != 0) {
        _ if is_v2 && cpu.idle() == Some(1) => all.push(("CPUWeight", Value::U64(0))),
        Some(shares) if is_v2 => {
            all.extend(convert::cpu_weight(shares).map(|weight| ("CPUWeight", Value::U64(weight))));
        }
        Some(shares) => all.push(("CPUShares", Value::U64(shares))),
        None => {}
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        bandwidth(quota, cpu.period().filter(|period| *period != 0), all);
    }
    if is_v2 {
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            let mask = list.as_deref().filter(|list| !list.is_empty()).and_then(mask);
            all.extend(mask.map(|mask| (name, Value::Bytes(mask))));
        }
    }
}

/// Rounded up: rounded down, systemd would take away at its next reload what a group below may have.
fn bandwidth(quota: i64, period: Option<u64>, all: &mut Vec<Property>) {
    if let Some(period) = period {
        all.push(("CPUQuotaPeriodUSec", Value::U64(period)));
    }
    let per_second = u64::try_from(quota).map_or(INFINITY, |quota| {
        let micros = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(DEFAULT_PERIOD));
        u64::try_from(micros).unwrap_or(INFINITY - PERCENT).next_multiple_of(PERCENT)
    });
    all.push(("CPUQuotaPerSecUSec", Value::U64(per_second)));
}

fn io_weight(io: &LinuxBlockIo, is_v2: bool, all: &mut Vec<Property>) {
    match io.weight().filter(|weight| *weight != 0) {
        Some(weight) if is_v2 => {
            all.extend(convert::io_weight(weight).map(|weight| ("IOWeight", Value::U64(weight))));
        }
        Some(weight) => all.push(("BlockIOWeight", Value::U64(weight.into()))),
        None => {}
    }
}

/// A file of version 2 that systemd has a property for.
fn unified(key: &str, value: &str, all: &mut Vec<Property>) {
    let number = |text: &str| match text {
        "max" => Some(INFINITY),
        digits => digits.parse().ok(),
    };
    let value = value.trim();
    let name = match key {
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "pids.max" => "TasksMax",
        "cpu.weight" => "CPUWeight",
        "cpu.idle" if value == "1" => return all.push(("CPUWeight", Value::U64(0))),
        "cpuset.cpus" => return all.extend(mask(value).map(|mask| ("AllowedCPUs", Value::Bytes(mask)))),
        "cpuset.mems" => {
            return all.extend(mask(value).map(|mask| ("AllowedMemoryNodes", Value::Bytes(mask))));
        }
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
            let quota = if quota == "max" { Some(-1) } else { quota.parse().ok() };
            if let Some(quota) = quota {
                bandwidth(quota, period.parse().ok().filter(|period| *period != 0), all);
            }
            return;
        }
        _ => return,
    };
    all.extend(number(value).map(|number| (name, Value::U64(number))));
}

/// A list such as `0-3,8` as bits, the lowest in the first byte. `None` where it is no such list.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MOST_BITS {
            return None;
        }
        if bits.len() <= last / 8 {
            bits.resize(last / 8 + 1, 0u8);
        }
        (first..=last).for_each(|bit| bits[bit / 8] |= 1 << (bit % 8));
    }
    (!bits.is_empty()).then_some(bits)
}

/// In version 1 systemd writes device rules anew at each reload, its own, and has no word for a denial: an allowed device is left out where
/// a later rule denies a part of it.
fn devices_v1(given: &[LinuxDeviceCgroup], all: &mut Vec<Property>) {
    // What makes no sense is refused where the files are written.
    let Ok(rules) = devices::rules(given) else { return };
    if rules.first().is_none_or(|rule| rule.is_everything() && rule.allow) {
        return;
    }
    let majors = std::fs::read_to_string("/proc/devices").unwrap_or_default();
    let mut allowed = Vec::new();
    for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.allow) {
        if !rules[at + 1..].iter().any(|later| !later.allow && overlap(later, rule)) {
            allowed.extend(nodes(rule, &majors).into_iter().map(|node| (node, rule.access.letters())));
        }
    }
    all.push(("DevicePolicy", Value::Text("strict".into())));
    // An empty list takes away what was there.
    all.push(("DeviceAllow", Value::Pairs(Vec::new())));
    all.push(("DeviceAllow", Value::Pairs(allowed)));
}

fn overlap(one: &Rule, other: &Rule) -> bool {
    let same = |one: Option<u32>, other: Option<u32>| one.is_none() || other.is_none() || one == other;
    (one.kind == Kind::All || other.kind == Kind::All || one.kind == other.kind)
        && same(one.major, other.major)
        && same(one.minor, other.minor)
        && one.access.0 & other.access.0 != 0
}

/// The devices of a rule in systemd's words; none for a driver that the kernel has not got.
fn nodes(rule: &Rule, majors: &str) -> Vec<String> {
    let kinds: &[&str] = match rule.kind {
        Kind::All => &["char", "block"],
        Kind::Block => &["block"],
        Kind::Char => &["char"],
    };
    let node = |kind: &&str| match (rule.major, rule.minor) {
        (None, _) => Some(format!("{kind}-*")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{}", driver(majors, kind, major)?)),
    };
    kinds.iter().filter_map(node).collect()
}

/// The name of the driver of a number, of proc_devices(5).
fn driver<'a>(majors: &'a str, kind: &str, major: u32) -> Option<&'a str> {
    let heading = if kind == "char" { "Character devices:" } else { "Block devices:" };
    let lines = majors.lines().skip_while(|line| *line != heading).skip(1);
    let mut named = lines.take_while(|line| !line.is_empty()).filter_map(|line| line.trim().split_once(' '));
    named.find(|(number, _)| number.parse() == Ok(major)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(json: &str, mode: Mode) -> Vec<Property> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        limits(&resources, mode)
    }

    #[test]
    fn limits_are_told_in_the_words_of_their_version() {
        let json = r#"{"memory": {"limit": 1000, "swap": 1500, "reservation": 500}, "pids": {"limit": -1},
            "cpu": {"shares": 1024, "quota": 12345, "period": 50000, "cpus": "0-1,9"}, "blockIO": {"weight": 10}}"#;
        let number = |name, value| (name, Value::U64(value));
        assert_eq!(
            of(json, Mode::V2),
            [
                number("MemoryMax", 1000),
                number("MemoryLow", 500),
                number("MemorySwapMax", 500),
                number("CPUWeight", 100),
                number("CPUQuotaPeriodUSec", 50_000),
                number("CPUQuotaPerSecUSec", 250_000),
                ("AllowedCPUs", Value::Bytes(vec![3, 2])),
                number("TasksMax", INFINITY),
                number("IOWeight", 1),
            ]
        );
        assert_eq!(
            of(json, Mode::Hybrid),
            [
                number("MemoryLimit", 1000),
                number("CPUShares", 1024),
                number("CPUQuotaPeriodUSec", 50_000),
                number("CPUQuotaPerSecUSec", 250_000),
                number("TasksMax", INFINITY),
                number("BlockIOWeight", 10),
            ]
        );
        assert_eq!(of("{}", Mode::V2), []);
        assert_eq!(of(r#"{"cpu": {"quota": -1}}"#, Mode::V2), [number("CPUQuotaPerSecUSec", INFINITY)]);
        let raw = r#"{"unified": {"memory.high": "77", "cpu.max": "max 100000", "io.max": "8:0 rbps=1", "pids.max": "x"}}"#;
        let mut told = of(raw, Mode::V2);
        told.sort_by_key(|(name, _)| *name);
        assert_eq!(
            told,
            [
                number("CPUQuotaPerSecUSec", INFINITY),
                number("CPUQuotaPeriodUSec", 100_000),
                number("MemoryHigh", 77)
            ]
        );
    }

    #[test]
    fn an_older_systemd_is_told_what_it_knows() {
        let all = of(
            r#"{"cpu": {"quota": 1000, "period": 9000, "cpus": "1", "idle": 1}, "pids": {"limit": 3}}"#,
            Mode::V2,
        );
        let names =
            |version| known(all.clone(), version).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(239), ["CPUQuotaPerSecUSec", "TasksMax"]);
        assert_eq!(names(0).len(), all.len());
        assert_eq!(names(257).len(), all.len());
    }

    #[test]
    fn devices_of_version_1_are_never_more_than_the_rules_allow() {
        let json = r#"{"devices": [
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "c", "major": 5, "access": "rwm"},
            {"allow": true, "type": "b", "access": "m"},
            {"allow": true, "type": "c", "major": 9, "minor": 9, "access": "r"},
            {"allow": false, "type": "c", "major": 5, "minor": 1, "access": "w"}]}"#;
        let pair = |node: &str, access: &str| (node.to_owned(), access.to_owned());
        let told = of(json, Mode::V1);
        assert_eq!(told[0], ("DevicePolicy", Value::Text("strict".into())));
        let allowed = vec![pair("/dev/char/1:3", "rw"), pair("block-*", "m"), pair("/dev/char/9:9", "r")];
        assert_eq!(told[2], ("DeviceAllow", Value::Pairs(allowed)));
        assert_eq!(of(json, Mode::V2), [], "a program of ours");
        assert_eq!(
            of(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#, Mode::V1),
            [],
            "a privileged one"
        );
        let majors = "Character devices:\n  1 mem\n136 pts\n\nBlock devices:\n  1 ramdisk\n";
        assert_eq!((driver(majors, "char", 136), driver(majors, "block", 1)), (Some("pts"), Some("ramdisk")));
        assert_eq!((driver(majors, "block", 136), driver(majors, "char", 2)), (None, None));
    }

    proptest! {
        #[test]
        fn a_quota_is_never_less_in_systemds_words(quota in 1i64..100_000_000, period in 1000u64..1_000_000) {
            let mut all = Vec::new();
            bandwidth(quota, Some(period), &mut all);
            let Some((_, Value::U64(told))) = all.pop() else { panic!() };
            prop_assert!(u128::from(told) * u128::from(period) / 1_000_000 >= quota as u128 - 1);
            prop_assert_eq!(told % PERCENT, 0);
        }

        #[test]
        fn any_list_gets_an_answer(list in "[0-9,-]{0,12}") {
            let _ = mask(&list);
        }
    }
}
