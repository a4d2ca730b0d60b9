//! What pods share and what they do not: networks, ports, names, shared memory and processes.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use support::{Daemon, Setup, in_own_network};
use tonic::Code;

async fn address(daemon: &Daemon, pod: &str) -> IpAddr {
    addresses(daemon, pod).await[0]
}

async fn addresses(daemon: &Daemon, pod: &str) -> Vec<IpAddr> {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
    let status = daemon.runtime().pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    let network = status.network.unwrap();
    let more = network.additional_ips.iter().map(|ip| ip.ip.parse().unwrap());
    network.ip.parse().into_iter().chain(more).collect()
}

/// What a page server says, asked from the host.
fn fetch(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Fetches until the server is there.
async fn fetch_soon(to: SocketAddr) -> std::io::Result<String> {
    let begun = Instant::now();
    loop {
        match tokio::task::spawn_blocking(move || fetch(to)).await.unwrap() {
            Err(_) if begun.elapsed().as_secs() < 5 => tokio::time::sleep(Duration::from_millis(20)).await,
            other => return other,
        }
    }
}

fn page_server(says: &str) -> String {
    format!("mkdir /tmp/www; echo {says} > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www")
}

fn host_port(port: i32, ip: &str) -> v1::PortMapping {
    v1::PortMapping { host_port: port, container_port: 80, host_ip: ip.into(), ..Default::default() }
}

/// The interfaces of this thread's network namespace.
fn links() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

#[test]
fn pods_reach_each_other_and_the_host_reaches_their_ports() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let mut server = daemon.pod("server");
        server.port_mappings = vec![host_port(8080, ""), host_port(8081, "127.0.0.1")];
        let first = daemon.run_pod(&server).await.unwrap();
        let in_first = daemon.run(&first, &server, "web", &page_server("hello")).await;
        let client = daemon.pod("client");
        let second = daemon.run_pod(&client).await.unwrap();
        let in_second = daemon.run(&second, &client, "c", "sleep 1000").await;
        let (one, two) = (address(&daemon, &first).await, address(&daemon, &second).await);
        assert_ne!(one, two);
        fetch_soon((one, 80).into()).await.unwrap();
        let page = daemon.sh(&in_second, &format!("wget -q -O - http://{one}/")).await;
        assert_eq!(page, "hello\n");
        let gateway = daemon.sh(&in_second, "ip route | grep default | cut -d ' ' -f 3").await;
        let gateway: IpAddr = gateway.trim().parse().unwrap();
        // By the port of the host: from the host over loopback and its address on the bridge, from another pod, and from the pod itself.
        for to in [IpAddr::from([127, 0, 0, 1]), gateway] {
            let page = fetch_soon((to, 8080).into()).await.unwrap();
            assert!(page.contains("hello"), "{page}");
        }
        for from in [&in_second, &in_first] {
            assert_eq!(daemon.sh(from, &format!("wget -q -O - http://{gateway}:8080/")).await, "hello\n");
        }
        // A port that is bound to one address of the host is not reached by another.
        assert!(fetch_soon(([127, 0, 0, 1], 8081).into()).await.unwrap().contains("hello"));
        let other = tokio::task::spawn_blocking(move || fetch((gateway, 8081).into())).await.unwrap();
        other.unwrap_err();
        // The same port again is refused, naming it, and takes nothing away from who has it.
        let mut rival = daemon.pod("rival");
        rival.port_mappings = vec![host_port(8080, "")];
        let before = daemon.inventory().await;
        let refused = daemon.run_pod(&rival).await.unwrap_err();
        assert!(refused.message().contains("8080"), "{refused}");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert_eq!(daemon.changed_since(&before, "a taken port").await, None);
        assert!(fetch(([127, 0, 0, 1], 8080).into()).unwrap().contains("hello"));
        // A removed pod gives all back.
        daemon.remove_pod(&first).await.unwrap();
        fetch(([127, 0, 0, 1], 8080).into()).unwrap_err();
        let again = daemon.run_pod(&rival).await.unwrap();
        daemon.run(&again, &rival, "web", &page_server("again")).await;
        let page = fetch_soon(([127, 0, 0, 1], 8080).into()).await.unwrap();
        assert!(page.contains("again"), "{page}");
        daemon.empty().await;
        // The kernel takes a namespace down with its links after its last process has ended, in its own time.
        let begun = Instant::now();
        while links().iter().any(|link| link.contains("veth")) && begun.elapsed().as_secs() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(links().iter().filter(|link| link.contains("veth")).count(), 0, "{:?}", links());
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn two_families_and_few_addresses() {
    needs_a_node!();
    in_own_network(async {
        let network = network::default_configuration(&network::Defaults {
            name: "few".into(),
            bridge: "few0".into(),
            subnets: vec!["10.77.0.0/29".parse().unwrap(), "fd77::/64".parse().unwrap()],
            mtu: None,
        });
        let daemon = Daemon::start_as(Setup { network: Some(network), ..Setup::default() }).await;
        let mut pods = Vec::new();
        let refused = loop {
            let config = daemon.pod(&format!("p{}", pods.len()));
            match daemon.run_pod(&config).await {
                Ok(pod) => pods.push((pod, config)),
                Err(refused) => break refused,
            }
            assert!(pods.len() < 8);
        };
        // Network, gateway and broadcast are nobody's.
        assert_eq!(pods.len(), 5);
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("10.77.0.0/29"), "{refused}");
        let ((first, config), (second, other)) = (&pods[0], &pods[1]);
        let both = addresses(&daemon, first).await;
        assert!(both.len() == 2 && both[0].is_ipv4() && both[1].is_ipv6(), "{both:?}");
        daemon.run(first, config, "web", &page_server("six")).await;
        fetch_soon((both[0], 80).into()).await.unwrap();
        let client = daemon.run(second, other, "c", "sleep 1000").await;
        let page = daemon.sh(&client, &format!("wget -q -O - 'http://[{}]/'", both[1])).await;
        assert_eq!(page, "six\n");
        daemon.remove_pod(first).await.unwrap();
        let next = daemon.run_pod(&daemon.pod("next")).await.unwrap();
        assert_eq!(address(&daemon, &next).await, both[0], "the one that is free");
        daemon.empty().await;
    });
}

