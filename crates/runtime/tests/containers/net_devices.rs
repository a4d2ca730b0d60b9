//! Network devices that move from the host into the container. The host is a network namespace of the test's.

use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Done, bundle};

/// Runs the container from a network namespace in which `setup` was done first.
fn run_where(bundle: &Bundle, setup: &str) -> Done {
    bundle.save();
    let oci = crate::bundle::oci();
    let script =
        format!("{setup}\nexec {} --root {} run {}", oci.display(), bundle.states().display(), bundle.id);
    let mut shell = Command::new("unshare");
    shell.args(["--net", "sh", "-ec", &script]).current_dir(bundle.path()).stdin(std::process::Stdio::null());
    bundle.to_end(shell)
}

const SETUP: &str = "ip link add pt0 type veth peer name pt1; ip link add pt2 type veth peer name pt3; \
    ip link set pt1 up; ip link set pt0 mtu 1400 up; ip addr add 10.98.7.6/24 dev pt0; ip addr add fd00:98::6/64 dev pt0 nodad; \
    ip addr add 169.254.7.7/16 scope link dev pt0";

#[test]
fn a_device_keeps_its_permanent_addresses_and_comes_up_under_its_new_name() {
    let mut bundle = bundle!();
    bundle.config["linux"]["netDevices"] = json!({"pt0": {"name": "eth7"}, "pt2": {}});
    bundle.shell("ip addr");
    let text = run_where(&bundle, SETUP).ok();
    for expected in ["eth7", "mtu 1400", "inet 10.98.7.6/24", "inet6 fd00:98::6/64", "pt2"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    let line = text.lines().find(|line| line.contains("eth7") && line.contains('<')).unwrap();
    assert!(line.contains("UP"), "{text}");
    assert!(!text.contains("169.254.7.7"), "only addresses of global scope: {text}");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_template_gets_a_free_name() {
    let mut bundle = bundle!();
    bundle.config["linux"]["netDevices"] = json!({"pt0": {"name": "net%d"}});
    bundle.shell("ip addr");
    let text = run_where(&bundle, SETUP).ok();
    assert!(text.contains("net0") && text.contains("10.98.7.6/24"), "{text}");
}

#[test]
fn what_cannot_be_moved_is_named() {
    let cases: [(Value, Value, &str); 3] = [
        (json!({"absent": {}}), Value::Null, "linux.netDevices.absent: the host has no such network device"),
        (
            json!({"pt0": {"name": "lo"}}),
            Value::Null,
            "linux.netDevices.pt0: the container has a network device \"lo\" already",
        ),
        (json!({"pt0": {}}), json!("network"), "needs a network namespace of the container's own"),
    ];
    for (devices, without, expected) in cases {
        let mut bundle = bundle!();
        bundle.config["linux"]["netDevices"] = devices;
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != without);
        bundle.shell("true");
        let message = run_where(&bundle, SETUP).failed();
        assert!(message.contains(expected), "{message}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
}
