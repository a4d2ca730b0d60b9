//! The built-in plugin as others call it: a program, alone and at the head of a list of the CNI project's plugins.

mod common;

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Stdio;

use common::{Host, Pod};
use serde_json::{Value, json};

/// The built-in plugin as a program; cargo builds it with the tests.
fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/cni_plugin");
    if !program.is_file() {
        println!("SKIPPED: {} is not built; run all tests of the crate", program.display());
        return None;
    }
    Some(program)
}

struct Caller {
    host: Host,
    program: PathBuf,
    config: Value,
}

impl Caller {
    fn new() -> Option<Caller> {
        let program = program()?;
        let host = Host::new()?;
        let config = json!({"cniVersion": "1.1.0", "name": "test", "type": "pintle", "bridge": "pt0",
            "subnets": ["10.89.0.0/28", "fd00:89::/64"], "stateDir": host.path("plugin")});
        Some(Caller { host, program, config })
    }

    /// Calls the plugin as the specification has it: what it printed, as an error if it failed.
    fn call(&self, command: &str, pod: &Pod, extra: Value) -> Result<Value, Value> {
        self.call_with(command, &pod.id, &pod.netns().path.display().to_string(), extra)
    }

    fn call_with(&self, command: &str, id: &str, netns: &str, extra: Value) -> Result<Value, Value> {
        let mut config = self.config.clone();
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let mut program = std::process::Command::new(&self.program);
        program
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", "/")
            .env("PATH", "/usr/sbin:/usr/bin:/bin");
        if !["GC", "STATUS"].contains(&command) {
            program.env("CNI_CONTAINERID", id).env("CNI_IFNAME", "eth0").env("CNI_NETNS", netns);
        }
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        self.host.run(|| {
            let mut child = program.spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.to_string().as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            if output.status.success() { Ok(printed) } else { Err(printed) }
        })
    }
}

fn ip(pod: &Pod, arguments: &str) -> String {
    let words: Vec<_> = arguments.split(' ').collect();
    common::inside(pod.netns.as_fd(), || common::command("ip", &words)).expect("the program ip")
}

#[test]
fn a_second_add_gives_what_the_first_gave() {
    let Some(caller) = Caller::new() else { return };
    let pod = Pod::new("pod");
    let first = caller.call("ADD", &pod, json!({})).unwrap();
    // A runtime must not do that; one that lost the answer to its first does, and gets the same again.
    let second = caller.call("ADD", &pod, json!({})).unwrap();
    assert_eq!(
        (&second["ips"], &second["routes"], &second["interfaces"]),
        (&first["ips"], &first["routes"], &first["interfaces"])
    );
    assert_eq!(ip(&pod, "-o address show dev eth0 scope global").lines().count(), 2);
    caller.call("CHECK", &pod, json!({"prevResult": first})).unwrap();
    caller.call("DEL", &pod, json!({"prevResult": first})).unwrap();
    assert_eq!(std::fs::read_dir(caller.host.path("plugin/networks/test/addresses")).unwrap().count(), 0);
}

#[test]
fn a_del_succeeds_without_an_add_twice_and_without_a_namespace() {
    let Some(caller) = Caller::new() else { return };
    let pod = Pod::new("pod");
    caller.call("DEL", &pod, json!({})).unwrap();
    caller.call("ADD", &pod, json!({})).unwrap();
    caller.call("DEL", &pod, json!({})).unwrap();
    caller.call("DEL", &pod, json!({})).unwrap();
    caller.call("ADD", &pod, json!({})).unwrap();
    caller.call_with("DEL", "pod", "/run/netns/that/is/gone", json!({})).unwrap();
    caller.call_with("DEL", "pod", "", json!({})).unwrap();
    assert_eq!(std::fs::read_dir(caller.host.path("plugin/networks/test/addresses")).unwrap().count(), 0);
}

#[test]
fn a_check_notices_what_was_tampered_with() {
    let Some(caller) = Caller::new() else { return };
    if common::command("ip", &["-V"]).is_none() {
        println!("SKIPPED: there is no program ip");
        return;
    }
    for tampering in [
        "address flush dev eth0 scope global",
        "-4 address flush dev eth0",
        "link set eth0 down",
        "link del eth0",
        "-4 route del default",
        "link set eth0 name eth5",
    ] {
        let pod = Pod::new("pod");
        let result = caller.call("ADD", &pod, json!({})).unwrap();
        caller.call("CHECK", &pod, json!({"prevResult": result})).unwrap();
        ip(&pod, if tampering.contains(" name ") { "link set eth0 down" } else { "link show" });
        ip(&pod, tampering);
        let error = caller.call("CHECK", &pod, json!({"prevResult": result}));
        assert!(error.is_err(), "{tampering} was not noticed");
        assert!(error.unwrap_err()["msg"].is_string());
        caller.call("DEL", &pod, json!({"prevResult": result})).unwrap();
    }
}

