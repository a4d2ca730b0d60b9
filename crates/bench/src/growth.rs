//! How a runtime grows with its pods: what one more pod takes, lists, memory and threads at 1, 10, 100, ... pods, as a table and as a picture.

use crate::many;
use crate::memory;
use crate::pods::{Plan, Running};
use crate::processes;
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result};
use cri::runtime_v1 as v1;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;

/// How often each call is made at each count.
const CALLS: usize = 20;

/// How many pods are made one at a time at the end of each step; the others before come ten at a time.
const TIMED: usize = 10;

/// What is drawn, each over the number of pods.
const PANELS: [(&str, &str); 4] = [
    ("one more pod (ms)", "a pod more (ms)"),
    ("ListContainers (ms)", "ListContainers (ms)"),
    ("daemon PSS (MiB)", "the daemon's memory (MiB)"),
    ("daemon threads", "the daemon's threads"),
];

/// Goes through the counts, the lowest first, and leaves no pod.
pub(crate) async fn measure(
    target: &Target,
    plan: &Plan,
    counts: &[usize],
    report: &mut Report,
) -> Result<()> {
    let mut pods: Vec<Running> = Vec::new();
    for count in counts {
        let section = format!("Growth: {count} pods");
        let missing = count.saturating_sub(pods.len());
        let quickly = missing.saturating_sub(TIMED);
        pods.extend(many::start_all(target, plan, quickly, 10, "", &mut Report::nothing()).await?);
        for _ in quickly..missing {
            let began = Instant::now();
            pods.extend(many::start_all(target, plan, 1, 1, "", &mut Report::nothing()).await?);
            report.add(&section, PANELS[0].0, &target.name, began.elapsed().as_secs_f64() * 1e3);
        }
        let mut runtime = target.runtime();
        for _ in 0..CALLS {
            let began = Instant::now();
            runtime.list_containers(v1::ListContainersRequest::default()).await.context("ListContainers")?;
            report.add(&section, PANELS[1].0, &target.name, began.elapsed().as_secs_f64() * 1e3);
            let began = Instant::now();
            let stats = v1::ListContainerStatsRequest::default();
            runtime.list_container_stats(stats).await.context("ListContainerStats")?;
            report.add(
                &section,
                "ListContainerStats (ms)",
                &target.name,
                began.elapsed().as_secs_f64() * 1e3,
            );
        }
        if let Some(daemon) = target.daemon_pid {
            if let Some(usage) = processes::memory(daemon) {
                report.add(&section, PANELS[2].0, &target.name, usage.pss_kib / 1024.0);
            }
            report.add(&section, PANELS[3].0, &target.name, processes::threads(daemon) as f64);
            let descriptors = processes::descriptors(daemon) as f64;
            report.add(&section, "daemon descriptors", &target.name, descriptors);
            let helpers = memory::helpers_pss_mib(daemon, &report.cgroup_parent.clone());
            report.add(&section, "helpers: PSS per pod (MiB)", &target.name, helpers / *count as f64);
        }
    }
    many::remove_all(target, pods, 10).await
}

/// The picture of what was measured: a panel each, a line per runtime, both axes logarithmic.
pub(crate) fn picture(report: &Report, runtimes: &[String], counts: &[usize]) -> String {
    const WIDTH: f64 = 360.0;
    const HEIGHT: f64 = 220.0;
    const COLOURS: [&str; 4] = ["#0b6e4f", "#c44536", "#3d5a80", "#8d6a9f"];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * WIDTH,
        2.0 * HEIGHT
    );
    for (number, (measure, title)) in PANELS.iter().enumerate() {
        let (left, top) = ((number % 2) as f64 * WIDTH + 50.0, (number / 2) as f64 * HEIGHT + 30.0);
        let (wide, high) = (WIDTH - 80.0, HEIGHT - 70.0);
        let value =
            |runtime: &str, count: usize| report.median(&format!("Growth: {count} pods"), measure, runtime);
        let all = || counts.iter().flat_map(|count| runtimes.iter().filter_map(|name| value(name, *count)));
        let least = 10f64.powf(all().fold(f64::MAX, f64::min).max(1e-3).log10().floor());
        let most = 10f64.powf(all().fold(0.0, f64::max).max(least * 1.01).log10().ceil());
        let last = counts.last().copied().unwrap_or(1).max(2) as f64;
        let x = |count: usize| left + (count.max(1) as f64).ln() / last.ln() * wide;
        let y = |value: f64| top + high - (value.max(least) / least).ln() / (most / least).ln() * high;
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>", top - 12.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{wide}\" height=\"{high}\" fill=\"none\" stroke=\"#999\"/>"
        );
        let mut mark = least;
        while mark <= most * 1.001 {
            let at = y(mark);
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>",
                left + wide,
                left - 4.0,
                at + 4.0
            );
            mark *= 10.0;
        }
        for count in counts {
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{count}</text>",
                x(*count),
                top + high + 14.0
            );
        }
        for (runtime, colour) in runtimes.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<(f64, f64)> =
                counts.iter().filter_map(|count| Some((x(*count), y(value(runtime, *count)?)))).collect();
            let line: String = points.iter().map(|(x, y)| format!("{x:.1},{y:.1} ")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{line}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            );
            for (x, y) in &points {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
            }
            if let Some((_, y)) = points.last() {
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"{colour}\">{runtime}</text>",
                    left + wide - 6.0,
                    y - 6.0
                );
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// Writes the picture.
pub(crate) fn draw(report: &Report, runtimes: &[String], counts: &[usize], file: &Path) -> Result<()> {
    std::fs::write(file, picture(report, runtimes, counts))
        .with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_for_each_count_and_runtime() {
        let mut report = Report::nothing();
        for (count, value) in [(1, 5.0), (10, 6.0), (100, 7.0)] {
            for (measure, _) in PANELS {
                report.add(&format!("Growth: {count} pods"), measure, "pintle", value);
            }
        }
        let svg = picture(&report, &["pintle".into(), "absent".into()], &[1, 10, 100]);
        assert_eq!(svg.matches("<circle").count(), 12);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
    }
}
