//! Memory, huge pages, and their limits.

use cgroup::{HugetlbStats, MemoryDetail, MemoryStats};

use super::{Family, Look, Needs, Sink, counter, counters, gauge, gauges};

fn memory<'a>(look: &Look<'a>) -> Option<&'a MemoryStats> {
    Some(&look.cgroup?.memory)
}

fn detail<'a>(look: &Look<'a>) -> Option<&'a MemoryDetail> {
    Some(&look.cgroup?.memory_detail)
}

fn huge_pages(look: &Look<'_>, sink: &mut Sink<'_>, value: fn(&HugetlbStats) -> u64) {
    for pages in look.cgroup.iter().flat_map(|stats| &stats.hugetlb) {
        sink.put(&[&pages.page_size], value(pages));
    }
}

pub(super) const FAMILIES: &[Family] = &[
    gauge("container_memory_usage_bytes", "All memory that is charged, in bytes.", |look| {
        Some(memory(look)?.usage)
    }),
    gauge("container_memory_working_set_bytes", "Memory that cannot simply be dropped, in bytes.", |look| {
        Some(memory(look)?.working_set)
    }),
    gauge("container_memory_max_usage_bytes", "The highest usage ever, in bytes.", |look| {
        detail(look)?.max_usage
    }),
    gauge("container_memory_rss", "Anonymous memory, in bytes.", |look| Some(memory(look)?.rss)),
    gauge("container_memory_cache", "Pages of files, in bytes.", |look| Some(memory(look)?.cache)),
    gauge("container_memory_mapped_file", "Mapped pages of files, in bytes.", |look| {
        Some(memory(look)?.mapped_file)
    }),
    gauge("container_memory_swap", "Swap in use, in bytes.", |look| Some(memory(look)?.swap_usage)),
    gauge("container_memory_kernel_usage", "Memory of the kernel itself, in bytes.", |look| {
        detail(look)?.kernel
    }),
    gauge(
        "container_memory_total_active_file_bytes",
        "Pages of files that were used lately, in bytes.",
        |look| Some(memory(look)?.active_file),
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Pages of files that were not used lately, in bytes.",
        |look| Some(memory(look)?.inactive_file),
    ),
    gauge(
        "container_memory_file_dirty_bytes",
        "Pages of files that differ from the disk, in bytes.",
        |look| Some(memory(look)?.dirty),
    ),
    gauge(
        "container_memory_file_writeback_bytes",
        "Pages of files on their way to the disk, in bytes.",
        |look| Some(memory(look)?.writeback),
    ),
    counter("container_memory_failcnt", "How often usage was about to exceed the limit.", |look| {
        Some(detail(look)?.failures)
    }),
    counters(
        "container_memory_failures_total",
        "Page faults, by whether a device was needed and whether groups below are counted.",
        &["failure_type", "scope"],
        |look, sink| {
            if let Some(memory) = memory(look) {
                sink.put(&["pgfault", "container"], memory.own_page_faults);
                sink.put(&["pgmajfault", "container"], memory.own_major_page_faults);
                sink.put(&["pgfault", "hierarchy"], memory.page_faults);
                sink.put(&["pgmajfault", "hierarchy"], memory.major_page_faults);
            }
        },
    ),
    counter(
        "container_memory_workingset_refault_anon_total",
        "Evicted anonymous pages that were needed again.",
        |look| memory(look)?.refaults_anon,
    ),
    counter(
        "container_memory_workingset_refault_file_total",
        "Evicted pages of files that were needed again.",
        |look| memory(look)?.refaults_file,
    ),
    counter("container_memory_pgscan_total", "Pages looked at to find some to evict.", |look| {
        memory(look)?.scanned
    })
    .needs(Needs::Version2),
    counter("container_memory_pgsteal_total", "Pages evicted.", |look| memory(look)?.reclaimed)
        .needs(Needs::Version2),
    counter("container_memory_events_high_total", "How often memory.high slowed the group down.", |look| {
        detail(look)?.high_events
    })
    .needs(Needs::Version2),
    counter("container_memory_events_max_total", "How often usage was about to exceed memory.max.", |look| {
        detail(look)?.max_events
    })
    .needs(Needs::Version2),
    counter("container_oom_events_total", "Processes killed for want of memory.", |look| {
        Some(look.cgroup?.oom_kills)
    }),
    // No limit is zero, as it is in cAdvisor.
    gauge("container_spec_memory_limit_bytes", "The limit of memory, in bytes; 0 for none.", |look| {
        Some(memory(look)?.limit.unwrap_or(0))
    }),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "What is kept when memory is short, in bytes; 0 for nothing.",
        |look| Some(detail(look)?.reservation),
    ),
    gauge(
        "container_spec_memory_swap_limit_bytes",
        "The limit of swap (cgroup v1: of memory and swap together), in bytes; 0 for none.",
        |look| Some(detail(look)?.memory_and_swap_limit.or(memory(look)?.swap_limit).unwrap_or(0)),
    ),
    gauges("container_hugetlb_usage_bytes", "Huge pages in use, in bytes.", &["pagesize"], |look, sink| {
        huge_pages(look, sink, |pages| pages.usage);
    })
    .needs(Needs::HugePages),
    gauges(
        "container_hugetlb_max_usage_bytes",
        "Most huge pages ever in use, in bytes.",
        &["pagesize"],
        |look, sink| huge_pages(look, sink, |pages| pages.max_usage),
    )
    .needs(Needs::HugePages),
    counters(
        "container_hugetlb_failcnt",
        "Huge pages refused because of their limit.",
        &["pagesize"],
        |look, sink| huge_pages(look, sink, |pages| pages.failures),
    )
    .needs(Needs::HugePages),
];
