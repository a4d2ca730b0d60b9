//! What a node tells of itself, from real pods: statistics, metrics, events, and limits of whole pods.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use support::Daemon;
use tonic::{Code, Streaming};
use v1::ContainerEventType::{self as Kind, *};

fn number(value: Option<v1::UInt64Value>) -> u64 {
    value.expect("it is known").value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_and_containers_tell_what_they_use() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let mut config = daemon.pod("busy");
    config.labels.insert("app".into(), "busy".into());
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = daemon.container("c", "head -c 300000 /dev/zero > /written; while :; do :; done");
    asked.labels.insert("part".into(), "one".into());
    let resources = v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    asked.linux.as_mut().unwrap().resources = Some(resources);
    let id = daemon.create(&pod, &config, &asked).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    let gateway = daemon.sh(&id, "ip route | grep default | cut -d' ' -f3").await;
    daemon.sh(&id, &format!("ping -c 1 -W 2 {} > /dev/null", gateway.trim())).await;

    let stats = settled(&daemon, &id).await;
    let (cpu, memory) = (stats.cpu.unwrap(), stats.memory.unwrap());
    assert!(number(cpu.usage_nano_cores) > 50_000_000, "it is busy: {cpu:?}");
    assert!(number(memory.working_set_bytes) > 0 && number(memory.page_faults) > 0, "{memory:?}");
    assert!(number(memory.available_bytes) < 64 << 20, "{memory:?}");
    let layer = stats.writable_layer.unwrap();
    assert!(number(layer.used_bytes) >= 300_000 && number(layer.inodes_used) >= 2, "{layer:?}");
    assert_eq!(cpu.psi.is_some(), pressure_is_counted(), "{cpu:?}");
    assert!(stats.swap.is_some() && stats.io.is_some());

    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod[..20].into() };
    let stats = daemon.runtime().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
    let attributes = stats.attributes.unwrap();
    assert_eq!((attributes.id.as_str(), attributes.metadata), (pod.as_str(), config.metadata.clone()));
    let linux = stats.linux.unwrap();
    let whole = linux.cpu.unwrap();
    assert!(number(whole.usage_core_nano_seconds) >= number(cpu.usage_core_nano_seconds), "{whole:?}");
    assert!(number(linux.memory.unwrap().usage_bytes) > 0);
    assert!(number(linux.process.unwrap().process_count) >= 1);
    let interface = linux.network.unwrap().default_interface.unwrap();
    assert_eq!(interface.name, "eth0");
    assert!(number(interface.rx_bytes) > 80 && number(interface.tx_bytes) > 80, "{interface:?}");
    assert_eq!(linux.containers.len(), 1);
    assert_eq!(linux.containers[0].attributes.as_ref().unwrap().id, id);

    filters(&daemon, &pod, &id).await;
    daemon.stop_container(&id, 0).await.unwrap();
    let request = v1::ContainerStatsRequest { container_id: id.clone() };
    let stats = daemon.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.cpu.is_none() && stats.memory.is_none(), "it does not run: {stats:?}");
    let listed = daemon.runtime().list_container_stats(v1::ListContainerStatsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().stats, vec![], "only what runs is listed");
    daemon.stop_pod(&pod).await.unwrap();
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
    let linux = daemon.runtime().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap().linux;
    assert!(linux.is_some_and(|linux| linux.cpu.is_none() && linux.network.is_none()));
    daemon.remove_pod(&pod).await.unwrap();
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod };
    let absent = daemon.runtime().pod_sandbox_stats(request).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound, "{absent}");
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

