//! Block devices, file systems and network interfaces.

use cgroup::DeviceIo;
use network::InterfaceStats;
use node::FileSystem;

use super::{Family, Look, Sink, counters, gauges};

fn devices(look: &Look<'_>, sink: &mut Sink<'_>, value: fn(&DeviceIo) -> u64) {
    for device in look.cgroup.iter().flat_map(|stats| &stats.io.devices) {
        sink.put(&[name(look, device)], value(device));
    }
}

fn name<'a>(look: &Look<'a>, device: &DeviceIo) -> &'a str {
    look.devices.get(&(device.major, device.minor)).map_or("", String::as_str)
}

fn filesystem(look: &Look<'_>, sink: &mut Sink<'_>, value: fn(&FileSystem) -> u64) {
    if let Some(filesystem) = look.filesystem {
        sink.put(&[&filesystem.device], value(filesystem));
    }
}

fn interfaces(look: &Look<'_>, sink: &mut Sink<'_>, value: fn(&InterfaceStats) -> u64) {
    for interface in look.interfaces {
        sink.put(&[&interface.name], value(interface));
    }
}

pub(super) const FAMILIES: &[Family] = &[
    counters(
        "container_blkio_device_usage_total",
        "Bytes read from, written to and discarded on block devices.",
        &["device", "major", "minor", "operation"],
        |look, sink| {
            for device in look.cgroup.iter().flat_map(|stats| &stats.io.devices) {
                let (major, minor) = (device.major.to_string(), device.minor.to_string());
                for (operation, value) in [
                    ("Read", device.read_bytes),
                    ("Write", device.written_bytes),
                    ("Discard", device.discarded_bytes),
                ] {
                    sink.put(&[name(look, device), &major, &minor, operation], value);
                }
            }
        },
    ),
    counters("container_fs_reads_total", "Reads from block devices.", &["device"], |look, sink| {
        devices(look, sink, |device| device.reads);
    }),
    counters("container_fs_writes_total", "Writes to block devices.", &["device"], |look, sink| {
        devices(look, sink, |device| device.writes);
    }),
    counters(
        "container_fs_reads_bytes_total",
        "Bytes read from block devices.",
        &["device"],
        |look, sink| devices(look, sink, |device| device.read_bytes),
    ),
    counters(
        "container_fs_writes_bytes_total",
        "Bytes written to block devices.",
        &["device"],
        |look, sink| devices(look, sink, |device| device.written_bytes),
    ),
    gauges(
        "container_fs_usage_bytes",
        "What the container wrote that is on the disk, in bytes.",
        &["device"],
        |look, sink| {
            if let (Some(layer), Some(filesystem)) = (look.layer, look.filesystem) {
                sink.put_at(&[&filesystem.device], layer.bytes, layer.at);
            }
        },
    ),
    gauges(
        "container_fs_limit_bytes",
        "The size of the file system that containers write to, in bytes.",
        &["device"],
        |look, sink| filesystem(look, sink, |whole| whole.bytes),
    ),
    gauges(
        "container_fs_inodes_total",
        "Inodes of the file system that containers write to.",
        &["device"],
        |look, sink| filesystem(look, sink, |whole| whole.inodes),
    ),
    gauges(
        "container_fs_inodes_free",
        "Free inodes of the file system that containers write to.",
        &["device"],
        |look, sink| filesystem(look, sink, |whole| whole.free_inodes),
    ),
    counters("container_network_receive_bytes_total", "Bytes received.", &["interface"], |look, sink| {
        interfaces(look, sink, |interface| interface.rx_bytes);
    }),
    counters("container_network_receive_packets_total", "Packets received.", &["interface"], |look, sink| {
        interfaces(look, sink, |interface| interface.rx_packets);
    }),
    counters(
        "container_network_receive_packets_dropped_total",
        "Received packets that were dropped.",
        &["interface"],
        |look, sink| interfaces(look, sink, |interface| interface.rx_dropped),
    ),
    counters(
        "container_network_receive_errors_total",
        "Errors while receiving.",
        &["interface"],
        |look, sink| interfaces(look, sink, |interface| interface.rx_errors),
    ),
    counters("container_network_transmit_bytes_total", "Bytes sent.", &["interface"], |look, sink| {
        interfaces(look, sink, |interface| interface.tx_bytes);
    }),
    counters("container_network_transmit_packets_total", "Packets sent.", &["interface"], |look, sink| {
        interfaces(look, sink, |interface| interface.tx_packets);
    }),
    counters(
        "container_network_transmit_packets_dropped_total",
        "Packets that were dropped instead of being sent.",
        &["interface"],
        |look, sink| interfaces(look, sink, |interface| interface.tx_dropped),
    ),
    counters(
        "container_network_transmit_errors_total",
        "Errors while sending.",
        &["interface"],
        |look, sink| interfaces(look, sink, |interface| interface.tx_errors),
    ),
];
