//! The paths of /proc and /sys that a container should not read or write, for requests that leave the choice to the runtime.
//!
//! CRI carries the lists themselves, and an empty list means what it says: nothing is masked (`procMount: Unmasked`). A list cannot be
//! told from an absent one on the wire, but an absent security context can: whoever translates such a request, as hand-made ones are,
//! uses these lists.

use std::path::PathBuf;

/// Paths that a container sees as empty: what tells of the hardware, of keys, or of other processes' timing.
pub fn default_masked() -> Vec<PathBuf> {
    [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .map(PathBuf::from)
    .into()
}

/// Paths that a container cannot write.
pub fn default_readonly() -> Vec<PathBuf> {
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"].map(PathBuf::from).into()
}