/// The container's statistics in a list, once there are two samples and its layer has been measured.
async fn settled(daemon: &Daemon, id: &str) -> v1::ContainerStats {
    let begun = Instant::now();
    loop {
        let filter = Some(v1::ContainerStatsFilter { id: id.into(), ..Default::default() });
        let request = v1::ListContainerStatsRequest { filter };
        let mut stats = daemon.runtime().list_container_stats(request).await.unwrap().into_inner().stats;
        assert_eq!(stats.len(), 1);
        let stats = stats.remove(0);
        let rate = stats.cpu.as_ref().and_then(|cpu| cpu.usage_nano_cores);
        if rate.is_some() && stats.writable_layer.is_some() {
            return stats;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{stats:?}");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn filters(daemon: &Daemon, pod: &str, container: &str) {
    let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let of = |id: &str, label_selector| v1::PodSandboxStatsFilter { id: id.into(), label_selector };
    for (filter, expected) in [
        (None, 1),
        (Some(of(&pod[..13], BTreeMap::new())), 1),
        (Some(of("", labels("app", "busy"))), 1),
        (Some(of("", labels("app", "idle"))), 0),
        (Some(of(&"0".repeat(64), BTreeMap::new())), 0),
    ] {
        let request = v1::ListPodSandboxStatsRequest { filter: filter.clone() };
        let listed = daemon.runtime().list_pod_sandbox_stats(request).await.unwrap().into_inner().stats;
        let request = v1::StreamPodSandboxStatsRequest { filter: filter.clone() };
        let mut stream = daemon.runtime().stream_pod_sandbox_stats(request).await.unwrap().into_inner();
        let mut streamed = 0;
        while let Some(piece) = stream.message().await.unwrap() {
            streamed += piece.pod_sandbox_stats.len();
        }
        assert_eq!((listed.len(), streamed), (expected, expected), "{filter:?}");
    }
    let filter = v1::ContainerStatsFilter {
        pod_sandbox_id: pod.into(),
        label_selector: labels("part", "one"),
        ..Default::default()
    };
    let request = v1::StreamContainerStatsRequest { filter: Some(filter) };
    let mut stream = daemon.runtime().stream_container_stats(request).await.unwrap().into_inner();
    let piece = stream.message().await.unwrap().unwrap();
    assert_eq!(piece.container_stats[0].attributes.as_ref().unwrap().id, container);
}

/// The tree of version 2 is mounted, alone or beside version 1, and the kernel accounts for stalls.
fn pressure_is_counted() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.contains(" - cgroup2 ") && std::fs::read("/proc/pressure/cpu").is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_shows_pods_and_events() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let pintle = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
        command.arg("--endpoint").arg(format!("unix://{}", daemon.socket().display())).args(args);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    let mut events = pintle(&["events"]).stdout(Stdio::piped()).spawn().unwrap();
    let config = daemon.pod("seen");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
    let shown = pintle(&["stats", "--pods", "--interval", "200ms", "-o", "json"]).output().unwrap();
    let stats: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&stats[0]["id"], &stats[0]["name"]), (&pod.clone().into(), &"seen".into()));
    assert!(stats[0]["memoryWorkingSetBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    assert!(stats[0]["cpuPercent"].is_number() && stats[0]["receivedBytes"].is_number(), "{stats}");
    let shown = pintle(&["stats", "--pods", "--interval", "1ms", "seen"]).output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&pod[..12]), "{shown:?}");
    daemon.remove_pod(&pod).await.unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    let told: Vec<String> = lines.by_ref().take(8).map(Result::unwrap).collect();
    events.kill().unwrap();
    events.wait().unwrap();
    assert!(told[0].contains("created") && told[0].contains("pod"), "{told:#?}");
    assert!(
        told[3].contains("started") && told[3].contains("seen/c") && told[3].contains(&id[..12]),
        "{told:#?}"
    );
    assert!(told[7].contains("deleted") && told[7].contains(&pod[..12]), "{told:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_complete_and_real() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("metrics");
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = daemon
        .container("c", "head -c 100000 /dev/zero > /written; exec 7</written; nc -l -p 80 & sleep 100");
    asked.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    });
    let id = daemon.create(&pod, &config, &asked).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    let begun = Instant::now();
    while daemon.sh(&id, "cat /proc/net/tcp /proc/net/tcp6 | grep -c ' 0A ' || true").await.trim() == "0" {
        assert!(begun.elapsed() < Duration::from_secs(5), "nobody listens");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let descriptors = v1::ListMetricDescriptorsRequest::default();
    let descriptors =
        daemon.runtime().list_metric_descriptors(descriptors).await.unwrap().into_inner().descriptors;
    let request = v1::ListPodSandboxMetricsRequest::default();
    let measured = daemon.runtime().list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
    let request = v1::StreamPodSandboxMetricsRequest::default();
    let mut stream = daemon.runtime().stream_pod_sandbox_metrics(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().pod_sandbox_metrics[0].pod_sandbox_id, pod);
    assert_eq!((measured.len(), measured[0].pod_sandbox_id.as_str()), (1, pod.as_str()));
    let container = &measured[0].container_metrics[0];
    assert_eq!(container.container_id, id);
    let names: BTreeSet<&str> =
        measured[0].metrics.iter().chain(&container.metrics).map(|metric| metric.name.as_str()).collect();
    // Without a controller or a block device of its own there is nothing to tell of these.
    let may_be_absent = |name: &str| {
        name.contains("hugetlb")
            || name.contains("blkio")
            || (name.contains("container_fs_") && name.ends_with("_total"))
            || (name.contains("pressure") && !pressure_is_counted())
            || name.contains("cfs_burst")
    };
    for descriptor in &descriptors {
        let name = descriptor.name.as_str();
        assert!(names.contains(name) || may_be_absent(name), "{name} has no value");
    }
    let value = |name: &str| {
        let metric = container.metrics.iter().find(|metric| metric.name == name);
        number(metric.unwrap_or_else(|| panic!("no {name}")).value)
    };
    assert_eq!((value("container_spec_cpu_period"), value("container_spec_cpu_quota")), (100_000, 20_000));
    // The weight of version 2 is coarser: 521 shares are the most that have the weight of 512.
    let shares = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 521 } else { 512 };
    assert_eq!(
        (value("container_spec_cpu_shares"), value("container_spec_memory_limit_bytes")),
        (shares, 64 << 20)
    );
    assert!(value("container_memory_usage_bytes") > 0 && value("container_memory_max_usage_bytes") > 0);
    assert!(value("container_processes") >= 2 && value("container_threads") >= 2);
    assert!(value("container_sockets") >= 1 && value("container_file_descriptors") >= 6);
    assert!(value("container_fs_usage_bytes") >= 100_000);
    assert!(value("container_fs_limit_bytes") > value("container_fs_usage_bytes"));
    let status = daemon.status(&id).await.unwrap();
    assert_eq!(value("container_start_time_seconds"), status.started_at.unsigned_abs() / 1_000_000_000);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    assert_eq!(Some(value("container_ulimits_soft")), limit);
    daemon.empty().await;
}

