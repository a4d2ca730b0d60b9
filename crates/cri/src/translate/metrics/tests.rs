//! The names that the kubelet's endpoint has, and that keys and values belong together.

use std::collections::BTreeSet;
use std::sync::Arc;

use cgroup::{DeviceIo, HugetlbStats, IoStats, Pressure, PressureLine, Stalls};
use model::container::Container as Life;

use super::*;
use crate::translate::status::tests::{container, pod};

/// What the kubelet's `/metrics/cadvisor` has in Kubernetes 1.37, as critest expects it of every runtime.
const EXPECTED: [&str; 56] = [
    "container_blkio_device_usage_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_throttled_seconds_total",
    "container_cpu_system_seconds_total",
    "container_cpu_usage_seconds_total",
    "container_cpu_user_seconds_total",
    "container_file_descriptors",
    "container_fs_inodes_free",
    "container_fs_inodes_total",
    "container_fs_limit_bytes",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
    "container_fs_usage_bytes",
    "container_fs_writes_bytes_total",
    "container_fs_writes_total",
    "container_hugetlb_max_usage_bytes",
    "container_hugetlb_usage_bytes",
    "container_last_seen",
    "container_memory_cache",
    "container_memory_failcnt",
    "container_memory_failures_total",
    "container_memory_kernel_usage",
    "container_memory_mapped_file",
    "container_memory_max_usage_bytes",
    "container_memory_rss",
    "container_memory_swap",
    "container_memory_usage_bytes",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_receive_errors_total",
    "container_network_receive_packets_dropped_total",
    "container_network_receive_packets_total",
    "container_network_transmit_bytes_total",
    "container_network_transmit_errors_total",
    "container_network_transmit_packets_dropped_total",
    "container_network_transmit_packets_total",
    "container_oom_events_total",
    "container_pressure_cpu_stalled_seconds_total",
    "container_pressure_cpu_waiting_seconds_total",
    "container_pressure_io_stalled_seconds_total",
    "container_pressure_io_waiting_seconds_total",
    "container_pressure_memory_stalled_seconds_total",
    "container_pressure_memory_waiting_seconds_total",
    "container_processes",
    "container_sockets",
    "container_spec_cpu_period",
    "container_spec_cpu_quota",
    "container_spec_cpu_shares",
    "container_spec_memory_limit_bytes",
    "container_spec_memory_reservation_limit_bytes",
    "container_spec_memory_swap_limit_bytes",
    "container_start_time_seconds",
    "container_threads",
    "container_threads_max",
    "container_ulimits_soft",
];

/// Everything is there, as on a host of version 2 where everything was used.
fn measured() -> Measurements {
    let line = PressureLine { total_us: 3_000_001, ..PressureLine::default() };
    let pressure = Some(Pressure { some: line, full: line });
    let mut stats = Stats::default();
    stats.cpu.usage_ns = 5_900_000_000;
    stats.cpu.quota_us = Some(20_000);
    (stats.cpu.burst_periods, stats.cpu.burst_ns) = (Some(1), Some(2));
    stats.memory.rss = 42;
    (stats.memory.refaults_anon, stats.memory.refaults_file) = (Some(1), Some(2));
    (stats.memory.scanned, stats.memory.reclaimed) = (Some(3), Some(4));
    (stats.memory_detail.max_usage, stats.memory_detail.kernel) = (Some(5), Some(6));
    (stats.memory_detail.high_events, stats.memory_detail.max_events) = (Some(7), Some(8));
    stats.pressure = Stalls { cpu: pressure, memory: pressure, io: pressure };
    stats.hugetlb.push(HugetlbStats { page_size: "2MB".into(), usage: 9, ..HugetlbStats::default() });
    let device = DeviceIo { major: 8, minor: 0, read_bytes: 10, ..DeviceIo::default() };
    stats.io = IoStats { devices: vec![device] };
    let record = container(Life::Running { pid: 9, started_at: Timestamp(11_000_000_000) });
    let interface = |name: &str| InterfaceStats {
        name: name.into(),
        rx_bytes: 1,
        rx_packets: 2,
        rx_errors: 3,
        rx_dropped: 4,
        tx_bytes: 5,
        tx_packets: 6,
        tx_errors: 7,
        tx_dropped: 8,
    };
    let at = Timestamp(12_000_000_000);
    Measurements {
        pods: vec![PodMeasurement {
            record: Arc::new(pod()),
            at,
            cgroup: Some(stats.clone()),
            interfaces: vec![interface("eth0"), interface("net1")],
            containers: vec![ContainerMeasurement {
                record: Arc::new(record),
                at,
                cgroup: stats,
                processes: Processes { count: 1, descriptors: 2, sockets: 3, open_files_limit: Some(4) },
                layer: Some(Layer { bytes: 100, inodes: 3, at }),
            }],
        }],
        filesystem: Some(FileSystem { device: "/dev/vda".into(), bytes: 1000, inodes: 20, free_inodes: 10 }),
        devices: [((8, 0), "/dev/sda".to_owned())].into(),
    }
}

