//! Chains of plugins that misbehave, and the CNI project's own plugins where they are present.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Host, Pod};
use network::{AttachError, DetachError, NotReady};
use serde_json::json;

impl Host {
    /// A plugin that is a shell script; it appends its command to `calls`.
    fn script(&self, name: &str, body: &str) {
        let path = self.path("bin").join(name);
        let calls = self.path("calls");
        let text = format!("#!/bin/sh\necho \"{name} $CNI_COMMAND\" >> {}\n{body}\n", calls.display());
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

const GOOD: &str = r#"cat > /dev/null
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.0.2/24","interface":0}]}'
exit 0"#;

fn message(result: Result<network::Attached, AttachError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn bad_answers_are_told_apart_and_undone() {
    let Some(host) = Host::new() else { return };
    host.write_list("1.0.0", json!([{"type": "first"}, {"type": "second"}]));
    host.script("first", GOOD);
    let networks = host.networks();
    let pod = Pod::new("pod");
    for (body, expected) in [
        ("[ $CNI_COMMAND = ADD ] || exit 0; echo 'not json'", "not a result"),
        ("[ $CNI_COMMAND = ADD ] || exit 0; echo '[1]'", "not an object"),
        (
            "[ $CNI_COMMAND = ADD ] || exit 0; echo '{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"x\"}]}'",
            "\"x\"",
        ),
        ("[ $CNI_COMMAND = ADD ] || exit 0; echo '{\"cniVersion\":\"9.9.9\"}'", "9.9.9"),
        ("[ $CNI_COMMAND = ADD ] || exit 0; echo '{\"cniVersion\":\"1.0.0\"}'", "no address on eth0"),
        (
            "[ $CNI_COMMAND = ADD ] || exit 0; echo '{\"code\":11,\"msg\":\"later\",\"details\":\"why\"}'; echo noise >&2; exit 1",
            "later: why (code 11); its standard error ends: noise",
        ),
        ("[ $CNI_COMMAND = ADD ] || exit 0; echo panic >&2; exit 2", "exit status: 2"),
        ("[ $CNI_COMMAND = ADD ] || exit 0; exec yes", "more than 1048576 bytes"),
    ] {
        host.script("second", body);
        let error = message(networks.attach(&pod.network()));
        assert!(error.contains(expected) && error.contains("pod pod, network test"), "{error}");
        assert!(networks.owed().is_empty(), "{error}");
        let calls = host.calls();
        assert_eq!(calls[calls.len() - 4..], ["first ADD", "second ADD", "second DEL", "first DEL"]);
    }
}

#[test]
fn a_hanging_plugin_is_killed_with_its_children() {
    let Some(host) = Host::new() else { return };
    host.write_list("1.0.0", json!([{"type": "hang"}]));
    let child = host.path("child");
    let child_holds_output = format!(
        "[ $CNI_COMMAND = ADD ] || exit 0\nsh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 50' &\nwhile [ ! -e {0} ]; do :; done",
        child.display()
    );
    let child_is_gone = || {
        let pid = std::fs::read_to_string(&child).unwrap();
        std::fs::remove_file(&child).unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(" Z ") || stat.contains(" X "), "{stat}");
    };
    host.script("hang", &format!("{child_holds_output}\nsleep 60"));
    let mut config = host.config();
    config.plugin_deadline = Duration::from_millis(700);
    let networks = network::Networks::new(config).unwrap();
    let begin = Instant::now();
    let error = message(networks.attach(&Pod::new("pod").network()));
    assert!(error.contains("hang was killed because ADD took more than 0.7 s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(8));
    std::thread::sleep(Duration::from_millis(100));
    child_is_gone();
    // A child left behind that holds the output open is not waited for, and does not live on.
    host.script("hang", &format!("{child_holds_output}\n{GOOD}"));
    let begin = Instant::now();
    host.networks().attach(&Pod::new("pod").network()).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    std::thread::sleep(Duration::from_millis(100));
    child_is_gone();
}

#[test]
fn a_del_that_fails_stays_owed_over_restarts_and_configuration_changes() {
    let Some(host) = Host::new() else { return };
    host.write_list("1.0.0", json!([{"type": "first"}, {"type": "broken"}]));
    host.script("first", GOOD);
    let pod = Pod::new("pod");
    {
        let networks = host.networks();
        assert!(matches!(networks.status(), Err(NotReady::Plugin { .. })));
        let error = message(networks.attach(&pod.network()));
        assert!(error.contains("\"broken\" is not in") && !error.contains("still owed"), "{error}");
        assert!(networks.owed().is_empty() && host.calls().is_empty(), "nothing was begun");
        host.script("broken", "cat > /dev/null; echo no >&2; exit 1");
        let error = message(host.networks().attach(&pod.network()));
        assert!(error.contains("broken") && error.contains("still owed"), "{error}");
        assert_eq!(networks.owed().len(), 1);
    }
    // Another configuration, another daemon: DEL is still that of the old chain.
    host.script("other", GOOD);
    host.write_list("1.0.0", json!([{"type": "other"}]));
    let networks = host.networks();
    assert_eq!(networks.status().unwrap().plugins, ["other"]);
    assert!(matches!(networks.detach("pod", None), Err(DetachError::Plugins { .. })));
    host.script("broken", "cat > $(dirname $0)/../input; exit 0");
    networks.detach("pod", None).unwrap();
    assert!(networks.owed().is_empty());
    let calls = host.calls();
    assert_eq!(calls[calls.len() - 2..], ["broken DEL", "first DEL"]);
    networks.detach("pod", None).unwrap();
    assert_eq!(host.calls().len(), calls.len());
}

#[test]
fn plugins_are_told_what_they_asked_for() {
    let Some(host) = Host::new() else { return };
    let capabilities = json!({"portMappings": true, "bandwidth": true, "dns": true, "mac": false, "cgroupPath": true,
        "io.kubernetes.cri.pod-annotations": true, "ips": true});
    host.write_list(
        "1.1.0",
        json!([{"type": "first", "capabilities": capabilities, "own": 5}, {"type": "second"}]),
    );
    host.script(
        "first",
        &format!("cat > $(dirname $0)/../$CNI_COMMAND.first; env > $(dirname $0)/../env\n{GOOD}"),
    );
    host.script("second", &format!("cat > $(dirname $0)/../$CNI_COMMAND.second\n{GOOD}"));
    let networks = host.networks();
    networks.status().unwrap();
    let pod = Pod::new("pod");
    let mut request = pod.network();
    request.port_mappings = vec![network::PortMapping {
        host_port: 80,
        container_port: 8080,
        protocol: network::Protocol::Udp,
        host_ip: Some("192.0.2.1".parse().unwrap()),
    }];
    let limits = [("kubernetes.io/egress-bandwidth".to_string(), "10M".to_string())].into();
    request.bandwidth = network::Bandwidth::from_annotations(&limits).unwrap();
    request.annotations = limits;
    request.cgroup_path = "/kubepods/pod1".into();
    request.mac = Some("02:00:00:00:00:01".into());
    request.ips = vec!["10.1.0.2/24".parse().unwrap()];
    let attached = networks.attach(&request).unwrap();
    assert_eq!(attached.ips, ["10.1.0.2".parse::<std::net::IpAddr>().unwrap()]);
    networks.check("pod", &pod.netns()).unwrap();
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(host.path(name)).unwrap()).unwrap()
    };
    let first = read("ADD.first");
    assert_eq!(
        first["runtimeConfig"],
        json!({
            "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "udp", "hostIP": "192.0.2.1"}],
            "bandwidth": {"egressRate": 10_000_000, "egressBurst": 1 << 20},
            "cgroupPath": "/kubepods/pod1",
            "io.kubernetes.cri.pod-annotations": {"kubernetes.io/egress-bandwidth": "10M"},
            "ips": ["10.1.0.2/24"],
        })
    );
    assert!(first["own"] == 5 && first["name"] == "test" && first["cniVersion"] == "1.1.0");
    assert!(first.get("prevResult").is_none() && first.get("capabilities").is_none());
    let second = read("ADD.second");
    assert!(second.get("runtimeConfig").is_none());
    assert_eq!(second["prevResult"]["ips"][0]["address"], "10.1.0.2/24");
    assert_eq!(second["prevResult"]["cniVersion"], "1.1.0");
    let environment = std::fs::read_to_string(host.path("env")).unwrap();
    assert!(environment.contains(
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=pod-name;K8S_POD_INFRA_CONTAINER_ID=pod;K8S_POD_UID=pod-uid"
    ));
    for line in environment.lines() {
        let name = line.split('=').next().unwrap();
        assert!(
            name.starts_with("CNI_") || ["PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name),
            "{line}"
        );
    }
    let report = networks.gc(["pod"]);
    assert!(
        report.detached.is_empty() && report.failed.is_empty() && report.plugins.is_empty(),
        "{report:?}"
    );
    assert_eq!(
        read("GC.second")["cni.dev/valid-attachments"],
        json!([{"containerID": "pod", "ifname": "eth0"}])
    );
    assert_eq!(networks.gc_where(|_| false).detached, ["pod"]);
    assert_eq!(read("DEL.second")["prevResult"]["ips"][0]["address"], "10.1.0.2/24");
    let commands = [
        "first STATUS",
        "second STATUS",
        "first ADD",
        "second ADD",
        "first CHECK",
        "second CHECK",
        "first GC",
        "second GC",
        "second DEL",
        "first DEL",
        "first GC",
        "second GC",
    ];
    assert_eq!(host.calls(), commands);
}

#[test]
fn nothing_odd_gets_into_arguments() {
    let Some(host) = Host::new() else { return };
    host.write_list("1.0.0", json!([{"type": "first"}]));
    host.script("first", GOOD);
    let networks = host.networks();
    let pod = Pod::new("pod");
    let mut request = pod.network();
    request.name = "x;CNI=1".into();
    assert!(matches!(networks.attach(&request), Err(AttachError::BadField { field: "name", .. })));
    for id in ["", "../x", "a/b", ".x"] {
        let mut request = pod.network();
        request.pod_id = id.into();
        assert!(matches!(networks.attach(&request), Err(AttachError::BadField { field: "pod id", .. })));
        assert!(matches!(networks.detach(id, None), Err(DetachError::BadId(_))));
    }
    assert!(host.calls().is_empty());
}

#[test]
fn the_directory_is_followed_without_being_watched() {
    let Some(host) = Host::new() else { return };
    std::fs::remove_dir(host.path("conf")).unwrap();
    let networks = host.networks();
    let none = networks.status().unwrap_err().to_string();
    assert!(none.contains("no network configuration in") && none.contains("pintle network init"), "{none}");
    std::fs::create_dir(host.path("conf")).unwrap();
    std::fs::write(host.path("conf/00-bad.conf"), "{").unwrap();
    assert!(networks.status().unwrap_err().to_string().contains("00-bad.conf is skipped: it is not JSON"));
    host.configure(json!({"type": "pintle", "bridge": "pt0"}));
    assert!(matches!(networks.status(), Err(NotReady::NoPodCidr { .. })));
    networks.pod_cidr("10.5.1.0/24,fd05::/64").unwrap();
    assert_eq!(host.run(|| networks.status()).unwrap().network, "test");
    assert!(networks.pod_cidr("nonsense").is_err());
    let pod = Pod::new("pod");
    let attached = host.run(|| host.networks().attach(&pod.network())).unwrap();
    assert_eq!(attached.ips[0].to_string(), "10.5.1.2");
    // Renamed away and made anew, as configuration managers do.
    std::fs::rename(host.path("conf"), host.path("old")).unwrap();
    assert!(matches!(networks.status(), Err(NotReady::NoConfiguration { .. })));
    std::fs::rename(host.path("old"), host.path("conf")).unwrap();
    assert_eq!(host.run(|| networks.status()).unwrap().network, "test");
    host.run(|| networks.detach("pod", None)).unwrap();
}

#[test]
fn the_projects_own_plugins_make_a_network() {
    let folder = PathBuf::from(std::env::var("PINTLE_CNI_PLUGINS").unwrap_or("/opt/cni/bin".into()));
    if ["bridge", "host-local", "portmap"].iter().any(|name| !folder.join(name).is_file()) {
        println!("SKIPPED: no CNI plugins in {}; set PINTLE_CNI_PLUGINS", folder.display());
        return;
    }
    let Some(host) = Host::new() else { return };
    let ipam = json!({"type": "host-local", "dataDir": host.path("ipam"),
        "ranges": [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd77::/64"}]], "routes": [{"dst": "0.0.0.0/0"}]});
    host.write_list("1.0.0", json!([
        {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", "ipam": ipam},
        {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
    ]));
    let mut config = host.config();
    config.bin_dirs = vec![folder];
    config.plugin_deadline = Duration::from_secs(8);
    let networks = network::Networks::new(config).unwrap();
    let pod = Pod::new("pod");
    host.run(|| networks.status()).unwrap();
    let attached = host.run(|| networks.attach(&pod.network())).unwrap();
    let ips: Vec<String> = attached.ips.iter().map(|ip| ip.to_string()).collect();
    assert_eq!(ips, ["10.77.0.2", "fd77::2"]);
    assert!(
        attached.interfaces.iter().any(|interface| interface.name == "eth0" && !interface.sandbox.is_empty())
    );
    host.run(|| networks.check("pod", &pod.netns())).unwrap();
    host.run(|| networks.detach("pod", Some(&pod.netns()))).unwrap();
    assert!(!common::exists(&host.path("ipam/test/10.77.0.2")));
    assert!(networks.owed().is_empty());
}

/// The built-in plugin as a program; cargo builds it with the tests.
fn plugin_program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.ancestors().nth(2).unwrap().join("examples/cni_plugin")
}

#[test]
fn the_built_in_plugin_serves_the_command_line() {
    if !plugin_program().is_file() {
        println!("SKIPPED: {} is not built; run all tests of the crate", plugin_program().display());
        return;
    }
    let Some(host) = Host::new() else { return };
    // Under another name the plugin is run as a program, as other runtimes do.
    std::os::unix::fs::symlink(plugin_program(), host.path("bin/as-program")).unwrap();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        host.write_list(
            version,
            json!([{"type": "as-program", "bridge": "pt0", "subnets": ["10.89.0.0/24"],
            "stateDir": host.path("plugin"), "capabilities": {"portMappings": true}}]),
        );
        let networks = host.networks();
        let pod = Pod::new("pod");
        let mut request = pod.network();
        request.port_mappings = vec![network::PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: network::Protocol::Tcp,
            host_ip: None,
        }];
        host.run(|| {
            networks.status().unwrap();
            let attached = networks.attach(&request).unwrap();
            assert_eq!(attached.result["cniVersion"], version);
            assert!(attached.ips[0].to_string().starts_with("10.89.0."));
            networks.check("pod", &pod.netns()).unwrap();
            assert!(networks.gc(["pod"]).plugins.is_empty());
            networks.check("pod", &pod.netns()).unwrap();
            networks.detach("pod", Some(&pod.netns())).unwrap();
        });
        use std::os::fd::AsFd;
        assert!(network::InterfaceMeter::open(pod.netns.as_fd()).unwrap().read().unwrap().is_empty());
        assert_eq!(std::fs::read_dir(host.path("plugin/networks/test/addresses")).unwrap().count(), 0);
    }
}

#[test]
fn a_list_is_run_in_the_newest_version_that_all_its_plugins_speak() {
    let Some(host) = Host::new() else { return };
    let write = |versions: serde_json::Value| {
        let list = json!({"cniVersion": "0.4.0", "cniVersions": versions, "name": "test",
            "plugins": [{"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}, {"type": "old"}]});
        std::fs::write(host.path("conf/10-test.conflist"), list.to_string()).unwrap();
    };
    host.script(
        "old",
        "cat > $(dirname $0)/../input
case $CNI_COMMAND in
VERSION) echo '{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\",\"3.0.0\"]}';;
ADD) cp $(dirname $0)/../input $(dirname $0)/../add;;
esac",
    );
    let networks = host.networks();
    let pod = Pod::new("pod");
    for (versions, expected) in [(json!(["1.0.0", "1.1.0", "9.0.0"]), "1.0.0"), (json!(["1.1.0"]), "0.4.0")] {
        write(versions);
        // A plugin that prints nothing passes on what the one before returned.
        let attached = host.run(|| networks.attach(&pod.network())).unwrap();
        assert_eq!(attached.result["cniVersion"], expected);
        let add: serde_json::Value =
            serde_json::from_slice(&std::fs::read(host.path("add")).unwrap()).unwrap();
        assert_eq!(add["cniVersion"], expected);
        host.run(|| networks.detach("pod", Some(&pod.netns()))).unwrap();
    }
}

#[test]
fn a_plugin_killed_at_any_moment_leaves_nothing_that_a_retry_cannot_take() {
    if !plugin_program().is_file() {
        println!("SKIPPED: {} is not built; run all tests of the crate", plugin_program().display());
        return;
    }
    let Some(host) = Host::new() else { return };
    let config = json!({"cniVersion": "1.0.0", "name": "test", "type": "pintle", "bridge": "pt0",
        "subnets": ["10.89.0.0/28", "fd00:89::/64"], "stateDir": host.path("plugin"), "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}})
    .to_string();
    let call = |command: &str, pod: &Pod, kill_after: Option<Duration>| {
        let mut program = std::process::Command::new(plugin_program());
        program
            .env_clear()
            .envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", &pod.id),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/"),
            ])
            .env("CNI_NETNS", pod.netns().path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        host.run(|| {
            let mut child = program.spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.as_bytes()).unwrap();
            if let Some(after) = kill_after {
                std::thread::sleep(after);
                child.kill().unwrap();
            }
            let output = child.wait_with_output().unwrap();
            (output.status.success(), String::from_utf8(output.stdout).unwrap())
        })
    };
    let mut interrupted = 0;
    for round in 0..30 {
        let pod = Pod::new(&format!("pod{round}"));
        let moment = Some(Duration::from_micros(150 * round));
        interrupted += u32::from(!call("ADD", &pod, moment).0);
        let (good, text) = call("ADD", &pod, None);
        assert!(good, "round {round}: {text}");
        call("DEL", &pod, moment);
        let (good, text) = call("DEL", &pod, None);
        assert!(good, "round {round}: {text}");
    }
    assert!(interrupted > 0);
    for inner in ["addresses", "attachments"] {
        let left = std::fs::read_dir(host.path("plugin/networks/test").join(inner)).unwrap();
        // A file that was being written is hidden and harmless.
        let left: Vec<_> =
            left.map(|e| e.unwrap().file_name()).filter(|n| !n.to_string_lossy().starts_with('.')).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    use std::os::fd::AsFd;
    let links = network::InterfaceMeter::open(host.netns.as_fd()).unwrap().read().unwrap();
    assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["pt0"]);
    let rules = host.run(|| common::command("nft", &["list", "ruleset"]));
    assert!(rules.is_none_or(|rules| rules.contains("host_ports") && !rules.contains("8080")));
}