async fn subscribe(daemon: &Daemon) -> Streaming<v1::ContainerEventResponse> {
    daemon.runtime().get_container_events(v1::GetEventsRequest::default()).await.unwrap().into_inner()
}

/// Reads until the event `last` about `id`.
async fn read_until(
    stream: &mut Streaming<v1::ContainerEventResponse>,
    last: Kind,
    id: &str,
) -> Vec<v1::ContainerEventResponse> {
    let mut told = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
        let event = next.unwrap_or_else(|_| panic!("{last:?} of {id} does not come after {told:#?}"));
        let event = event.unwrap().unwrap();
        let done = event.container_event_type() == last && event.container_id == id;
        told.push(event);
        if done {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_in_order_to_everybody_who_reads() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let (mut one, mut other) = (subscribe(&daemon).await, subscribe(&daemon).await);
    let _never_read = subscribe(&daemon).await;
    let config = daemon.pod("told");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.run(&pod, &config, "c", "exit 3").await;
    daemon.exited(&id).await;
    daemon.remove_container(&id).await.unwrap();
    daemon.remove_pod(&pod).await.unwrap();
    let told = read_until(&mut one, ContainerDeletedEvent, &pod).await;
    let seen: Vec<(Kind, &str)> =
        told.iter().map(|event| (event.container_event_type(), event.container_id.as_str())).collect();
    let (pod, id) = (pod.as_str(), id.as_str());
    let expected = [
        (ContainerCreatedEvent, pod),
        (ContainerStartedEvent, pod),
        (ContainerCreatedEvent, id),
        (ContainerStartedEvent, id),
        (ContainerStoppedEvent, id),
        (ContainerDeletedEvent, id),
        (ContainerStoppedEvent, pod),
        (ContainerDeletedEvent, pod),
    ];
    assert_eq!(seen, expected);
    for event in &told {
        let status = event.pod_sandbox_status.as_ref().unwrap();
        assert_eq!((status.id.as_str(), status.metadata.as_ref()), (pod, config.metadata.as_ref()));
    }
    assert!(told.windows(2).all(|pair| pair[0].created_at <= pair[1].created_at && pair[0].created_at > 0));
    let states: Vec<_> =
        told.iter().map(|event| event.containers_statuses.first().map(|status| status.state())).collect();
    use v1::ContainerState::{ContainerCreated, ContainerExited, ContainerRunning};
    assert_eq!(states[..3], [None, None, Some(ContainerCreated)]);
    assert!(matches!(states[3], Some(ContainerRunning | ContainerExited)));
    assert_eq!(states[4..], [Some(ContainerExited), None, None, None]);
    assert_eq!(told[4].containers_statuses[0].exit_code, 3);
    assert_eq!(told[1].pod_sandbox_status.as_ref().unwrap().state(), v1::PodSandboxState::SandboxReady);
    assert_eq!(told[7].pod_sandbox_status.as_ref().unwrap().state(), v1::PodSandboxState::SandboxNotready);
    assert_eq!(read_until(&mut other, ContainerDeletedEvent, pod).await, told, "the same to everybody");

    many_at_once(&daemon, &mut one).await;
    // A stream that nobody reads does not keep the daemon from ending.
    let begun = Instant::now();
    daemon.end();
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(matches!(other.message().await, Ok(Some(_))), "what was told before is still read");
    daemon.launch().await;
}

/// Pods that live and end side by side: each one's events are all there, in the order of its life.
async fn many_at_once(daemon: &Daemon, stream: &mut Streaming<v1::ContainerEventResponse>) {
    let lives = (0..6).map(|number| async move {
        let config = daemon.pod(&format!("p{number}"));
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "sleep 100").await;
        daemon.stop_container(&id, 0).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        (pod, id)
    });
    let lives = futures_of(lives).await;
    let mut told: BTreeMap<String, Vec<Kind>> = BTreeMap::new();
    let whole = |told: &BTreeMap<String, Vec<Kind>>| {
        lives
            .iter()
            .all(|(pod, _)| told.get(pod).is_some_and(|kinds| kinds.last() == Some(&ContainerDeletedEvent)))
    };
    while !whole(&told) {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.message()).await;
        let event = next.unwrap_or_else(|_| panic!("{told:?} is not all")).unwrap().unwrap();
        told.entry(event.container_id.clone()).or_default().push(event.container_event_type());
    }
    let life = [ContainerCreatedEvent, ContainerStartedEvent, ContainerStoppedEvent, ContainerDeletedEvent];
    for (pod, id) in &lives {
        assert_eq!((told[pod].as_slice(), told[id].as_slice()), (&life[..], &life[..]));
    }
}

