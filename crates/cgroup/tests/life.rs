//! Real groups: made, filled, frozen, killed and removed. Runs on either version.

mod common;

use std::time::{Duration, Instant};

use cgroup::{CgroupError, Host, Mode};
use common::{Process, Scratch, WAIT};

#[test]
fn groups_are_made_opened_and_removed() {
    let Some(scratch) = Scratch::new() else { return };
    let path = format!("/{}/a/b/c", scratch.name);
    assert!(matches!(scratch.host.open(&path), Err(CgroupError::NotFound { .. })));
    let group = scratch.host.create(&path).unwrap();
    assert_eq!(group.path(), path.trim_start_matches('/'));
    scratch.host.create(&path).expect("making it again opens it");
    scratch.child("a/other");
    assert_eq!(
        group.birthplace().is_some(),
        scratch.host.mode() != Mode::V1,
        "version 2, also beside version 1"
    );
    scratch.child("a").delete(WAIT).unwrap();
    assert!(matches!(scratch.host.open(&path), Err(CgroupError::NotFound { .. })));
    group.delete(WAIT).expect("absent is removed");
    assert_eq!(group.processes(true).unwrap(), [0i32; 0], "a removed group has nobody in it");
    group.kill_all(WAIT).expect("nobody is left to kill");
    assert!(matches!(group.stats(), Err(CgroupError::NotFound { .. })));
    for bad in ["", "/", "a/../b", "a//b", "../x"] {
        assert!(matches!(scratch.host.create(bad), Err(CgroupError::BadPath { .. })), "{bad}");
        assert!(matches!(scratch.host.delete(bad, WAIT), Err(CgroupError::BadPath { .. })), "{bad}");
    }
}

#[test]
fn processes_are_counted_with_those_below() {
    let Some(scratch) = Scratch::new() else { return };
    let (inner, outer) = (scratch.child("x/y"), scratch.group());
    let process = Process::sleeper();
    inner.add_process(process.id()).unwrap();
    assert_eq!(inner.processes(false).unwrap(), [process.id()]);
    assert_eq!(outer.processes(false).unwrap(), [0i32; 0]);
    assert_eq!(outer.processes(true).unwrap(), [process.id()]);
    assert!(matches!(inner.add_process(i32::MAX), Err(CgroupError::Io { .. })), "no such process");
    let error = inner.delete(Duration::from_millis(30)).unwrap_err();
    let CgroupError::Timeout { processes, .. } = &error else { panic!("{error}") };
    assert_eq!(processes, &[process.id()]);
}

/// Whether `pid` uses processor time in 50 ms.
fn runs(pid: i32) -> bool {
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
        stat.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_millis(50));
    ticks() != before
}

#[test]
fn frozen_processes_do_not_run_and_can_be_killed() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("frozen");
    let mut busy = Process::shell("while :; do :; done");
    group.add_process(busy.id()).unwrap();
    group.freeze(WAIT).unwrap();
    assert!(group.is_frozen().unwrap());
    assert!(!runs(busy.id()));
    group.thaw().unwrap();
    assert!(!group.is_frozen().unwrap());
    let deadline = Instant::now() + WAIT;
    while !runs(busy.id()) {
        assert!(Instant::now() < deadline, "it runs again");
    }
    group.freeze(WAIT).unwrap();
    group.kill_all(WAIT).unwrap();
    assert_eq!(busy.signal(), Some(9));
}

#[test]
fn a_forking_crowd_is_killed() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("crowd");
    // Waits for a line, so that what it forks is born in the group.
    let mut crowd = Process::shell(
        "read line; i=0; while [ $i -lt 30 ]; do sleep 60 & i=$((i+1)); done; while :; do sleep 0.01; done",
    );
    let mut other = Process::sleeper();
    group.add_process(crowd.id()).unwrap();
    // Made now, the group below gets no controllers in version 2, where a group with processes hands none down.
    scratch.child("crowd/below").add_process(other.id()).unwrap();
    drop(crowd.0.stdin.take());
    let deadline = Instant::now() + WAIT;
    while group.processes(false).unwrap().len() < 31 {
        assert!(Instant::now() < deadline, "the crowd gathers");
        std::thread::sleep(Duration::from_millis(5));
    }
    group.kill_all(WAIT).unwrap();
    assert_eq!(group.processes(true).unwrap(), [0i32; 0]);
    assert_eq!(crowd.signal(), Some(9));
    assert_eq!(other.signal(), Some(9));
    group.delete(WAIT).unwrap();
}

#[test]
fn use_is_measured() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("measured");
    let process = Process::shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60");
    group.add_process(process.id()).unwrap();
    let deadline = Instant::now() + WAIT;
    let stats = loop {
        let stats = group.stats().unwrap();
        if stats.cpu.usage_ns > 20_000_000 || Instant::now() >= deadline {
            break stats;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(stats.cpu.usage_ns > 20_000_000, "{stats:?}");
    assert!(stats.pids.current >= 1 && stats.pids.limit.is_none(), "{stats:?}");
    assert!(stats.memory.working_set <= stats.memory.usage, "{stats:?}");
    assert_eq!((stats.oom_kills, group.oom_kills().unwrap()), (0, 0));
    assert!(stats.memory_detail.max_usage.is_none_or(|most| most >= stats.memory.usage / 2), "{stats:?}");
    assert!(stats.cpu.shares > 0 && stats.cpu.quota_us.is_none(), "{stats:?}");
    // The tree of version 2 tells of stalls also where it has no controllers.
    assert_eq!(stats.pressure.cpu.is_some(), scratch.host.mode() != Mode::V1 && pressure_is_counted());
}

#[test]
fn a_meter_stays_true_and_learns_of_the_end() {
    let Some(scratch) = Scratch::new() else { return };
    let group = scratch.child("metered");
    let process = Process::shell("while :; do :; done");
    let meter = group.meter().unwrap();
    let before = meter.read().unwrap();
    group.add_process(process.id()).unwrap();
    let deadline = Instant::now() + WAIT;
    while meter.read().unwrap().cpu_ns < before.cpu_ns + 20_000_000 {
        assert!(Instant::now() < deadline, "it runs and is not seen to: {:?}", meter.read());
        std::thread::sleep(Duration::from_millis(5));
    }
    let (now, full) = (meter.read().unwrap(), group.stats().unwrap());
    assert!(full.cpu.usage_ns >= now.cpu_ns, "{now:?} {full:?}");
    assert_eq!(now.pressure.cpu.is_some(), full.pressure.cpu.is_some());
    group.kill_all(WAIT).unwrap();
    drop(group);
    scratch.host.delete(&format!("{}/metered", scratch.name), WAIT).unwrap();
    assert!(matches!(meter.read(), Err(CgroupError::NotFound { .. })), "{:?}", meter.read());
}

fn pressure_is_counted() -> bool {
    std::fs::read("/proc/pressure/cpu").is_ok()
}

#[test]
fn the_host_is_recognised() {
    let Ok(host) = Host::detect() else {
        println!("SKIPPED: no cgroups");
        return;
    };
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let has = |kind: &str| mounts.lines().any(|l| l.split(' ').nth(2) == Some(kind));
    let expected = match (has("cgroup"), has("cgroup2")) {
        (true, true) => Mode::Hybrid,
        (true, false) => Mode::V1,
        _ => Mode::V2,
    };
    assert_eq!(host.mode(), expected);
    assert!(host.has(cgroup::Controller::Memory) && host.has(cgroup::Controller::Pids));
}
