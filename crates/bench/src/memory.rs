//! What a runtime costs while nothing happens: memory of the daemon and its helpers, and processor time.

use crate::processes::{cpu_nanos, helpers, memory};
use crate::report::Report;
use crate::target::Target;
use std::time::{Duration, Instant};

const SECTION: &str = "Memory and idle processor use";

/// Notes the daemon's memory before it has pods. Nothing is noted of a target without a process id.
pub(crate) fn idle(target: &Target, report: &mut Report) {
    if let Some(usage) = target.daemon_pid.and_then(memory) {
        report.add(SECTION, "daemon PSS without pods (MiB)", &target.name, usage.pss_kib / 1024.0);
    }
}

/// Notes memory while `count` pods are there; `before` is what was available without them.
pub(crate) fn with_pods(target: &Target, count: usize, before: u64, report: &mut Report) {
    let fall = before.saturating_sub(available_bytes()) as f64 / f64::from(1 << 20) / count as f64;
    let name = &target.name;
    report.add(SECTION, &format!("fall of MemAvailable per pod, {count} pods (MiB)"), name, fall);
    let Some(daemon) = target.daemon_pid else { return };
    if let Some(usage) = memory(daemon) {
        report.add(SECTION, &format!("daemon PSS with {count} pods (MiB)"), name, usage.pss_kib / 1024.0);
    }
    let all: Vec<_> = helpers(daemon, &report.cgroup_parent).into_iter().filter_map(memory).collect();
    let per_pod = |kib: f64| kib / 1024.0 / count as f64;
    let pss = all.iter().map(|usage| usage.pss_kib).sum();
    let private = all.iter().map(|usage| usage.private_kib).sum();
    let rss = all.iter().map(|usage| usage.rss_kib).sum();
    report.add(SECTION, "helpers: PSS per pod (MiB)", name, per_pod(pss));
    report.add(SECTION, "helpers: private memory per pod (MiB)", name, per_pod(private));
    report.add(SECTION, "helpers: RSS per pod (MiB)", name, per_pod(rss));
    report.add(SECTION, "helpers: processes per pod", name, all.len() as f64 / count as f64);
}

/// The memory of all helpers, in MiB.
pub(crate) fn helpers_pss_mib(daemon: i32, cgroup_parent: &str) -> f64 {
    let all = helpers(daemon, cgroup_parent).into_iter().filter_map(memory);
    all.map(|usage| usage.pss_kib / 1024.0).sum()
}

/// Notes how much of one processor the daemon and its helpers use over `seconds` in which nobody asks anything.
pub(crate) async fn idle_cpu(target: &Target, count: usize, seconds: u64, report: &mut Report) {
    let Some(daemon) = target.daemon_pid.filter(|_| seconds > 0) else { return };
    let mut all = helpers(daemon, &report.cgroup_parent);
    let used = |pids: &[i32]| pids.iter().map(|pid| cpu_nanos(*pid)).sum::<u64>();
    let (began, daemon_before, helpers_before) = (Instant::now(), cpu_nanos(daemon), used(&all));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    if let Some(usage) = memory(daemon) {
        let measure = format!("daemon PSS with {count} pods, after {seconds} s (MiB)");
        report.add(SECTION, &measure, &target.name, usage.pss_kib / 1024.0);
    }
    // One that has ended meanwhile would count as negative time.
    all.retain(|pid| cpu_nanos(*pid) > 0);
    let nanos = began.elapsed().as_nanos() as f64;
    let percent = |before: u64, now: u64| now.saturating_sub(before) as f64 / nanos * 100.0;
    let daemon_percent = percent(daemon_before, cpu_nanos(daemon));
    let whole = daemon_percent + percent(helpers_before, used(&all));
    report.add(
        SECTION,
        &format!("idle CPU with {count} pods: daemon (% of one)"),
        &target.name,
        daemon_percent,
    );
    report.add(
        SECTION,
        &format!("idle CPU with {count} pods: daemon and helpers (% of one)"),
        &target.name,
        whole,
    );
}

/// What the kernel says could still be used (proc_meminfo(5)), in bytes.
pub(crate) fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