/// Runs them side by side.
async fn futures_of<T>(work: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut work: Vec<_> = work.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (work, done) in work.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(result) = work.as_mut().poll(context)
            {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_the_daemon_was_away_is_told_when_it_is_back() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    std::fs::create_dir(daemon.path("go")).unwrap();
    let config = daemon.pod("away");
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = daemon.container("ends", "while [ ! -e /go/now ]; do sleep 0.05; done; exit 9");
    asked.mounts.push(v1::Mount {
        host_path: daemon.path("go").display().to_string(),
        container_path: "/go".into(),
        ..Default::default()
    });
    let ends = daemon.create(&pod, &config, &asked).await.unwrap();
    daemon.start_container(&ends).await.unwrap();
    let stays = daemon.run(&pod, &config, "stays", "sleep 1000").await;
    daemon.kill();
    std::fs::write(daemon.path("go/now"), "").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    daemon.launch().await;
    let mut stream = subscribe(&daemon).await;
    let told = read_until(&mut stream, ContainerStoppedEvent, &ends).await;
    assert_eq!(told.len(), 1, "what went on as it was is no news: {told:#?}");
    let statuses: BTreeMap<&str, _> =
        told[0].containers_statuses.iter().map(|status| (status.id.as_str(), status)).collect();
    assert_eq!((statuses.len(), statuses[ends.as_str()].exit_code), (2, 9));
    assert_eq!(statuses[stays.as_str()].state(), v1::ContainerState::ContainerRunning);

    // A pod whose shim is gone is over: its containers first, then itself.
    let shim = verbose(&daemon, &pod).await["pid"].as_i64().unwrap();
    daemon.kill();
    let shim = rustix::process::Pid::from_raw(i32::try_from(shim).unwrap()).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    daemon.launch().await;
    let mut stream = subscribe(&daemon).await;
    let told = read_until(&mut stream, ContainerStoppedEvent, &pod).await;
    let seen: Vec<&str> = told.iter().map(|event| event.container_id.as_str()).collect();
    assert_eq!(seen, [stays.as_str(), pod.as_str()]);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

/// What a verbose status of the pod says.
async fn verbose(daemon: &Daemon, pod: &str) -> serde_json::Value {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let info = daemon.runtime().pod_sandbox_status(request).await.unwrap().into_inner().info;
    serde_json::from_str(&info["info"]).unwrap()
}

/// The memory limit of a cgroup.
fn memory_limit(cgroup: &str) -> String {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let path = match v2 {
        true => format!("/sys/fs/cgroup{cgroup}/memory.max"),
        false => format!("/sys/fs/cgroup/memory{cgroup}/memory.limit_in_bytes"),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{path}: {why}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_limits_are_kept_and_set_where_the_cgroup_is_ours() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let limit = |mebibytes: i64| v1::LinuxContainerResources {
        memory_limit_in_bytes: mebibytes << 20,
        ..Default::default()
    };
    let mut config = daemon.pod("limited");
    config.linux.as_mut().unwrap().resources = Some(limit(100));
    let pod = daemon.run_pod(&config).await.unwrap();
    let cgroup = format!("/pintle-pod-{pod}");
    assert_eq!(memory_limit(&cgroup), (100 << 20).to_string(), "from the beginning");
    daemon.run(&pod, &config, "c", "sleep 1000").await;
    let update = |resources, overhead| {
        let mut runtime = daemon.runtime();
        let request =
            v1::UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod.clone(), resources, overhead };
        async move { runtime.update_pod_sandbox_resources(request).await.map(drop) }
    };
    for _ in 0..2 {
        update(Some(limit(200)), Some(limit(10))).await.unwrap();
        assert_eq!(memory_limit(&cgroup), (210 << 20).to_string());
    }
    update(None, Some(limit(20))).await.unwrap();
    assert_eq!(memory_limit(&cgroup), (220 << 20).to_string(), "what is not given stays");
    let negative = v1::LinuxContainerResources { cpu_shares: -5, ..Default::default() };
    let refused = update(Some(negative), None).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let request =
        v1::UpdatePodSandboxResourcesRequest { pod_sandbox_id: "0".repeat(64), ..Default::default() };
    let absent = daemon.runtime().update_pod_sandbox_resources(request).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound, "{absent}");
    let request = v1::UpdatePodSandboxResourcesRequest::default();
    let unnamed = daemon.runtime().update_pod_sandbox_resources(request).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument, "{unnamed}");

    // The cgroup of somebody else is theirs: it is only kept in mind.
    let parent = format!("/pintle-test-observation-{}", std::process::id());
    let mut named = daemon.pod("named");
    named.linux.as_mut().unwrap().cgroup_parent = parent.clone();
    let other = daemon.run_pod(&named).await.unwrap();
    daemon.run(&other, &named, "c", "sleep 1000").await;
    let before = memory_limit(&parent);
    let request = v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: other.clone(),
        resources: Some(limit(50)),
        overhead: None,
    };
    daemon.runtime().update_pod_sandbox_resources(request).await.unwrap();
    assert_eq!(memory_limit(&parent), before);

    daemon.kill();
    daemon.launch().await;
    let kept = |of: &serde_json::Value, part: &str| of[part]["memory_limit_bytes"].as_i64();
    let info = verbose(&daemon, &pod).await;
    assert_eq!((kept(&info, "resources"), kept(&info, "overhead")), (Some(200 << 20), Some(20 << 20)));
    let info = verbose(&daemon, &other).await;
    assert_eq!((kept(&info, "resources"), kept(&info, "overhead")), (Some(50 << 20), None));
    daemon.empty().await;
    cgroup::Host::detect().unwrap().delete(&parent, Duration::from_secs(5)).unwrap();
    assert_eq!(daemon.remains(), Vec::<String>::new());
}
