//! What pods and containers use, as CRI says it.

use cgroup::{Pressure, PressureLine, Usage};
use network::InterfaceStats;
use node::{ContainerStats, Layer, PodStats};

use super::pod::name_to_proto;
use super::status::container_metadata;
use crate::runtime_v1 as proto;

/// The statistics of one container. What is not known is absent, never zero.
pub fn container(stats: &ContainerStats, mountpoint: &str) -> proto::ContainerStats {
    let at = stats.at.nanoseconds();
    let record = &stats.record;
    let usage = stats.usage.as_ref();
    proto::ContainerStats {
        attributes: Some(proto::ContainerAttributes {
            id: record.id.to_string(),
            metadata: Some(container_metadata(record)),
            labels: record.request.labels.clone(),
            annotations: record.request.annotations.clone(),
        }),
        cpu: usage.map(|usage| cpu(at, usage, stats.usage_nano_cores)),
        memory: usage.map(|usage| memory(at, usage)),
        writable_layer: stats.writable_layer.map(|layer| filesystem(layer, mountpoint)),
        swap: usage.map(|usage| proto::SwapUsage {
            timestamp: at,
            swap_available_bytes: usage
                .memory
                .swap_limit
                .and_then(|limit| value(limit.saturating_sub(usage.memory.swap_usage))),
            swap_usage_bytes: value(usage.memory.swap_usage),
        }),
        io: usage.map(|usage| io(at, usage)),
    }
}

/// The statistics of one pod and its containers.
pub fn pod(stats: &PodStats, mountpoint: &str) -> proto::PodSandboxStats {
    let at = stats.at.nanoseconds();
    let record = &stats.record;
    let usage = stats.usage.as_ref();
    let is_default = |interface: &&InterfaceStats| interface.name == DEFAULT_INTERFACE;
    proto::PodSandboxStats {
        attributes: Some(proto::PodSandboxAttributes {
            id: record.id.to_string(),
            metadata: Some(name_to_proto(&record.request.name)),
            labels: record.request.labels.clone(),
            annotations: record.request.annotations.clone(),
        }),
        linux: Some(proto::LinuxPodSandboxStats {
            cpu: usage.map(|usage| cpu(at, usage, stats.usage_nano_cores)),
            memory: usage.map(|usage| memory(at, usage)),
            network: (!stats.interfaces.is_empty()).then(|| proto::NetworkUsage {
                timestamp: at,
                default_interface: stats.interfaces.iter().find(is_default).map(interface),
                interfaces: stats.interfaces.iter().filter(|one| !is_default(one)).map(interface).collect(),
            }),
            process: stats
                .processes
                .map(|count| proto::ProcessUsage { timestamp: at, process_count: value(count) }),
            containers: stats.containers.iter().map(|stats| container(stats, mountpoint)).collect(),
            io: usage.map(|usage| io(at, usage)),
        }),
        windows: None,
    }
}

/// What CNI plugins are told to call a pod's interface.
const DEFAULT_INTERFACE: &str = "eth0";

fn cpu(at: i64, usage: &Usage, nano_cores: Option<u64>) -> proto::CpuUsage {
    proto::CpuUsage {
        timestamp: at,
        usage_core_nano_seconds: value(usage.cpu_ns),
        usage_nano_cores: nano_cores.and_then(value),
        psi: usage.pressure.cpu.map(pressure),
    }
}

fn memory(at: i64, usage: &Usage) -> proto::MemoryUsage {
    let memory = &usage.memory;
    proto::MemoryUsage {
        timestamp: at,
        working_set_bytes: value(memory.working_set),
        available_bytes: memory.available.and_then(value),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: usage.pressure.memory.map(pressure),
    }
}

fn io(at: i64, usage: &Usage) -> proto::IoUsage {
    proto::IoUsage { timestamp: at, psi: usage.pressure.io.map(pressure) }
}

fn interface(stats: &InterfaceStats) -> proto::NetworkInterfaceUsage {
    proto::NetworkInterfaceUsage {
        name: stats.name.clone(),
        rx_bytes: value(stats.rx_bytes),
        rx_errors: value(stats.rx_errors),
        tx_bytes: value(stats.tx_bytes),
        tx_errors: value(stats.tx_errors),
    }
}

/// What a writable layer takes, and in which file system.
pub fn filesystem(layer: Layer, mountpoint: &str) -> proto::FilesystemUsage {
    proto::FilesystemUsage {
        timestamp: layer.at.nanoseconds(),
        fs_id: Some(proto::FilesystemIdentifier { mountpoint: mountpoint.into() }),
        used_bytes: value(layer.bytes),
        inodes_used: value(layer.inodes),
    }
}

fn value(value: u64) -> Option<proto::UInt64Value> {
    Some(proto::UInt64Value { value })
}

/// The totals are nanoseconds in CRI and microseconds in the kernel.
fn pressure(pressure: Pressure) -> proto::PsiStats {
    let line = |line: PressureLine| proto::PsiData {
        total: line.total_us.saturating_mul(1000),
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    proto::PsiStats { full: Some(line(pressure.full)), some: Some(line(pressure.some)) }
}
