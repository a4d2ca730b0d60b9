//! What containers use, as CRI says it.

use cgroup::{Pressure, PressureLine};
use node::{ContainerStats, Layer};

use super::status::container_metadata;
use crate::runtime_v1 as proto;

/// The statistics of one container. What is not known is absent, never zero.
pub fn container(stats: &ContainerStats, mountpoint: &str) -> proto::ContainerStats {
    let at = stats.at.nanoseconds();
    let record = &stats.record;
    let group = stats.cgroup.as_ref();
    proto::ContainerStats {
        attributes: Some(proto::ContainerAttributes {
            id: record.id.to_string(),
            metadata: Some(container_metadata(record)),
            labels: record.request.labels.clone(),
            annotations: record.request.annotations.clone(),
        }),
        cpu: group.map(|group| proto::CpuUsage {
            timestamp: at,
            usage_core_nano_seconds: value(group.cpu.usage_ns),
            usage_nano_cores: stats.usage_nano_cores.and_then(value),
            psi: group.cpu.pressure.map(pressure),
        }),
        memory: group.map(|group| proto::MemoryUsage {
            timestamp: at,
            working_set_bytes: value(group.memory.working_set),
            available_bytes: group.memory.available.and_then(value),
            usage_bytes: value(group.memory.usage),
            rss_bytes: value(group.memory.rss),
            page_faults: value(group.memory.page_faults),
            major_page_faults: value(group.memory.major_page_faults),
            psi: group.memory.pressure.map(pressure),
        }),
        writable_layer: stats.writable_layer.map(|layer| filesystem(layer, mountpoint)),
        swap: group.map(|group| proto::SwapUsage {
            timestamp: at,
            swap_available_bytes: group
                .memory
                .swap_limit
                .and_then(|limit| value(limit.saturating_sub(group.memory.swap_usage))),
            swap_usage_bytes: value(group.memory.swap_usage),
        }),
        io: group.map(|group| proto::IoUsage { timestamp: at, psi: group.io.pressure.map(pressure) }),
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
