//! Processes, what they hold open, and when the container came to be.

use super::{Family, gauge, gauges, moment};

pub(super) const FAMILIES: &[Family] = &[
    gauge("container_processes", "Processes.", |look| Some(look.processes?.count)),
    gauge("container_threads", "Threads.", |look| Some(look.cgroup?.pids.current)),
    gauge("container_threads_max", "How many threads there may be; 0 for any number.", |look| {
        Some(look.cgroup?.pids.limit.unwrap_or(0))
    }),
    gauge("container_file_descriptors", "Open file descriptors.", |look| Some(look.processes?.descriptors)),
    gauge("container_sockets", "Open sockets.", |look| Some(look.processes?.sockets)),
    gauges(
        "container_ulimits_soft",
        "Soft limits of the first process; 18446744073709551615 for none.",
        &["ulimit"],
        |look, sink| {
            if let Some(limit) = look.processes.and_then(|processes| processes.open_files_limit) {
                sink.put(&["max_open_files"], limit);
            }
        },
    ),
    gauge("container_last_seen", "When it was measured, in seconds since 1970.", |look| moment(look.at)),
    gauge("container_start_time_seconds", "When it was started, in seconds since 1970.", |look| {
        moment(look.started_at)
    }),
    gauge("container_creation_time_seconds", "When it was made, in seconds since 1970.", |look| {
        moment(look.created_at)
    }),
];
