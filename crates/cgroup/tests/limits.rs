//! Real limits: what is written is what the kernel then says and does. Runs on either version.

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cgroup::{ApplyError, Mode};
use common::{Process, Scratch, WAIT};
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources,
};

/// The text of a control file of `child`, in whichever hierarchy has it.
fn file(scratch: &Scratch, child: &str, v1: (&str, &str), v2: &str) -> String {
    let path: PathBuf = match scratch.host.mode() {
        Mode::V2 => ["/sys/fs/cgroup", &scratch.name, child, v2].iter().collect(),
        _ => ["/sys/fs/cgroup", v1.0, &scratch.name, child, v1.1].iter().collect(),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_string()
}

fn is_v2(scratch: &Scratch) -> bool {
    scratch.host.mode() == Mode::V2
}

#[test]
fn processor_and_process_limits_are_set() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("c");
    let cpu = LinuxCpuBuilder::default().shares(1024u64).quota(50_000i64).period(200_000u64).burst(10_000u64);
    let mut resources = LinuxResources::default();
    resources
        .set_cpu(Some(cpu.cpus("0").mems("0").build().unwrap()))
        .set_pids(Some(LinuxPidsBuilder::default().limit(7i64).build().unwrap()));
    assert_eq!(group.apply(&resources).unwrap(), []);
    let read = |v1, v2| file(&scratch, "c", v1, v2);
    let v2 = is_v2(&scratch);
    assert_eq!(read(("cpu", "cpu.shares"), "cpu.weight"), if v2 { "100" } else { "1024" });
    assert_eq!(read(("cpu", "cpu.cfs_quota_us"), "cpu.max"), if v2 { "50000 200000" } else { "50000" });
    assert_eq!(read(("cpu", "cpu.cfs_burst_us"), "cpu.max.burst"), "10000");
    assert_eq!(read(("cpuset", "cpuset.cpus"), "cpuset.cpus"), "0");
    assert_eq!(read(("pids", "pids.max"), "pids.max"), "7");
    assert_eq!(group.stats().unwrap().pids.limit, Some(7));

    // Only the period: the quota stays. Then none of either.
    let cpu = LinuxCpuBuilder::default().period(100_000u64).build().unwrap();
    group.apply(LinuxResources::default().set_cpu(Some(cpu))).unwrap();
    assert_eq!(read(("cpu", "cpu.cfs_quota_us"), "cpu.max"), if v2 { "50000 100000" } else { "50000" });
    let cpu = LinuxCpuBuilder::default().quota(-1i64).burst(0u64).idle(1i64).shares(5u64).build().unwrap();
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu)).set_pids(Some(LinuxPidsBuilder::default().limit(-1i64).build().unwrap()));
    group.apply(&resources).unwrap();
    assert_eq!(read(("cpu", "cpu.cfs_quota_us"), "cpu.max"), if v2 { "max 100000" } else { "-1" });
    assert_eq!(read(("cpu", "cpu.idle"), "cpu.idle"), "1");
    assert_eq!(read(("pids", "pids.max"), "pids.max"), "max");
}

fn memory(limit: Option<i64>, swap: Option<i64>) -> LinuxResources {
    let mut builder = LinuxMemoryBuilder::default();
    if let Some(limit) = limit {
        builder = builder.limit(limit);
    }
    if let Some(swap) = swap {
        builder = builder.swap(swap);
    }
    let mut resources = LinuxResources::default();
    resources.set_memory(Some(builder.build().unwrap()));
    resources
}

#[test]
fn memory_is_raised_and_lowered_in_any_order() {
    const MIB: i64 = 1 << 20;
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("m");
    let limit = || group.stats().unwrap().memory.limit;
    for (memory_limit, swap) in [(64, 64), (256, 512), (32, 40), (128, 128), (16, 16)] {
        group.apply(&memory(Some(memory_limit * MIB), Some(swap * MIB))).unwrap();
        assert_eq!(limit(), Some(memory_limit as u64 * MIB as u64));
        if let Some(swap_limit) = group.stats().unwrap().memory.swap_limit {
            assert_eq!(swap_limit, (swap - memory_limit) as u64 * MIB as u64);
        }
    }
    group.apply(&memory(Some(-1), None)).unwrap();
    assert_eq!(limit(), None);
    for (memory_limit, swap) in [(Some(8 * MIB), Some(4 * MIB)), (Some(-2), None), (None, Some(-7))] {
        let error = group.apply(&memory(memory_limit, swap)).unwrap_err();
        assert!(matches!(error, ApplyError::Invalid { .. }), "{error}");
    }
    assert_eq!(limit(), None, "a refused limit changes nothing");
}