#[test]
fn every_name_of_the_kubelets_endpoint_is_there_once() {
    let here = descriptors(Here { version2: false, huge_pages: true });
    let names: BTreeSet<&str> = here.iter().map(|descriptor| descriptor.name.as_str()).collect();
    assert_eq!(names.len(), here.len(), "no name stands twice");
    for expected in EXPECTED {
        assert!(names.contains(expected), "{expected}");
    }
    assert!(here.iter().all(|descriptor| !descriptor.help.is_empty()));
    let more = descriptors(Here { version2: true, huge_pages: true });
    assert!(more.len() > here.len());
    let fewer = descriptors(Here { version2: false, huge_pages: false });
    assert!(!fewer.iter().any(|descriptor| descriptor.name.contains("hugetlb")));
}

#[test]
fn each_family_has_a_value_for_every_key_and_nothing_else() {
    let measured = pods(&measured());
    let keys: BTreeMap<String, usize> = descriptors(Here { version2: true, huge_pages: true })
        .into_iter()
        .map(|family| (family.name, family.label_keys.len()))
        .collect();
    let container = &measured[0].container_metrics[0];
    let all: Vec<&proto::Metric> = measured[0].metrics.iter().chain(&container.metrics).collect();
    let mut series = BTreeSet::new();
    for metric in &all {
        assert_eq!(Some(&metric.label_values.len()), keys.get(&metric.name), "{metric:?}");
        assert!(series.insert((&metric.name, &metric.label_values)), "twice: {metric:?}");
    }
    for name in keys.keys() {
        assert!(all.iter().any(|metric| metric.name == *name), "{name} has no value where all is measured");
    }
}

#[test]
fn labels_and_units_are_those_of_cadvisor() {
    let measured = pods(&measured());
    let (pod, container) = (&measured[0].metrics, &measured[0].container_metrics[0].metrics);
    let find = |metrics: &[proto::Metric], name: &str| {
        metrics.iter().find(|metric| metric.name == name).cloned().unwrap_or_else(|| panic!("{name}"))
    };
    let usage = find(container, "container_cpu_usage_seconds_total");
    let id = "02".repeat(32);
    assert_eq!(usage.label_values, ["web", "/p/c", "busybox", &id, "shop", "web-0", "total"]);
    assert_eq!(
        (usage.value.map(|value| value.value), usage.metric_type()),
        (Some(5), proto::MetricType::Counter)
    );
    let waiting = find(container, "container_pressure_io_waiting_seconds_total");
    assert_eq!(waiting.value.map(|value| value.value), Some(3));
    let disk = find(container, "container_fs_usage_bytes");
    assert_eq!((disk.timestamp, disk.metric_type()), (12_000_000_000, proto::MetricType::Gauge));
    let received = find(pod, "container_network_receive_bytes_total");
    let id = "01".repeat(32);
    assert_eq!(received.label_values, ["", "/p", "", &id, "shop", "web-0", "eth0"]);
    assert_eq!(received.timestamp, 0, "it was read just now");
    let device = find(container, "container_blkio_device_usage_total");
    assert_eq!(device.label_values[6..], ["/dev/sda", "8", "0", "Read"]);
}

#[test]
fn what_is_not_measured_is_absent() {
    let mut bare = measured();
    bare.pods[0].containers[0].cgroup = Stats::default();
    bare.pods[0].cgroup = None;
    bare.pods[0].interfaces.clear();
    bare.filesystem = None;
    let measured = pods(&bare);
    assert!(
        measured[0]
            .metrics
            .iter()
            .all(|metric| metric.name.ends_with("_seconds") || metric.name.ends_with("_seen"))
    );
    let names: Vec<&str> =
        measured[0].container_metrics[0].metrics.iter().map(|metric| metric.name.as_str()).collect();
    for absent in [
        "container_pressure_cpu_waiting_seconds_total",
        "container_fs_limit_bytes",
        "container_cpu_cfs_periods_total",
    ] {
        assert!(!names.contains(&absent), "{absent}");
    }
    assert!(names.contains(&"container_memory_usage_bytes"));
}
