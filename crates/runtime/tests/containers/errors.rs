//! A bad step at each stage: the message names stage, object and cause, and nothing is left.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::bundle::{Bundle, bundle};

#[test]
fn a_bad_step_at_each_stage_leaves_nothing() {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    type Case = (&'static str, Value, &'static str);
    let cases: Vec<Case> = vec![
        ("/ociVersion", json!("2.0"), "not a version 1"),
        ("/process/args", json!([]), "nothing to run"),
        ("/process/cwd", json!("relative"), "must be an absolute path"),
        ("/root/path", json!("absent"), "root file system: "),
        ("/root/path", json!("config.json"), "is not a directory"),
        ("/mounts/0", mount("/data", "bind", "/absent/source", &["rbind"]), "source /absent/source of /data"),
        ("/mounts/0", mount("/x", "nosuchfs", "none", &[]), "this kernel has no such file system"),
        ("/mounts/0", mount("/x", "tmpfs", "none", &["nosuchoption=1"]), "nosuchoption"),
        ("/mounts/0", mount("/", "tmpfs", "none", &[]), "cannot replace the root"),
        ("/mounts/0", mount("/etc/passwd", "tmpfs", "none", &[]), "mount target /etc/passwd"),
        (
            "/mounts/0",
            mount("/etc", "bind", "/etc/passwd", &["bind"]),
            "the source is a file and the target a directory",
        ),
        ("/linux/sysctl", json!({"vm.x": "1"}), "is not namespaced"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": -1, "minor": 0}]),
            "device numbers",
        ),
        (
            "/linux/devices",
            json!([{"path": "/etc/passwd/x", "type": "c", "major": 1, "minor": 3}]),
            "devices: /etc/passwd/x",
        ),
        ("/linux/rootfsPropagation", json!("upwards"), "\"upwards\" is not known"),
        ("/linux/maskedPaths", json!(["/proc/self/exe"]), "masked /proc/self/exe"),
        ("/linux/cgroupsPath", json!("/../escape"), "cgroup: /../escape"),
        ("/linux/resources", json!({"memory": {"limit": 4096}, "cpu": {"quota": 1}}), "cgroup: "),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "seccomp: "),
        (
            "/linux/netDevices",
            json!({"absent9": {}}),
            "linux.netDevices.absent9: the host has no such network device",
        ),
        ("/linux/netDevices", json!({"a/b": {}}), "is no name of a network device"),
        ("/linux/intelRdt", json!({"closID": "a/b"}), "linux.intelRdt.closID"),
        ("/linux/intelRdt", json!({"closID": "a"}), "no resctrl file system is mounted"),
        ("/process/rlimits", json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]), "above the hard limit"),
        ("/process/user", json!({"uid": u32::MAX, "gid": 0}), "is not an id"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), "not between 0 and 7"),
        ("/process/apparmorProfile", json!("absent-profile"), "security label: "),
        ("/process/cwd", json!("/etc/passwd"), "working directory /etc/passwd"),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]),
            "process.rlimits[1]: RLIMIT_CPU is listed twice",
        ),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]),
            "process.rlimits[0].type",
        ),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/user", json!({"uid": 0, "gid": 0, "umask": 512}), "process.user.umask"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO"}), "process.scheduler.priority"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice"),
        ("/process/scheduler", json!({"policy": "SCHED_NOPE"}), "process.scheduler.policy"),
        ("/process/capabilities", json!({"bounding": ["CAP_NOPE"]}), "process.capabilities.bounding"),
        ("/linux/namespaces", json!([{"type": "mount"}, {"type": "nope"}]), "linux.namespaces[1].type"),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "mount"}]),
            "namespaces: mount: is listed twice",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/uts"}]),
            "must be a namespace of this kind",
        ),
        ("/linux/namespaces", json!([]), "a container needs a mount namespace"),
        ("/linux/maskedPaths", json!(["relative"]), "linux.maskedPaths[0]: must be an absolute path"),
        ("/linux/readonlyPaths", json!(["/a", "b"]), "linux.readonlyPaths[1]: must be an absolute path"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 0}]), "linux.uidMappings[0]"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"]}),
            "linux.seccomp.architectures[0]",
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOPE"}), "linux.seccomp.defaultAction"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "q", "major": 1, "minor": 0}]),
            "linux.devices[0].type",
        ),
        (
            "/linux/devices",
            json!([{"path": "dev/x", "type": "c", "major": 1, "minor": 0}]),
            "linux.devices[0].path",
        ),
        ("/linux/personality", json!({"domain": "NOPE"}), "linux.personality.domain"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_NOPE"}), "linux.memoryPolicy.mode"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"}), "memoryPolicy.nodes"),
        (
            "/hooks",
            json!({"prestart": [{"path": "relative"}]}),
            "hooks.prestart[0].path: must be an absolute path",
        ),
        (
            "/hooks",
            json!({"poststop": [{"path": "/bin/true", "timeout": 0}]}),
            "hooks.poststop[0].timeout: must be greater than zero",
        ),
        ("/annotations", json!({"": "x"}), "annotations: has an empty key"),
        ("/root", json!({"path": ""}), "root.path: is empty"),
        ("/root", Value::Null, "root: is missing"),
        ("/process", Value::Null, "process: is missing"),
        ("/linux", Value::Null, "linux: is missing"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "need a new time namespace"),
    ];
    for (pointer, value, expected) in cases {
        let mut bundle = bundle!();
        bundle.shell("true");
        set(&mut bundle, pointer, value.clone());
        let message = bundle.create().failed();
        assert!(message.contains(expected), "{pointer} {value}: {message}");
        assert!(!message.contains("not taken back"), "{message}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new(), "{pointer} {value}");
    }
}

