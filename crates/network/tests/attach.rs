//! Pods on the built-in network, in network namespaces that the test makes.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{Host, Pod};
use network::{PortMapping, Protocol};
use serde_json::json;

/// Listens at `port` inside the pod and answers each connection with `answer`.
fn serve(pod: &Pod, address: &str, answer: &'static str) {
    let listener = pod.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(answer.as_bytes());
        }
    });
}

/// The same for UDP: answers each packet with `answer`.
fn serve_udp(pod: &Pod, address: &str, answer: &'static str) {
    let socket = pod.run(|| UdpSocket::bind(address).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(answer.as_bytes(), from);
        }
    });
}

fn ask_udp(socket: &UdpSocket, to: SocketAddr) -> std::io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_millis(1500)))?;
    socket.send_to(b"?", to)?;
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn port(protocol: Protocol, host_port: u16, container_port: u16, host_ip: Option<&str>) -> PortMapping {
    let host_ip = host_ip.map(|ip| ip.parse().unwrap());
    PortMapping { host_port, container_port, protocol, host_ip }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    ask_within(address, Duration::from_secs(3))
}

/// Nobody answers there. What does answer, does so at once: a second is long enough to wait.
fn silent(address: SocketAddr) -> bool {
    ask_within(address, Duration::from_secs(1)).is_err()
}

fn ask_within(address: SocketAddr, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn pods_reach_each_other_and_the_host_in_both_families() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24", "fd00:89::/64"]}));
    let networks = host.networks();
    let (one, two) = (Pod::new("one"), Pod::new("two"));
    let a = host.run(|| networks.attach(&one.network())).unwrap();
    let b = host.run(|| networks.attach(&two.network())).unwrap();
    assert_eq!(a.ips, ["10.89.0.2".parse::<IpAddr>().unwrap(), "fd00:89::2".parse().unwrap()]);
    assert_eq!(b.ips, ["10.89.0.3".parse::<IpAddr>().unwrap(), "fd00:89::3".parse().unwrap()]);
    serve(&two, "[::]:8080", "two");
    for ip in &b.ips {
        assert_eq!(one.run(|| ask(SocketAddr::new(*ip, 8080))).unwrap(), "two");
        assert_eq!(host.run(|| ask(SocketAddr::new(*ip, 8080))).unwrap(), "two");
    }
    let stats = network::InterfaceMeter::open(two.netns.as_fd()).unwrap().read().unwrap();
    assert!(stats.len() == 1 && stats[0].name == "eth0" && stats[0].rx_bytes > 0 && stats[0].tx_packets > 0);
    host.run(|| networks.check("two", &two.netns())).unwrap();
    host.run(|| networks.detach("two", Some(&two.netns()))).unwrap();
    assert!(network::InterfaceMeter::open(two.netns.as_fd()).unwrap().read().unwrap().is_empty());
    host.run(|| networks.detach("two", None)).unwrap();
    assert_eq!(networks.owed().len(), 1);
    assert!(one.run(|| silent(SocketAddr::new(b.ips[0], 8080))));
}