#[test]
fn readiness_follows_the_configuration() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start_as(Setup { network: Some(String::new()), ..Setup::default() }).await;
        let ready = async || {
            let status = daemon.runtime().status(v1::StatusRequest::default()).await.unwrap().into_inner();
            let conditions = status.status.unwrap().conditions;
            let of =
                |kind: &str| conditions.iter().find(|condition| condition.r#type == kind).unwrap().clone();
            assert!(of("RuntimeReady").status);
            of("NetworkReady")
        };
        let condition = ready().await;
        assert!(!condition.status && !condition.reason.is_empty());
        assert!(condition.message.contains("pintle network init"), "{condition:?}");
        assert!(condition.message.contains(&daemon.path("net.d").display().to_string()), "{condition:?}");
        let before = daemon.inventory().await;
        let refused = daemon.run_pod(&daemon.pod("a")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("pintle network init"), "{refused}");
        let _ = std::fs::remove_dir(daemon.path("logs"));
        assert_eq!(daemon.changed_since(&before, "no network").await, None);
        // A pod in the host's network needs none.
        let mut config = daemon.pod("host");
        set_namespaces(
            &mut config,
            v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() },
        );
        daemon.run_pod(&config).await.unwrap();
        let list = network::default_configuration(&network::Defaults::default());
        let file = daemon.path("net.d/10-pintle.conflist");
        std::fs::write(daemon.path("net.d/05-broken.conflist"), "{").unwrap();
        assert!(ready().await.message.contains("05-broken.conflist"));
        std::fs::write(&file, list).unwrap();
        assert!(ready().await.status);
        let pod = daemon.run_pod(&daemon.pod("a")).await.unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(!ready().await.status);
        // What was made with a configuration that is gone is undone all the same.
        daemon.remove_pod(&pod).await.unwrap();
        std::fs::remove_dir_all(daemon.path("net.d")).unwrap();
        assert!(!ready().await.status);
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

fn set_namespaces(config: &mut v1::PodSandboxConfig, options: v1::NamespaceOption) {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options = Some(options);
}

fn in_namespaces(mut asked: v1::ContainerConfig, options: &v1::NamespaceOption) -> v1::ContainerConfig {
    let linux = asked.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options = Some(options.clone());
    asked
}

