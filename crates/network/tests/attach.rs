//! Pods on the built-in network, in network namespaces that the test makes.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use common::{Host, Pod};
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