#[test]
fn host_ports_lead_to_the_pod_from_everywhere() {
    let Some(host) = Host::new() else { return };
    let Some(neighbour) = host
        .neighbour(&["192.0.2.1/24", "192.0.2.7/24", "2001:db8::1/64"], &["192.0.2.2/24", "2001:db8::2/64"])
    else {
        return;
    };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24", "fd00:89::/64"]}));
    let networks = host.networks();
    let (server, client) = (Pod::new("server"), Pod::new("client"));
    let mut request = server.network();
    request.port_mappings = vec![
        port(Protocol::Tcp, 8080, 80, None),
        port(Protocol::Tcp, 8081, 80, Some("192.0.2.7")),
        port(Protocol::Tcp, 8082, 80, Some("127.0.0.1")),
        port(Protocol::Udp, 8080, 53, None),
        port(Protocol::Tcp, 0, 99, None),
    ];
    host.run(|| networks.attach(&request)).unwrap();
    host.run(|| networks.attach(&client.network())).unwrap();
    serve(&server, "[::]:80", "server");
    serve_udp(&server, "[::]:53", "udp");
    let from_pod = |pod: &Pod, to| pod.run(|| ask(to));
    // From the host itself, also by its loopback.
    for ip in ["127.0.0.1", "192.0.2.1", "192.0.2.7", "2001:db8::1", "10.89.0.1"] {
        assert_eq!(host.run(|| ask(at(ip, 8080))).unwrap(), "server", "{ip}");
    }
    assert!(host.run(|| silent(at("::1", 8080))));
    // From another machine.
    for ip in ["192.0.2.1", "192.0.2.7", "2001:db8::1"] {
        assert_eq!(common::inside(neighbour.as_fd(), || ask(at(ip, 8080))).unwrap(), "server", "{ip}");
    }
    // From another pod, and from the pod itself.
    for pod in [&client, &server] {
        for ip in ["192.0.2.1", "10.89.0.1", "2001:db8::1", "fd00:89::1"] {
            assert_eq!(from_pod(pod, at(ip, 8080)).unwrap(), "server", "{} {ip}", pod.id);
        }
    }
    // Only by the address it is limited to.
    assert_eq!(common::inside(neighbour.as_fd(), || ask(at("192.0.2.7", 8081))).unwrap(), "server");
    assert!(common::inside(neighbour.as_fd(), || silent(at("192.0.2.1", 8081))));
    assert_eq!(host.run(|| ask(at("127.0.0.1", 8082))).unwrap(), "server");
    assert!(common::inside(neighbour.as_fd(), || silent(at("192.0.2.1", 8082))));
    // UDP, to the host and by its loopback.
    let udp = |to| UdpSocket::bind("0.0.0.0:0").and_then(|socket| ask_udp(&socket, to));
    assert_eq!(common::inside(neighbour.as_fd(), || udp(at("192.0.2.1", 8080))).unwrap(), "udp");
    assert_eq!(host.run(|| udp(at("127.0.0.1", 8080))).unwrap(), "udp");
    // A port of another machine is not captured (CVE-2025-67499).
    let elsewhere = common::inside(neighbour.as_fd(), || TcpListener::bind("192.0.2.2:8080").unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = elsewhere.accept() {
            let _ = stream.write_all(b"elsewhere");
        }
    });
    assert_eq!(from_pod(&client, at("192.0.2.2", 8080)).unwrap(), "elsewhere");
    assert_eq!(host.run(|| ask(at("192.0.2.2", 8080))).unwrap(), "elsewhere");
    // After the pod nothing is left.
    host.run(|| networks.detach("server", None)).unwrap();
    assert!(common::inside(neighbour.as_fd(), || silent(at("192.0.2.1", 8080))));
    host.run(|| networks.remove_network("test")).unwrap();
    let rules = host.run(|| common::command("nft", &["list", "ruleset"]));
    assert!(rules.is_none_or(|rules| rules.trim().is_empty()));
}

#[test]
fn a_pod_cannot_reach_what_listens_on_the_hosts_loopback() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}));
    let networks = host.networks();
    let pod = Pod::new("pod");
    let mut request = pod.network();
    request.port_mappings = vec![port(Protocol::Tcp, 8080, 80, None)];
    host.run(|| networks.attach(&request)).unwrap();
    let listener = host.run(|| TcpListener::bind("127.0.0.1:6443").unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"secret");
        }
    });
    assert_eq!(host.run(|| ask(at("127.0.0.1", 6443))).unwrap(), "secret");
    // The pod sends packets for 127.0.0.1 out of its interface.
    let routed = pod.run(|| {
        common::command("ip", &["address", "flush", "dev", "lo"]);
        common::command(
            "sysctl",
            &["-qw", "net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.eth0.route_localnet=1"],
        );
        common::command("ip", &["route", "add", "127.0.0.1/32", "via", "10.89.0.1", "src", "10.89.0.2"])
    });
    if routed.as_deref() != Some("") {
        println!("SKIPPED: no `ip` to make the pod hostile: {routed:?}");
        return;
    }
    assert!(pod.run(|| silent(at("127.0.0.1", 6443))));
}

