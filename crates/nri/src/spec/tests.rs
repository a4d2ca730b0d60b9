//! Adjustments in a spec, and the spec in NRI's words again.

use super::*;
use crate::api::{
    ContainerAdjustment, KeyValue, LinuxContainerAdjustment, LinuxCpu, LinuxMemory, LinuxPids, OptionalInt,
    OptionalInt64, OptionalString, OptionalUInt32, OptionalUInt64,
};

fn spec() -> Spec {
    let text = serde_json::json!({
        "ociVersion": "1.2.0",
        "process": { "user": { "uid": 5, "gid": 6, "additionalGids": [7] }, "args": ["sh"], "cwd": "/",
            "env": ["A=1", "B=2"], "rlimits": [{ "type": "RLIMIT_CORE", "hard": 1, "soft": 1 }] },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }, { "destination": "/a/b", "source": "/x", "options": ["bind"] }],
        "annotations": { "k": "v" },
        "linux": { "namespaces": [{ "type": "network", "path": "/n" }, { "type": "mount" }], "cgroupsPath": "/p/c",
            "resources": { "memory": { "limit": 10, "swap": 10 }, "devices": [{ "allow": false, "access": "rwm" }] } },
    });
    serde_json::from_value(text).unwrap()
}

fn adjusted(adjust: ContainerAdjustment) -> Spec {
    let mut spec = spec();
    adjust_spec(&mut spec, &adjust).unwrap();
    spec
}

fn linux_of(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux), ..ContainerAdjustment::default() }
}

#[test]
fn nothing_wanted_changes_nothing() {
    let mut expected = spec();
    assert_eq!(adjusted(ContainerAdjustment::default()), expected.clone());
    expected.hooks_mut().get_or_insert_default();
    let empty = ContainerAdjustment { hooks: Some(api::Hooks::default()), ..ContainerAdjustment::default() };
    assert_eq!(adjusted(empty), expected);
}