#[test]
fn names_and_resolvers_are_as_asked() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let mut config = daemon.pod("named");
        config.hostname = "web-0".into();
        config.dns_config = Some(v1::DnsConfig {
            servers: vec!["10.96.0.10".into(), "fd00::10".into()],
            searches: vec!["shop.svc.cluster.local".into(), "cluster.local".into()],
            options: vec!["ndots:5".into()],
        });
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
        assert_eq!(
            daemon.sh(&id, "hostname; cat /etc/hostname; echo $HOSTNAME").await,
            "web-0\nweb-0\nweb-0\n"
        );
        let resolv = daemon.sh(&id, "cat /etc/resolv.conf").await;
        let expected = "search shop.svc.cluster.local cluster.local\nnameserver 10.96.0.10\nnameserver fd00::10\noptions ndots:5\n";
        let mut lines: Vec<_> = resolv.lines().collect();
        let mut wanted: Vec<_> = expected.lines().collect();
        lines.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(lines, wanted);
        let own = address(&daemon, &pod).await;
        let hosts = daemon.sh(&id, "cat /etc/hosts").await;
        assert!(
            hosts.lines().any(|line| line.starts_with(&own.to_string()) && line.contains("web-0")),
            "{hosts}"
        );
        assert!(
            hosts.lines().any(|line| line.starts_with("127.0.0.1") && line.contains("localhost")),
            "{hosts}"
        );
        // Who is not root in the container may read them, and nobody made the image's files of them.
        assert_eq!(
            daemon.sh(&id, "stat -c %a:%u /etc/hosts /etc/resolv.conf /etc/hostname").await,
            "644:0\n".repeat(3)
        );
        // Without a wish, the host's resolvers.
        let plain = daemon.pod("plain");
        let pod = daemon.run_pod(&plain).await.unwrap();
        let id = daemon.run(&pod, &plain, "c", "sleep 1000").await;
        let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        assert_eq!(daemon.sh(&id, "cat /etc/resolv.conf").await, own);
        // In the host's network, the host's name and hosts.
        let mut config = daemon.pod("host");
        let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
        set_namespaces(&mut config, options.clone());
        let pod = daemon.run_pod(&config).await.unwrap();
        let asked = in_namespaces(daemon.container("c", "sleep 1000"), &options);
        let id = daemon.create(&pod, &config, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        assert_eq!(daemon.sh(&id, "readlink /proc/self/ns/net").await.trim(), own.to_str().unwrap());
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(daemon.sh(&id, "hostname").await, name);
        assert_eq!(
            daemon.sh(&id, "cat /etc/hosts").await,
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        );
        assert!(addresses(&daemon, &pod).await.is_empty());
        daemon.empty().await;
    });
}

#[test]
fn containers_of_a_pod_share_memory_and_pods_do_not() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("one");
        let pod = daemon.run_pod(&config).await.unwrap();
        let first = daemon.run(&pod, &config, "first", "sleep 1000").await;
        let second = daemon.run(&pod, &config, "second", "sleep 1000").await;
        let other_config = daemon.pod("other");
        let other = daemon.run_pod(&other_config).await.unwrap();
        let stranger = daemon.run(&other, &other_config, "c", "sleep 1000").await;
        daemon.sh(&first, "echo shared > /dev/shm/x").await;
        assert_eq!(daemon.sh(&second, "cat /dev/shm/x; stat -c %a /dev/shm").await, "shared\n1777\n");
        assert_eq!(daemon.sh(&stranger, "ls /dev/shm").await, "");
        let spaces = "for of in ipc uts net; do readlink /proc/self/ns/$of; done";
        assert_eq!(daemon.sh(&first, spaces).await, daemon.sh(&second, spaces).await);
        for (ours, theirs) in
            daemon.sh(&first, spaces).await.lines().zip(daemon.sh(&stranger, spaces).await.lines())
        {
            assert_ne!(ours, theirs);
        }
        let own = "for of in mnt; do readlink /proc/self/ns/$of; done";
        for (ours, theirs) in daemon.sh(&first, own).await.lines().zip(daemon.sh(&second, own).await.lines())
        {
            assert_ne!(ours, theirs);
        }
        let mount = daemon.sh(&first, "grep ' /dev/shm ' /proc/self/mounts").await;
        for part in ["tmpfs", "nosuid", "nodev", "noexec", "size=65536k"] {
            assert!(mount.contains(part), "{mount}");
        }
        daemon.empty().await;
    });
}