#[test]
fn a_limit_below_what_is_in_use_is_refused() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("used");
    // Anonymous memory, which cannot be dropped: about 8 MiB in a variable.
    let mut process = Process::shell("read l; x=$(head -c 8388608 /dev/zero | tr '\\0' x); sleep 60");
    group.add_process(process.id()).unwrap();
    drop(process.0.stdin.take());
    let deadline = Instant::now() + WAIT * 2;
    while group.stats().unwrap().memory.rss < 8 << 20 {
        if Instant::now() >= deadline {
            println!("SKIPPED: the process did not take memory in time");
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // No swap to go to.
    let error = group.apply(&memory(Some(2 << 20), Some(2 << 20))).unwrap_err();
    assert!(matches!(error, ApplyError::BelowUsage { .. }), "{error}");
    assert_eq!(group.stats().unwrap().memory.limit, None);
    assert_eq!(group.oom_kills().unwrap(), 0);
    assert!(process.0.try_wait().unwrap().is_none(), "nobody was killed for it");
}

#[test]
fn all_is_put_back_when_one_fails() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("r");
    let mut before = memory(Some(64 << 20), None);
    before
        .set_cpu(Some(LinuxCpuBuilder::default().shares(512u64).quota(30_000i64).build().unwrap()))
        .set_pids(Some(LinuxPidsBuilder::default().limit(100i64).build().unwrap()));
    group.apply(&before).unwrap();
    let look = || {
        [
            file(&scratch, "r", ("memory", "memory.limit_in_bytes"), "memory.max"),
            file(&scratch, "r", ("cpu", "cpu.shares"), "cpu.weight"),
            file(&scratch, "r", ("cpu", "cpu.cfs_quota_us"), "cpu.max"),
            file(&scratch, "r", ("pids", "pids.max"), "pids.max"),
        ]
    };
    let was = look();
    let mut bad = memory(Some(32 << 20), None);
    bad.set_cpu(Some(
        LinuxCpuBuilder::default().shares(2048u64).quota(60_000i64).cpus("9999").build().unwrap(),
    ));
    let error = group.apply(&bad).unwrap_err();
    assert!(matches!(&error, ApplyError::Write { file, .. } if file == "cpuset.cpus"), "{error}");
    assert_eq!(look(), was);
}

#[test]
fn out_of_memory_kills_are_counted() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("oom");
    group.apply(&memory(Some(8 << 20), Some(8 << 20))).unwrap();
    let mut process =
        Process::shell("read l; head -c 67108864 /dev/zero | tail -c 67108864 | tail -c 1; kill -9 $$");
    group.add_process(process.id()).unwrap();
    drop(process.0.stdin.take());
    let _ = process.signal();
    assert!(group.oom_kills().unwrap() >= 1);
    assert_eq!(group.stats().unwrap().oom_kills, group.oom_kills().unwrap());
}

fn device(allow: bool, numbers: Option<(i64, i64)>, access: &str) -> LinuxDeviceCgroup {
    let builder = LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
    match numbers {
        None => builder.typ(LinuxDeviceType::A).build().unwrap(),
        Some((major, minor)) => builder.typ(LinuxDeviceType::C).major(major).minor(minor).build().unwrap(),
    }
}

/// What a process in the group can open: /dev/null and /dev/zero for reading, /dev/null for writing.
fn access(scratch: &Scratch, child: &str) -> [bool; 3] {
    use std::io::Write;
    let group = scratch.child(child);
    ["exec 3</dev/null", "exec 3</dev/zero", "exec 3>/dev/null"].map(|script| {
        let mut process = Process::shell(&format!("read l; {script} && exit 7"));
        group.add_process(process.id()).unwrap();
        process.0.stdin.take().unwrap().write_all(b"go\n").unwrap();
        process.0.wait().unwrap().code() == Some(7)
    })
}

#[test]
fn devices_are_opened_only_where_allowed() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("d");
    let apply =
        |rules: Vec<LinuxDeviceCgroup>| group.apply(LinuxResources::default().set_devices(Some(rules)));
    assert_eq!(access(&scratch, "d"), [true, true, true]);
    apply(vec![device(false, None, "rwm"), device(true, Some((1, 3)), "rwm")]).unwrap();
    assert_eq!(access(&scratch, "d"), [true, false, true]);
    apply(vec![
        device(false, None, "rwm"),
        device(true, Some((1, 3)), "r"),
        device(true, Some((1, 5)), "rw"),
    ])
    .unwrap();
    assert_eq!(access(&scratch, "d"), [true, true, false]);
    apply(vec![device(false, None, "rwm")]).unwrap();
    assert_eq!(access(&scratch, "d"), [false, false, false]);
    // Version 1 cannot name exceptions from everything one by one in a group that denies, but it can start over.
    apply(vec![device(true, None, "rwm"), device(false, Some((1, 5)), "r")]).unwrap();
    assert_eq!(access(&scratch, "d"), [true, false, true]);
    if scratch.host.mode() == Mode::V2
        && let Some(directory) = group.birthplace()
    {
        let programs = sys::bpf::device_programs(directory).unwrap();
        assert_eq!(programs.len(), 1, "each update took the place of the one before");
    }
    assert_eq!(group.apply(&LinuxResources::default()).unwrap(), [], "no rules: no change");
    assert_eq!(access(&scratch, "d"), [true, false, true]);
}

#[test]
fn unified_is_for_version_2() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("u");
    let unified = |key: &str, value: &str| {
        let map = [(key.to_string(), value.to_string())].into_iter().collect();
        group.apply(LinuxResources::default().set_unified(Some(map)))
    };
    if !is_v2(&scratch) {
        let error = unified("memory.high", "1048576").unwrap_err();
        assert!(matches!(&error, ApplyError::UnifiedOnV1 { key } if key == "memory.high"), "{error}");
        return;
    }
    unified("memory.high", "67108864").unwrap();
    assert_eq!(file(&scratch, "u", ("", ""), "memory.high"), "67108864");
    assert!(matches!(unified("memory.no_such_file", "1"), Err(ApplyError::NoFile { .. })));
    assert!(matches!(
        unified("nothing.max", "1"),
        Err(ApplyError::NoFile { .. } | ApplyError::NoController { .. })
    ));
    assert!(matches!(unified("cgroup.kill", "1"), Err(ApplyError::Invalid { .. })));
}