/// Sets a field; a mount is put before those of the default, which stay.
fn set(bundle: &mut Bundle, pointer: &str, value: Value) {
    if pointer == "/mounts/0" {
        bundle.config["mounts"].as_array_mut().unwrap().insert(0, value);
        return;
    }
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    bundle.config.pointer_mut(parent).unwrap()[key] = value;
}

#[test]
fn a_broken_configuration_is_named_by_its_place() {
    let bundle = bundle!();
    for text in ["", "{", "[]", "{\"ociVersion\": 7}", "{\"ociVersion\": \"1.0.0\"}", "\u{feff}{}"] {
        std::fs::write(bundle.path().join("config.json"), text).unwrap();
        let message = bundle.oci(&["create", &bundle.id]).failed();
        assert!(message.contains("config"), "{text:?}: {message}");
    }
    std::fs::remove_file(bundle.path().join("config.json")).unwrap();
    assert!(bundle.oci(&["create", &bundle.id]).failed().contains("config.json: No such file"));
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_command_that_cannot_run_is_explained() {
    let mut elf = std::fs::read("/bin/sh").unwrap();
    elf.truncate(4096);
    elf[18] = 183;
    let files: &[(&str, &[u8], u32)] = &[
        ("script", b"#!/lib/absent-interpreter -x\n", 0o755),
        ("windows", b"#!/bin/sh\r\necho\r\n", 0o755),
        ("plain", b"#!/bin/sh\n", 0o644),
        ("garbage", b"\0\0\0\0", 0o755),
        ("empty", b"", 0o755),
        ("foreign", &elf, 0o755),
    ];
    let dynamic = std::fs::read("/bin/true").unwrap();
    // What can be seen from outside is told by create, the rest by start.
    for (args, early, expected) in [
        (&["absent"][..], true, "executable file not found in $PATH"),
        (&["/absent"], true, "/absent: no such file or directory in the image"),
        (&["/etc"], true, "/etc: permission denied: it is a directory"),
        (&["/etc/script"], false, "the interpreter /lib/absent-interpreter is missing in the image"),
        (&["/etc/windows"], false, "carriage return"),
        (&["/etc/plain"], true, "permission denied: it is not executable (mode 0644)"),
        (&["/etc/garbage"], false, "is neither a program nor a script"),
        (&["/etc/empty"], false, "is an empty file"),
        (&["/etc/foreign"], false, "is a program for aarch64"),
        (&["/etc/dynamic"], false, "the interpreter /lib"),
        (&["/noexec/true"], true, "mounted noexec"),
    ] {
        let mut bundle = bundle!();
        for (name, content, mode) in files.iter().chain([&("dynamic", &dynamic[..], 0o755)]) {
            let path = bundle.rootfs().join("etc").join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        let source = bundle.rootfs().join("bin");
        bundle.mount(json!({"destination": "/noexec", "type": "bind", "source": source, "options": ["bind", "noexec"]}));
        bundle.args(args);
        let created = bundle.create();
        assert_eq!(created.code, i32::from(early), "{args:?}: {}", created.err);
        let done = if early { created } else { bundle.start() };
        assert_eq!(done.code, 1);
        assert!(done.err.contains(expected), "{args:?}: {}", done.err);
        if early {
            assert_eq!(bundle.leftovers(), Vec::<String>::new());
        } else {
            bundle.wait_for("stopped");
        }
    }
}

#[test]
fn start_says_when_init_was_killed_before_it() {
    let mut bundle = bundle!();
    bundle.shell("true");
    bundle.create().ok();
    bundle.oci(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_for("stopped");
    assert!(bundle.start().failed().contains("has stopped"));
}