#[test]
fn gc_takes_what_is_not_named_and_status_says_whether_pods_can_come() {
    let Some(caller) = Caller::new() else { return };
    let (kept, lost) = (Pod::new("kept"), Pod::new("lost"));
    caller.call("STATUS", &kept, json!({})).unwrap();
    caller.call("ADD", &kept, json!({})).unwrap();
    caller.call("ADD", &lost, json!({})).unwrap();
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]});
    caller.call("GC", &kept, valid).unwrap();
    let left = std::fs::read_dir(caller.host.path("plugin/networks/test/addresses")).unwrap().count();
    assert_eq!(left, 2, "one address of each family");
    caller.call("DEL", &kept, json!({})).unwrap();
    // All addresses are given out: nobody else can come.
    let pods: Vec<Pod> = (0..20).map(|number| Pod::new(&format!("p{number}"))).collect();
    let refused = pods.iter().find_map(|pod| caller.call("ADD", pod, json!({})).err());
    assert!(refused.unwrap()["msg"].as_str().unwrap().contains("10.89.0.0/28"));
    pods.iter().for_each(|pod| drop(caller.call("DEL", pod, json!({})).unwrap()));
}

/// A plugin of the CNI project's, from Debian or from a release.
fn projects() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var("PINTLE_CNI_PLUGINS").unwrap_or("/opt/cni/bin".into()));
    let missing =
        ["portmap", "bandwidth", "tuning", "firewall"].iter().find(|name| !folder.join(name).is_file());
    if let Some(missing) = missing {
        println!("SKIPPED: no CNI plugin {missing} in {}; set PINTLE_CNI_PLUGINS", folder.display());
        return None;
    }
    Some(folder)
}

/// Runs a list of ours and one of the project's plugins behind it through a pod's life.
fn chain(next: Value, look: impl Fn(&Host, &Pod)) {
    let (Some(program), Some(folder)) = (program(), projects()) else { return };
    let Some(host) = Host::new() else { return };
    std::os::unix::fs::symlink(program, host.path("bin/as-program")).unwrap();
    host.write_list(
        "0.4.0",
        json!([{"type": "as-program", "bridge": "pt0", "subnets": ["10.89.0.0/24", "fd00:89::/64"],
            "stateDir": host.path("plugin")}, next]),
    );
    let mut config = host.config();
    config.bin_dirs.push(folder);
    let networks = network::Networks::new(config).unwrap();
    let pod = Pod::new("pod");
    let mut request = pod.network();
    request.port_mappings = vec![network::PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: network::Protocol::Tcp,
        host_ip: None,
    }];
    host.run(|| {
        let attached = networks.attach(&request).unwrap();
        assert_eq!(attached.ips.len(), 2);
        assert!(attached.interfaces.iter().any(|interface| interface.name == "eth0"));
    });
    look(&host, &pod);
    host.run(|| {
        let checked = networks.check("pod", &pod.netns());
        // Debian 12's portmap looks for the rules of IPv4 among those of IPv6.
        let of_portmap =
            |error: &dyn std::fmt::Display| error.to_string().contains("could not check ipv6 dnat");
        assert!(checked.as_ref().map_or_else(|error| of_portmap(error), |()| true), "{checked:?}");
        networks.detach("pod", Some(&pod.netns())).unwrap();
        assert!(networks.owed().is_empty());
    });
}

#[test]
fn portmap_takes_our_result() {
    if common::command("iptables", &["-V"]).is_none() {
        println!("SKIPPED: there is no program iptables");
        return;
    }
    chain(json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}), |host, _| {
        let rules = host.run(|| common::command("iptables-save", &[])).unwrap_or_default();
        assert!(rules.contains("10.89.0.") && rules.contains("8080"), "{rules}");
    });
}

#[test]
fn tuning_takes_our_result() {
    chain(
        json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}, "mtu": 1380}),
        |_, pod| {
            assert!(ip(pod, "link show dev eth0").contains("mtu 1380"));
        },
    );
}

#[test]
fn firewall_takes_our_result() {
    if common::command("iptables", &["-V"]).is_none() {
        println!("SKIPPED: there is no program iptables");
        return;
    }
    chain(json!({"type": "firewall", "backend": "iptables"}), |host, _| {
        let rules = host.run(|| common::command("iptables-save", &[])).unwrap_or_default();
        assert!(rules.contains("CNI-FORWARD") && rules.contains("10.89.0."), "{rules}");
    });
}

#[test]
fn bandwidth_takes_our_result() {
    let Some(host) = Host::new() else { return };
    let made = host.run(|| common::command("ip", &["link", "add", "ifb9", "type", "ifb"]));
    if made.as_deref() != Some("") {
        println!("SKIPPED: this kernel has no ifb devices, which the plugin bandwidth needs");
        return;
    }
    chain(json!({"type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 80_000}), |host, _| {
        let queues = host.run(|| common::command("tc", &["qdisc"])).unwrap_or_default();
        assert!(queues.contains("tbf"), "{queues}");
    });
}
