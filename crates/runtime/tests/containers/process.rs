//! User, groups, capabilities, limits, umask, priority, environment.

use serde_json::json;

use crate::bundle::bundle;

fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.split_once(':').unwrap().1.trim()
}

#[test]
fn the_user_is_exactly_the_specified_one() {
    let mut bundle = bundle!();
    bundle.config["process"]["user"] =
        json!({"uid": 1000, "gid": 2000, "additionalGids": [5, 6], "umask": 0o027});
    bundle.config["process"]["cwd"] = "/made/here".into();
    bundle.shell("cat /proc/self/status; umask; pwd; echo $HOME");
    let text = bundle.run().ok();
    assert_eq!(field(&text, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field(&text, "Gid"), "2000\t2000\t2000\t2000");
    assert_eq!(field(&text, "Groups"), "5 6");
    assert!(text.ends_with("0027\n/made/here\n/work\n"), "{text}");
}

#[test]
fn capabilities_are_the_specified_ones_and_never_inheritable() {
    let mut bundle = bundle!();
    let some = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": some, "effective": some, "permitted": some, "inheritable": some, "ambient": []});
    bundle.shell("cat /proc/self/status; sleep 30");
    bundle.create().ok();
    bundle.start().ok();
    let text = bundle.exec(&["cat", "/proc/1/status", "/proc/self/status"]).ok();
    for block in text.split("Name:").skip(1) {
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(field(block, set), "0000000000000420");
        }
        assert_eq!(field(block, "CapInh"), "0000000000000000");
        assert_eq!(field(block, "CapAmb"), "0000000000000000");
        assert_eq!(field(block, "NoNewPrivs"), "1");
    }
}

#[test]
fn another_user_has_capabilities_only_by_the_ambient_set() {
    let mut bundle = bundle!();
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.shell("cat /proc/self/status");
    assert_eq!(field(&bundle.run().ok(), "CapEff"), "0000000000000000");
    bundle.config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    let text = bundle.run().ok();
    assert_eq!(field(&text, "CapEff"), "0000000000000020");
    assert_eq!(field(&text, "CapAmb"), "0000000000000020");
}

#[test]
fn limits_are_set_and_clamped_where_they_cannot_be() {
    let mut bundle = bundle!();
    bundle.config["process"]["rlimits"] = json!([
        {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_MEMLOCK", "soft": u64::MAX, "hard": u64::MAX},
    ]);
    bundle.config["process"]["oomScoreAdj"] = (-998).into();
    bundle.shell("ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj");
    let done = bundle.run();
    let warnings = done.err.clone();
    let text = done.ok();
    assert!(text.starts_with("64\n128\n0\n"), "{text}");
    if !text.ends_with("-998\n") {
        assert!(warnings.contains("oomScoreAdj -998 needs CAP_SYS_RESOURCE"), "{warnings}");
    }
    bundle.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 65, "hard": 64}]);
    assert!(bundle.run().failed().contains("the soft limit 65 is above the hard limit 64"));
}

#[test]
fn seccomp_filters_with_and_without_new_privileges() {
    for no_new_privileges in [true, false] {
        let mut bundle = bundle!();
        bundle.config["process"]["noNewPrivileges"] = no_new_privileges.into();
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
        });
        bundle.shell("cat /proc/self/status; mkdir /tmp/x; sleep 30");
        bundle.create().ok();
        bundle.start().ok();
        let done = bundle.exec(&["/bin/sh", "-c", "cat /proc/1/status; cat /proc/self/status; mkdir /tmp/y"]);
        assert!(done.err.contains("not supported"), "{}", done.err);
        for block in done.text().split("Name:").skip(1) {
            assert_eq!(field(block, "Seccomp"), "2");
            assert_eq!(field(block, "CapEff"), "0000000020000420", "nothing of what loading took is left");
            assert_eq!(field(block, "NoNewPrivs"), if no_new_privileges { "1" } else { "0" });
        }
        assert!(!bundle.rootfs().join("tmp/x").exists() && !bundle.rootfs().join("tmp/y").exists());
    }
}

#[test]
fn scheduling_is_set() {
    let mut bundle = bundle!();
    bundle.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
    bundle.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 5});
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.shell("cat /proc/self/stat; cat /proc/self/personality");
    let text = bundle.run().ok();
    let fields: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
    assert_eq!((fields[18], fields[40]), ("5", "3"), "nice and policy in {text}");
    assert!(text.ends_with("00000008\n"), "{text}");
}

#[test]
fn ids_out_of_range_are_refused_and_never_root() {
    let mut bundle = bundle!();
    bundle.shell("id");
    for user in [json!({"uid": u32::MAX, "gid": 0}), json!({"uid": 0, "gid": u32::MAX})] {
        bundle.config["process"]["user"] = user;
        let message = bundle.run().failed();
        assert!(message.contains("4294967295 is not an id"), "{message}");
    }
    for user in [
        json!({"uid": -1, "gid": 0}),
        json!({"uid": 4_294_967_296_u64, "gid": 0}),
        json!({"uid": "0x0", "gid": 0}),
    ] {
        bundle.config["process"]["user"] = user;
        assert!(bundle.run().failed().contains("config.json"));
    }
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn sysctls_of_the_containers_namespaces_are_set_and_others_refused() {
    let mut bundle = bundle!();
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"});
    bundle.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax");
    assert_eq!(bundle.run().ok(), "1\n4096\n");
    for (key, value, words) in [
        ("kernel.core_pattern", "|/evil", "is not namespaced"),
        ("vm.swappiness", "1", "is not namespaced"),
        ("kernel.hostname", "x", "by the field hostname"),
        ("net.ipv4/../../kernel/core_pattern", "x", "is not a name"),
        ("net.ipv4.ip_forward+x", "1", "is not a name"),
        ("net.ipv4.ip_forward", "1\nkernel.x=1", "control characters"),
        ("net.ipv4.no_such_thing", "1", "No such file"),
    ] {
        bundle.config["linux"]["sysctl"] = json!({key: value});
        let message = bundle.run().failed();
        assert!(message.contains(words) && message.contains(key), "{message}");
    }
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "network");
    assert!(bundle.run().failed().contains("would change the host"));
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}
