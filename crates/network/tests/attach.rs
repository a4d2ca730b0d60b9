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
    socket.set_read_timeout(Some(Duration::from_millis(700)))?;
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
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
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
    let stats = network::interface_stats(two.netns.as_fd()).unwrap();
    assert!(stats.len() == 1 && stats[0].name == "eth0" && stats[0].rx_bytes > 0 && stats[0].tx_packets > 0);
    host.run(|| networks.check("two", &two.netns())).unwrap();
    host.run(|| networks.detach("two", Some(&two.netns()))).unwrap();
    assert!(network::interface_stats(two.netns.as_fd()).unwrap().is_empty());
    host.run(|| networks.detach("two", None)).unwrap();
    assert_eq!(networks.owed().len(), 1);
    assert!(one.run(|| ask(SocketAddr::new(b.ips[0], 8080))).is_err());
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
    assert!(host.run(|| ask(at("::1", 8080))).is_err());
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
    assert!(common::inside(neighbour.as_fd(), || ask(at("192.0.2.1", 8081))).is_err());
    assert_eq!(host.run(|| ask(at("127.0.0.1", 8082))).unwrap(), "server");
    assert!(common::inside(neighbour.as_fd(), || ask(at("192.0.2.1", 8082))).is_err());
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
    assert!(common::inside(neighbour.as_fd(), || ask(at("192.0.2.1", 8080))).is_err());
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
    assert!(pod.run(|| ask(at("127.0.0.1", 6443))).is_err());
}
