//! Kubernetes' validation suite for CRI: running it, and saying which specs passed, failed and were skipped.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Options;
use super::clients::Clients;
use super::daemon::Daemon;
use super::images;
use crate::command;
use crate::test::outcome::{Outcome, Skip};

/// A spec's name and, where it did not pass, why.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    name: String,
    why: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    passed: Vec<Spec>,
    failed: Vec<Spec>,
    skipped: Vec<Spec>,
}

/// Runs the suite one spec at a time. An error where a spec fails that the list of those known to does not name.
pub(super) fn run(clients: &Clients, daemon: &Daemon, options: &Options) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let file = scratch.path().join("report.json");
    let mut critest = Command::new(images::patched_critest(clients));
    critest.args(["-runtime-endpoint", &daemon.endpoint, "-image-endpoint", &daemon.endpoint]);
    if let Some(nri) = daemon.nri.as_ref().filter(|_| knows_nri(&clients.critest)) {
        critest.arg("-nri-socket").arg(nri);
    }
    critest.arg("--ginkgo.no-color").arg(format!("--ginkgo.json-report={}", file.display()));
    critest.args(options.focus.as_ref().map(|focus| format!("--ginkgo.focus={focus}")));
    critest.args(options.skip.as_ref().map(|skip| format!("--ginkgo.skip={skip}")));
    if options.websocket {
        critest.args(["-websocket-exec", "-websocket-attach", "-websocket-portforward"]);
    }
    // Its report goes to where it stands; its words, which are many, to a file beside the clients.
    let words = clients.cache.join("critest.log");
    let log = fs::File::create(&words)?;
    critest.current_dir(scratch.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    println!("critest is running; its words are in {}", words.display());
    let status = critest.status().context("cannot start critest")?;

    let report =
        fs::read(&file).with_context(|| format!("critest ended with {status} and left no report"))?;
    let report = read(&serde_json::from_slice(&report)?);
    let failing =
        options.failing.clone().unwrap_or_else(|| command::root().join("conformance/critest-failing.txt"));
    let known = known(&failing)?;
    let unexpected = print(&report, &known, &failing);
    if report.passed.is_empty() {
        bail!("no spec passed");
    }
    if unexpected > 0 {
        bail!("{unexpected} specs failed that {} does not name", failing.display());
    }
    Ok(())
}

/// The report of a run elsewhere, and the names of what passed on standard output.
pub(crate) fn outcome(report: &Value) -> Outcome {
    let report = read(report);
    for spec in &report.passed {
        println!("passed   {}", spec.name);
    }
    let skip = |spec: Spec| Skip { test: spec.name, reason: shortened(&spec.why) };
    let failure = |spec: Spec| format!("{}: {}", spec.name, shortened(&spec.why));
    Outcome {
        passed: report.passed.len(),
        failed: report.failed.into_iter().map(failure).collect(),
        skipped: report.skipped.into_iter().map(skip).collect(),
        complete: true,
    }
}

/// Whether this critest has specs of NRI: those after 1.36.0 have.
fn knows_nri(critest: &Path) -> bool {
    let help = Command::new(critest).arg("--help").output();
    help.is_ok_and(|help| [help.stdout, help.stderr].concat().windows(10).any(|word| word == b"nri-socket"))
}

fn read(report: &Value) -> Report {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut read = Report::default();
    for suite in list(report) {
        for spec in list(&suite["SpecReports"]).iter().filter(|spec| spec["LeafNodeType"] == "It") {
            let texts =
                list(&spec["ContainerHierarchyTexts"]).into_iter().chain([spec["LeafNodeText"].clone()]);
            let name =
                texts.filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<_>>().join(" ");
            let why = spec["Failure"]["Message"]
                .as_str()
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            let to = match spec["State"].as_str() {
                Some("passed") => &mut read.passed,
                // Not chosen by focus and skip: without a reason.
                Some("skipped" | "pending") if why.is_empty() => continue,
                Some("skipped" | "pending") => &mut read.skipped,
                _ => &mut read.failed,
            };
            to.push(Spec { name, why });
        }
    }
    read
}

/// Parts of specs' names that fail for a known reason; `#` begins a comment, ` -- ` the reason.
fn known(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| line.split(" -- ").next().unwrap_or(line).trim().to_owned()).collect())
}

/// Prints everything but what passed, and returns how many failed unexpectedly.
fn print(report: &Report, known: &[String], failing: &Path) -> usize {
    let is_known = |spec: &Spec| known.iter().any(|part| spec.name.contains(part));
    for spec in &report.skipped {
        println!("skipped  {}: {}", spec.name, shortened(&spec.why));
    }
    for spec in &report.failed {
        let mark = if is_known(spec) { "known   " } else { "FAILED  " };
        println!("{mark} {}: {}", spec.name, shortened(&spec.why));
    }
    for spec in report.passed.iter().filter(|spec| is_known(spec)) {
        println!("passes now, take it out of {}: {}", failing.display(), spec.name);
    }
    println!(
        "critest: {} passed, {} failed, {} skipped",
        report.passed.len(),
        report.failed.len(),
        report.skipped.len()
    );
    report.failed.iter().filter(|spec| !is_known(spec)).count()
}

fn shortened(why: &str) -> String {
    let mut short: String = why.chars().take(300).collect();
    if short.len() < why.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let report = serde_json::json!([{ "SpecReports": [
            { "LeafNodeType": "It", "ContainerHierarchyTexts": ["[k8s.io] A", "b"], "LeafNodeText": "c", "State": "passed" },
            { "LeafNodeType": "It", "ContainerHierarchyTexts": [], "LeafNodeText": "d", "State": "failed", "Failure": { "Message": "no\n  way" } },
            { "LeafNodeType": "It", "ContainerHierarchyTexts": null, "LeafNodeText": "e", "State": "skipped", "Failure": { "Message": "no AppArmor" } },
            { "LeafNodeType": "It", "ContainerHierarchyTexts": null, "LeafNodeText": "f", "State": "skipped" },
            { "LeafNodeType": "BeforeSuite", "State": "passed" },
            { "LeafNodeType": "It", "LeafNodeText": "g", "State": "panicked" }
        ]}]);
        let spec = |name: &str, why: &str| Spec { name: name.into(), why: why.into() };
        let expected = Report {
            passed: vec![spec("[k8s.io] A b c", "")],
            failed: vec![spec("d", "no way"), spec("g", "")],
            skipped: vec![spec("e", "no AppArmor")],
        };
        assert_eq!(read(&report), expected);
    }

    #[test]
    fn a_known_failure_is_none() {
        let report =
            Report { failed: vec![Spec { name: "a b c".into(), why: String::new() }], ..Report::default() };
        assert_eq!(print(&report, &[], Path::new("f")), 1);
        assert_eq!(print(&report, &["b".to_owned()], Path::new("f")), 0);
    }
}
