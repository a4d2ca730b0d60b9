//! Units of a real systemd: begun, limited, asked about after it read everything anew, and ended.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cgroup::systemd::{self, SystemdError};
use cgroup::{Cgroup, CgroupError, Driver, Host, Mode};
use common::{Process, WAIT};
use oci_spec::runtime::LinuxResources;

const MIB: i64 = 1 << 20;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A unit of this test alone, and with it everything in it.
struct Unit {
    host: Host,
    path: String,
}

impl Unit {
    /// `None`, and a line that says so, where there is no systemd to ask.
    fn new(name: impl FnOnce(&str) -> String) -> Option<Unit> {
        if !systemd::runs() {
            println!("SKIPPED: systemd is not this machine's init");
            return None;
        }
        let number = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Some(Unit { host: Host::detect().unwrap(), path: name(&number) })
    }

    fn scope() -> Option<Unit> {
        Unit::new(|number| systemd::place(&format!(":pintletest:{number}")).unwrap())
    }

    /// For tests that read files of version 2.
    fn scope_v2() -> Option<Unit> {
        let unit = Unit::scope()?;
        if unit.host.mode() == Mode::V2 {
            return Some(unit);
        }
        println!("SKIPPED: control groups are not of version 2 alone");
        None
    }

    fn slice() -> Option<Unit> {
        Unit::new(|number| systemd::slice_path(&format!("pintletest-{number}.slice")).unwrap())
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    fn begin(&self, resources: &LinuxResources, processes: &[&Process]) -> Result<Cgroup, CgroupError> {
        let processes: Vec<i32> = processes.iter().map(|process| process.id()).collect();
        let group = Driver::Systemd.create(&self.host, &self.path, resources, &processes)?;
        group.apply_made(resources).unwrap();
        Ok(group)
    }

    /// What systemd says of it.
    fn property(&self, name: &str) -> String {
        let output = systemctl(&["show", "-P", name, self.name()]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What the kernel says; only of version 2.
    fn file(&self, name: &str) -> String {
        let file = format!("/sys/fs/cgroup{}/{name}", self.path);
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
    }

    fn is_known(&self) -> bool {
        self.property("LoadState") != "not-found"
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if let Ok(group) = self.host.open(&self.path) {
            let _ = group.kill_all(WAIT);
        }
        let _ = systemctl(&["stop", self.name()]);
    }
}

fn systemctl(words: &[&str]) -> std::process::Output {
    Command::new("systemctl").args(words).output().unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn resources(json: serde_json::Value) -> LinuxResources {
    serde_json::from_value(json).unwrap()
}

fn limited() -> LinuxResources {
    resources(serde_json::json!({
        "memory": {"limit": 64 * MIB, "swap": 64 * MIB, "reservation": 32 * MIB},
        "cpu": {"shares": 512, "quota": 12_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 20},
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}],
    }))
}

/// Everything that [`limited`] set, read from the kernel.
fn seen(unit: &Unit) -> Vec<String> {
    let files = ["memory.max", "memory.low", "cpu.weight", "cpu.max", "cpuset.cpus", "pids.max"];
    files.iter().map(|file| format!("{file} {}", unit.file(file))).collect()
}

fn has_device_program(unit: &Unit) -> bool {
    let folder = std::fs::File::open(format!("/sys/fs/cgroup{}", unit.path)).unwrap();
    !sys::bpf::device_programs(std::os::fd::AsFd::as_fd(&folder)).unwrap().is_empty()
}

#[test]
fn limits_outlive_what_systemd_reads_anew() {
    let Some(unit) = Unit::scope_v2() else { return };
    let process = Process::sleeper();
    let group = unit.begin(&limited(), &[&process]).unwrap();
    assert_eq!(group.processes(true).unwrap(), [process.id()]);
    assert_eq!(unit.property("ControlGroup"), unit.path);
    assert_eq!(
        (unit.property("Delegate").as_str(), unit.property("ActiveState").as_str()),
        ("yes", "active")
    );
    let told = |unit: &Unit| ["MemoryMax", "TasksMax", "AllowedCPUs"].map(|name| unit.property(name));
    let expected = [(64 * MIB).to_string(), "20".into(), "0".into()];
    assert_eq!(told(&unit), expected);
    let before = seen(&unit);
    assert!(has_device_program(&unit));
    for again in ["daemon-reload", "daemon-reexec", "daemon-reload"] {
        assert!(systemctl(&[again]).status.success());
        // Something else begins in the same slice, for which systemd looks at all that are in it.
        let beside = Unit::scope().unwrap();
        let other = Process::sleeper();
        beside.begin(&limited(), &[&other]).unwrap();
        assert_eq!((told(&unit), seen(&unit)), (expected.clone(), before.clone()), "after {again}");
        assert!(has_device_program(&unit), "after {again}");
    }
    // What is changed later is told as well.
    let more =
        resources(serde_json::json!({"memory": {"limit": 128 * MIB}, "cpu": {"shares": 2048, "quota": -1}}));
    group.apply(&more).unwrap();
    assert_eq!(unit.property("MemoryMax"), (128 * MIB).to_string());
    assert_eq!(
        (unit.file("memory.max"), unit.file("cpu.max")),
        ((128 * MIB).to_string(), "max 100000".into())
    );
    let changed = seen(&unit);
    assert!(systemctl(&["daemon-reload"]).status.success());
    assert_eq!(seen(&unit), changed);

    // Systemd has whole percents of a processor: what is between them holds until it writes them, and is never less afterwards.
    let odd = resources(serde_json::json!({"cpu": {"quota": 12_345, "period": 100_000}}));
    group.apply(&odd).unwrap();
    assert_eq!(unit.file("cpu.max"), "12345 100000");
    assert!(systemctl(&["daemon-reload"]).status.success());
    let beside = Unit::scope().unwrap();
    beside.begin(&limited(), &[&Process::sleeper()]).unwrap();
    let quota = unit.file("cpu.max");
    assert!(["12345 100000", "13000 100000"].contains(&quota.as_str()), "{quota}");
}

#[test]
fn what_is_refused_changes_nothing() {
    let Some(unit) = Unit::scope_v2() else { return };
    let process = Process::sleeper();
    let group = unit.begin(&limited(), &[&process]).unwrap();
    let before = (seen(&unit), unit.property("CPUWeight"), unit.property("TasksMax"));
    for bad in [
        serde_json::json!({"cpu": {"shares": 4096, "cpus": "4000"}}),
        serde_json::json!({"cpu": {"shares": 4096}, "memory": {"limit": -7}}),
        serde_json::json!({"pids": {"limit": 7}, "memory": {"limit": 8 * MIB, "swap": MIB}}),
    ] {
        group.apply(&resources(bad.clone())).expect_err(&bad.to_string());
        assert_eq!((seen(&unit), unit.property("CPUWeight"), unit.property("TasksMax")), before, "{bad}");
    }
}

#[test]
fn a_scope_ends_with_its_last_process_and_its_name_is_free() {
    let Some(unit) = Unit::scope() else { return };
    for round in 0..3 {
        let process = Process::sleeper();
        let group = unit.begin(&limited(), &[&process]).unwrap();
        assert!(unit.is_known());
        group.kill_all(WAIT).unwrap();
        drop(process);
        // Whether or not systemd has heard of it.
        group.delete(WAIT).unwrap();
        assert!(matches!(unit.host.open(&unit.path), Err(CgroupError::NotFound { .. })), "round {round}");
        group.delete(WAIT).expect("absent is removed");
    }
    until("the unit is forgotten", || !unit.is_known());
}

#[test]
fn processes_keep_a_unit_from_being_removed() {
    let Some(unit) = Unit::scope() else { return };
    let process = Process::sleeper();
    let group = unit.begin(&LinuxResources::default(), &[&process]).unwrap();
    assert!(matches!(group.delete(Duration::from_millis(50)), Err(CgroupError::Timeout { .. })));
    assert_eq!(group.processes(true).unwrap(), [process.id()], "they were left alone");
    // Its namesake is refused, and harms it not.
    let other = Process::sleeper();
    let error = unit.begin(&LinuxResources::default(), &[&other]).unwrap_err();
    assert!(error.to_string().contains(unit.name()) && error.to_string().contains("UnitExists"), "{error}");
    assert_eq!(group.processes(true).unwrap(), [process.id()]);
}

#[test]
fn slices_need_no_process_and_are_made_once() {
    let Some(unit) = Unit::slice() else { return };
    let group = unit.begin(&limited(), &[]).unwrap();
    let name = if unit.host.mode() == Mode::V2 { "MemoryMax" } else { "MemoryLimit" };
    assert_eq!(unit.property(name), (64 * MIB).to_string());
    let more = resources(serde_json::json!({"memory": {"limit": 128 * MIB, "swap": 128 * MIB}}));
    let again = unit.begin(&more, &[]).expect("it is there, and is given the limits");
    assert_eq!(unit.property(name), (128 * MIB).to_string());
    drop(again);
    // A scope in it is where its slice says.
    let name = unit.name().to_owned();
    let inner =
        Unit { host: unit.host.clone(), path: systemd::place(&format!("{name}:pintletest:in")).unwrap() };
    let process = Process::sleeper();
    inner.begin(&LinuxResources::default(), &[&process]).unwrap();
    assert_eq!(group.processes(true).unwrap(), [process.id()]);
    drop(inner);
    group.delete(WAIT).unwrap();
    // A slice is known as soon as somebody asks for it.
    until("the unit has ended", || unit.property("ActiveState") == "inactive");
    assert!(matches!(unit.host.open(&unit.path), Err(CgroupError::NotFound { .. })));
}

#[test]
fn what_systemd_cannot_make_is_told() {
    let Some(unit) = Unit::scope() else { return };
    let error = unit.begin(&LinuxResources::default(), &[]).unwrap_err();
    let CgroupError::Systemd { source: SystemdError::Refused { .. }, .. } = &error else { panic!("{error}") };
    assert!(error.to_string().contains(unit.name()), "{error}");
    for path in ["/a/b", "/x.scope/y", "/a-b.slice", "/"] {
        let error = Driver::Systemd.create(&unit.host, path, &LinuxResources::default(), &[]).unwrap_err();
        assert!(matches!(error, CgroupError::BadPath { .. }), "{path}: {error}");
    }
    assert!(!unit.is_known());
}

#[test]
fn many_at_once_get_each_its_own() {
    if Unit::scope().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let unit = Unit::scope().unwrap();
                let process = Process::sleeper();
                let group = unit.begin(&limited(), &[&process]).unwrap();
                assert_eq!(group.processes(true).unwrap(), [process.id()]);
                group.kill_all(WAIT).unwrap();
                drop(process);
                group.delete(WAIT).unwrap();
            });
        }
    });
}