#[test]
fn processes_are_seen_by_whom_they_are_shared_with() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let of = |mode: v1::NamespaceMode| v1::NamespaceOption { pid: mode.into(), ..Default::default() };
        let comm = "cat /proc/1/comm";
        // Each for itself.
        let own = of(v1::NamespaceMode::Container);
        let mut config = daemon.pod("own");
        set_namespaces(&mut config, own.clone());
        let pod = daemon.run_pod(&config).await.unwrap();
        let start = async |pod: &str,
                           config: &v1::PodSandboxConfig,
                           name: &str,
                           options: &v1::NamespaceOption,
                           script: &str| {
            let asked = in_namespaces(daemon.container(name, script), options);
            let id = daemon.create(pod, config, &asked).await?;
            daemon.start_container(&id).await.map(|()| id)
        };
        let target = start(&pod, &config, "target", &own, "exec sleep 4711").await.unwrap();
        assert_eq!(daemon.sh(&target, comm).await, "sleep\n");
        let aimed = v1::NamespaceOption { target_id: target.clone(), ..of(v1::NamespaceMode::Target) };
        let debugger = start(&pod, &config, "debugger", &aimed, "exec sleep 1000").await.unwrap();
        assert_eq!(daemon.sh(&debugger, "cat /proc/1/cmdline | grep -c 4711").await, "1\n");
        let space = "readlink /proc/self/ns/pid";
        assert_eq!(daemon.sh(&target, space).await, daemon.sh(&debugger, space).await);
        // Without its target there is nothing to join.
        daemon.stop_container(&target, 0).await.unwrap();
        let late = start(&pod, &config, "late", &aimed, "true").await.unwrap_err();
        assert_eq!(late.code(), Code::InvalidArgument, "{late}");
        // All of the pod, below an init that reaps what nobody waits for.
        let shared = of(v1::NamespaceMode::Pod);
        let mut config = daemon.pod("shared");
        set_namespaces(&mut config, shared.clone());
        let pod = daemon.run_pod(&config).await.unwrap();
        let first = start(&pod, &config, "first", &shared, "exec sleep 4712").await.unwrap();
        let second = start(&pod, &config, "second", &shared, "exec sleep 4713").await.unwrap();
        for id in [&first, &second] {
            assert_ne!(daemon.sh(id, comm).await, "sleep\n");
            let seen = daemon.sh(id, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; true").await;
            assert!(seen.contains("4712") && seen.contains("4713"), "{seen}");
        }
        daemon
            .sh(
                &first,
                "for i in 1 2 3 4 5; do setsid sh -c 'sleep 0.1 & sleep 0.1 & exit' & done; sleep 0.5",
            )
            .await;
        let zombies = daemon.sh(&second, "grep -l '^State:.*Z' /proc/[0-9]*/status; true").await;
        assert_eq!(zombies, "");
        // The end of one is not the end of the other, and takes only its own along.
        daemon.stop_container(&first, 0).await.unwrap();
        let seen = daemon.sh(&second, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; true").await;
        assert!(!seen.contains("4712") && seen.contains("4713"), "{seen}");
        // What an init leaves behind goes with its container, though the namespace stays.
        let leaver = start(&pod, &config, "leaver", &shared, "setsid sleep 4714 & exit 0").await.unwrap();
        daemon.exited(&leaver).await;
        let seen = daemon.sh(&second, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; true").await;
        assert!(!seen.contains("4714"), "{seen}");
        // The host's.
        let host = of(v1::NamespaceMode::Node);
        let mut config = daemon.pod("host");
        set_namespaces(&mut config, host.clone());
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = start(&pod, &config, "c", &host, "sleep 4715 & sleep 4716 & wait").await.unwrap();
        let space = std::fs::read_link("/proc/self/ns/pid").unwrap();
        assert_eq!(daemon.sh(&id, "readlink /proc/self/ns/pid").await.trim(), space.to_str().unwrap());
        daemon.stop_container(&id, 0).await.unwrap();
        let left = |number: &str| {
            let mut all = std::fs::read_dir("/proc").unwrap().flatten();
            all.any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line == format!("sleep\0{number}\0").into_bytes()
            })
        };
        assert!(!left("4715") && !left("4716"), "processes of the container outlived it");
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