#[test]
fn the_process_is_adjusted() {
    let entry = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
    let spec = adjusted(ContainerAdjustment {
        env: vec![entry("-A", ""), entry("B", "3=x"), entry("C", "4")],
        args: vec!["true".into()],
        rlimits: vec![api::PosixRlimit { r#type: "RLIMIT_CORE".into(), hard: 9, soft: 8 }],
        linux: Some(LinuxContainerAdjustment {
            oom_score_adj: Some(OptionalInt { value: -7 }),
            io_priority: Some(api::LinuxIoPriority { class: 2, priority: 4 }),
            scheduler: Some(api::LinuxScheduler {
                policy: 2,
                priority: 3,
                flags: vec![0, 2],
                ..Default::default()
            }),
            ..LinuxContainerAdjustment::default()
        }),
        ..ContainerAdjustment::default()
    });
    let process = serde_json::to_value(spec.process()).unwrap();
    assert_eq!(process["env"], serde_json::json!(["B=3=x", "C=4"]));
    assert_eq!(process["args"], serde_json::json!(["true"]));
    assert_eq!(process["rlimits"], serde_json::json!([{ "type": "RLIMIT_CORE", "hard": 9, "soft": 8 }]));
    assert_eq!(process["oomScoreAdj"], -7);
    assert_eq!(process["ioPriority"], serde_json::json!({ "class": "IOPRIO_CLASS_BE", "priority": 4 }));
    assert_eq!(process["scheduler"]["policy"], "SCHED_FIFO");
}

#[test]
fn mounts_replace_and_go_below_what_they_are_in() {
    let mount = |destination: &str, options: &[&str]| api::Mount {
        destination: destination.into(),
        source: "/host".into(),
        options: options.iter().map(ToString::to_string).collect(),
        ..api::Mount::default()
    };
    let spec = adjusted(ContainerAdjustment {
        mounts: vec![mount("/a/b", &["rbind", "ro"]), mount("-/proc", &[]), mount("/a", &["bind", "rslave"])],
        ..ContainerAdjustment::default()
    });
    let mounts: Vec<_> = spec.mounts().iter().flatten().map(|mount| text(mount.destination())).collect();
    assert_eq!(mounts, ["/a", "/a/b"]);
    assert_eq!(spec.mounts().as_ref().unwrap()[1].typ().as_deref(), Some("bind"));
    assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("rslave"));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn devices_limits_and_namespaces_are_adjusted() {
    let device = api::LinuxDevice {
        path: "/dev/x".into(),
        r#type: "c".into(),
        major: 1,
        minor: 3,
        uid: Some(OptionalUInt32 { value: 9 }),
        ..api::LinuxDevice::default()
    };
    let resources = api::LinuxResources {
        memory: Some(LinuxMemory { limit: Some(OptionalInt64 { value: 20 }), ..LinuxMemory::default() }),
        cpu: Some(LinuxCpu {
            shares: Some(OptionalUInt64 { value: 3 }),
            cpus: "0".into(),
            ..LinuxCpu::default()
        }),
        pids: Some(LinuxPids { limit: 33 }),
        blockio_class: Some(OptionalString::default()),
        ..api::LinuxResources::default()
    };
    let namespace = |kind: &str| api::LinuxNamespace { r#type: kind.into(), path: String::new() };
    let spec = adjusted(linux_of(LinuxContainerAdjustment {
        devices: vec![device.clone()],
        resources: Some(resources),
        cgroups_path: "/elsewhere".into(),
        namespaces: vec![namespace("-network"), namespace("cgroup")],
        sysctl: [("net.x".to_owned(), "1".to_owned())].into(),
        ..LinuxContainerAdjustment::default()
    }));
    let again = crate::describe::container(&spec);
    let linux = again.linux.unwrap();
    assert_eq!(linux.devices, [device]);
    assert_eq!(linux.cgroups_path, "/elsewhere");
    assert_eq!(linux.namespaces.iter().map(|n| n.r#type.as_str()).collect::<Vec<_>>(), ["mount", "cgroup"]);
    let limits = linux.resources.unwrap();
    assert_eq!(limits.memory.as_ref().unwrap().swap, Some(OptionalInt64 { value: 20 }));
    assert_eq!((limits.pids.unwrap().limit, limits.cpu.unwrap().cpus.as_str()), (33, "0"));
    assert_eq!(limits.devices.len(), 2);
    assert_eq!(linux.sysctl["net.x"], "1");
    assert_eq!(again.user.unwrap(), api::User { uid: 5, gid: 6, additional_gids: vec![7] });
}

#[test]
fn a_seccomp_policy_comes_through() {
    let policy = api::LinuxSeccomp {
        default_action: "SCMP_ACT_ERRNO".into(),
        default_errno: Some(OptionalUInt32 { value: 38 }),
        architectures: vec!["SCMP_ARCH_X86_64".into()],
        syscalls: vec![api::LinuxSyscall {
            names: vec!["read".into()],
            action: "SCMP_ACT_ALLOW".into(),
            args: vec![api::LinuxSeccompArg { index: 1, value: 2, value_two: 0, op: "SCMP_CMP_EQ".into() }],
            ..api::LinuxSyscall::default()
        }],
        ..api::LinuxSeccomp::default()
    };
    let adjust =
        linux_of(LinuxContainerAdjustment { seccomp_policy: Some(policy.clone()), ..Default::default() });
    let again = crate::describe::container(&adjusted(adjust)).linux.unwrap().seccomp_policy.unwrap();
    assert_eq!(again, policy);
}

#[test]
fn what_no_container_can_have_is_refused_by_name() {
    let hook = api::Hook { path: "relative".into(), ..api::Hook::default() };
    let class = OptionalString { value: "gold".into() };
    let cases = [
        (
            ContainerAdjustment {
                env: vec![KeyValue { key: "A=B".into(), value: String::new() }],
                ..Default::default()
            },
            "A=B",
        ),
        (
            ContainerAdjustment {
                hooks: Some(api::Hooks { prestart: vec![hook], ..Default::default() }),
                ..Default::default()
            },
            "relative",
        ),
        (
            ContainerAdjustment {
                rlimits: vec![api::PosixRlimit { r#type: "RLIMIT_WHAT".into(), hard: 1, soft: 1 }],
                ..Default::default()
            },
            "RLIMIT_WHAT",
        ),
        (
            ContainerAdjustment {
                mounts: vec![api::Mount { destination: "x".into(), ..Default::default() }],
                ..Default::default()
            },
            "\"x\"",
        ),
        (linux_of(LinuxContainerAdjustment { cgroups_path: "/a/../b".into(), ..Default::default() }), ".."),
        (
            linux_of(LinuxContainerAdjustment {
                oom_score_adj: Some(OptionalInt { value: 2000 }),
                ..Default::default()
            }),
            "2000",
        ),
        (
            linux_of(LinuxContainerAdjustment {
                scheduler: Some(api::LinuxScheduler { policy: 99, ..Default::default() }),
                ..Default::default()
            }),
            "99",
        ),
        (
            linux_of(LinuxContainerAdjustment {
                resources: Some(api::LinuxResources { rdt_class: Some(class), ..Default::default() }),
                ..Default::default()
            }),
            "gold",
        ),
    ];
    for (adjust, names) in cases {
        let error = adjust_spec(&mut spec(), &adjust).unwrap_err();
        assert!(error.to_string().contains(names), "{error} does not name {names}");
    }
}
