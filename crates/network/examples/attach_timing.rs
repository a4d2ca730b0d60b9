//! Measures what attaching a pod to the built-in network costs, in network namespaces of its own: `cargo run --release --example attach_timing`.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use network::{Netns, NetworkConfig, Networks, PodNetwork, PortMapping, Protocol};

const ROUNDS: usize = 60;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = sys::namespace::new_network()?;
    let folder = std::path::PathBuf::from(format!("/dev/shm/pintle-attach-timing-{}", std::process::id()));
    let conf = folder.join("conf");
    std::fs::create_dir_all(&conf)?;
    let list = r#"{"cniVersion":"1.1.0","name":"timing","plugins":[{"type":"pintle","bridge":"pt0","subnets":["10.89.0.0/16","fd00:89::/64"]}]}"#;
    std::fs::write(conf.join("10-timing.conflist"), list)?;
    let networks = Networks::new(NetworkConfig {
        conf_dir: conf,
        state_dir: folder.join("state"),
        root_dir: folder.join("root"),
        ..NetworkConfig::default()
    })?;
    let result = sys::namespace::in_network(host.as_fd(), || {
        for host_ports in [0, 3] {
            measure(&networks, host_ports).map_err(std::io::Error::other)?;
        }
        Ok(())
    });
    std::fs::remove_dir_all(&folder)?;
    Ok(result?)
}

fn measure(networks: &Networks, host_ports: u16) -> Result<(), String> {
    let (mut attach, mut detach, mut status) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let fd = sys::namespace::new_network().map_err(|error| error.to_string())?;
        let mut pod =
            PodNetwork::new(format!("pod-{host_ports}-{round}"), Netns { path: "/proc/1/ns/net".into(), fd });
        pod.port_mappings = (0..host_ports)
            .map(|port| PortMapping {
                host_port: 10_000 + port,
                container_port: port + 1,
                protocol: Protocol::Tcp,
                host_ip: None,
            })
            .collect();
        let begin = Instant::now();
        networks.attach(&pod).map_err(|error| error.to_string())?;
        attach.push(begin.elapsed());
        let begin = Instant::now();
        networks.status().map_err(|error| error.to_string())?;
        status.push(begin.elapsed());
        let begin = Instant::now();
        networks.detach(&pod.pod_id, None).map_err(|error| error.to_string())?;
        detach.push(begin.elapsed());
    }
    print!("{host_ports} host ports: ");
    for (name, mut times) in [("attach", attach), ("detach", detach), ("status", status)] {
        times.sort();
        let micros = |time: Duration| time.as_micros();
        print!(
            "{name} min {} median {} max {} µs; ",
            micros(times[0]),
            micros(times[times.len() / 2]),
            micros(times[times.len() - 1])
        );
    }
    println!();
    Ok(())
}