#[test]
fn many_pods_at_once_get_addresses_of_their_own() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24", "fd00:89::/64"]}));
    let networks = host.networks();
    let pods: Vec<Pod> = (0..24).map(|n| Pod::new(&format!("pod{n}"))).collect();
    let attach = |(n, pod): (usize, &Pod)| {
        let mut request = pod.network();
        request.port_mappings = vec![port(Protocol::Tcp, 9000 + n as u16, 80, None)];
        host.run(|| networks.attach(&request)).unwrap().ips
    };
    let all = || -> Vec<Vec<IpAddr>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                pods.iter().enumerate().map(|entry| scope.spawn(move || attach(entry))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    let first = all();
    let different: std::collections::HashSet<&IpAddr> = first.iter().flatten().collect();
    assert_eq!(different.len(), 48);
    // Attaching again gives what each has.
    assert_eq!(first, all());
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| host.run(|| networks.detach(&pod.id, None)).unwrap());
        }
    });
    assert!(networks.owed().is_empty());
    let left = std::fs::read_dir(host.path("state/networks/test/addresses")).unwrap().count();
    assert_eq!(left, 0);
    let rules = host.run(|| common::command("nft", &["list", "ruleset"]));
    assert!(rules.is_none_or(|rules| !rules.contains("90")), "a host port is left");
}

#[test]
fn an_attach_that_died_half_way_is_made_good() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}));
    let pod = Pod::new("pod");
    let mut request = pod.network();
    request.port_mappings = vec![port(Protocol::Tcp, 8080, 80, None)];
    let networks = host.networks();
    let first = host.run(|| networks.attach(&request)).unwrap();
    // The record says that ADD was begun: as if the daemon was killed just before it wrote the result.
    let record = host.path("state/attachments/pod.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"attached\"", "\"attaching\"")).unwrap();
    let networks = host.networks();
    let again = host.run(|| networks.attach(&request)).unwrap();
    assert_eq!(again.ips.len(), first.ips.len());
    serve(&pod, "0.0.0.0:80", "pod");
    assert_eq!(host.run(|| ask(at("127.0.0.1", 8080))).unwrap(), "pod");
    // Killed between a DEL and the removal of the record; then the garbage collection finds it.
    std::fs::write(&record, text.replace("\"attached\"", "\"detaching\"")).unwrap();
    let report = host.run(|| networks.gc_where(|_| false));
    assert_eq!(report.detached, ["pod"]);
    assert!(host.run(|| silent(at("127.0.0.1", 8080))));
}

#[test]
fn two_pods_cannot_have_one_host_port_and_a_stale_one_is_taken_over() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}));
    let networks = host.networks();
    let (one, two) = (Pod::new("one"), Pod::new("two"));
    let with_port = |pod: &Pod| {
        let mut request = pod.network();
        request.port_mappings = vec![port(Protocol::Tcp, 8080, 80, None)];
        request
    };
    host.run(|| networks.attach(&with_port(&one))).unwrap();
    let error = host.run(|| networks.attach(&with_port(&two))).unwrap_err().to_string();
    assert!(error.contains("host port 8080/tcp is taken by one"), "{error}");
    serve(&one, "0.0.0.0:80", "one");
    assert_eq!(host.run(|| ask(at("127.0.0.1", 8080))).unwrap(), "one");
    // Its state is lost, its rule is not: the next pod gets the port.
    std::fs::remove_dir_all(host.path("state/networks/test")).unwrap();
    std::fs::remove_file(host.path("state/attachments/one.json")).unwrap();
    drop(one);
    let mut request = with_port(&two);
    request.ips = vec!["10.89.0.9/24".parse().unwrap()];
    host.run(|| networks.attach(&request)).unwrap();
    serve(&two, "0.0.0.0:80", "two");
    assert_eq!(host.run(|| ask(at("10.89.0.9", 80))).unwrap(), "two");
    assert_eq!(host.run(|| ask(at("127.0.0.1", 8080))).unwrap(), "two");
}

#[test]
fn flushed_rules_come_back_with_the_next_status() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}));
    let networks = host.networks();
    let pod = Pod::new("pod");
    let mut request = pod.network();
    request.port_mappings = vec![port(Protocol::Tcp, 8080, 80, None)];
    host.run(|| networks.attach(&request)).unwrap();
    serve(&pod, "0.0.0.0:80", "pod");
    if host.run(|| common::command("nft", &["flush", "ruleset"])).as_deref() != Some("") {
        println!("SKIPPED: no `nft` to flush the rules with");
        return;
    }
    assert!(host.run(|| silent(at("127.0.0.1", 8080))));
    assert!(host.run(|| networks.check("pod", &pod.netns())).is_err());
    host.run(|| networks.status()).unwrap();
    assert_eq!(host.run(|| ask(at("127.0.0.1", 8080))).unwrap(), "pod");
    host.run(|| networks.check("pod", &pod.netns())).unwrap();
}

#[test]
fn a_udp_client_that_never_pauses_reaches_the_next_pod() {
    let Some(host) = Host::new() else { return };
    let Some(neighbour) = host.neighbour(&["192.0.2.1/24"], &["192.0.2.2/24"]) else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}));
    let networks = host.networks();
    let client = common::inside(neighbour.as_fd(), || UdpSocket::bind("0.0.0.0:5000").unwrap());
    let mut pods = Vec::new();
    for name in ["first", "second"] {
        let pod = Pod::new(name);
        let mut request = pod.network();
        request.port_mappings = vec![port(Protocol::Udp, 5353, 53, None)];
        // The flow exists before the port does.
        let _ = ask_udp(&client, at("192.0.2.1", 5353));
        host.run(|| networks.attach(&request)).unwrap();
        serve_udp(&pod, "0.0.0.0:53", name);
        assert_eq!(ask_udp(&client, at("192.0.2.1", 5353)).unwrap(), name);
        host.run(|| networks.detach(name, None)).unwrap();
        pods.push(pod);
    }
}

#[test]
fn limits_hold_in_both_directions_and_leave_nothing_behind() {
    let Some(host) = Host::new() else { return };
    host.configure(json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"]}));
    let networks = host.networks();
    let pod = Pod::new("pod");
    let mut request = pod.network();
    // 1 MB/s either way, 128 KiB at once.
    let (rate, burst) = (8_000_000, 1 << 20);
    request.bandwidth = Some(network::Bandwidth {
        ingress_rate: rate,
        ingress_burst: burst,
        egress_rate: rate,
        egress_burst: burst,
    });
    let ip = host.run(|| networks.attach(&request)).unwrap().ips[0];
    let (in_pod, on_host) = (
        pod.run(|| TcpListener::bind("0.0.0.0:7000").unwrap()),
        host.run(|| TcpListener::bind("10.89.0.1:7000").unwrap()),
    );
    let transfer = |listener: TcpListener, connect: &dyn Fn() -> TcpStream| {
        let begin = std::time::Instant::now();
        let mut sender = connect();
        let writer = std::thread::spawn(move || sender.write_all(&[0; 1_200_000]));
        let mut received = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(received.len(), 1_200_000);
        begin.elapsed()
    };
    let into = transfer(in_pod, &|| host.run(|| TcpStream::connect(SocketAddr::new(ip, 7000)).unwrap()));
    let out = transfer(on_host, &|| pod.run(|| TcpStream::connect("10.89.0.1:7000").unwrap()));
    for elapsed in [into, out] {
        assert!(elapsed > Duration::from_millis(900) && elapsed < Duration::from_secs(9), "{into:?} {out:?}");
    }
    host.run(|| networks.detach("pod", Some(&pod.netns()))).unwrap();
    let links = network::InterfaceMeter::open(host.netns.as_fd()).unwrap().read().unwrap();
    assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["pt0"]);
}

#[test]
fn pods_follow_the_uplinks_mtu_or_what_is_configured() {
    let Some(host) = Host::new() else { return };
    let Some(_neighbour) = host.neighbour(&["192.0.2.1/24"], &["192.0.2.2/24"]) else { return };
    host.run(|| {
        common::command("ip", &["link", "set", "up0", "mtu", "1400"]);
        common::command("ip", &["route", "add", "default", "via", "192.0.2.2"]);
    });
    let mtu = |pod: &Pod| pod.run(|| common::command("ip", &["-o", "link", "show", "eth0"]).unwrap());
    let networks = host.networks();
    let plugin = |mtu: serde_json::Value| json!({"type": "pintle", "bridge": "pt0", "subnets": ["10.89.0.0/24"], "mtu": mtu});
    host.configure(plugin(json!(null)));
    for id in ["one", "two"] {
        let pod = Pod::new(id);
        host.run(|| networks.attach(&pod.network())).unwrap();
        assert!(mtu(&pod).contains("mtu 1400"), "{}", mtu(&pod));
        // With its last port gone a bridge would fall back to 1500.
        host.run(|| networks.detach(id, Some(&pod.netns()))).unwrap();
    }
    host.configure(plugin(json!(1280)));
    let pod = Pod::new("three");
    host.run(|| networks.attach(&pod.network())).unwrap();
    assert!(mtu(&pod).contains("mtu 1280"), "{}", mtu(&pod));
}
