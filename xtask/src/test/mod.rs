//! `cargo xtask test`: formatting, lints, tidy and every test, and at the end what passed, what failed, and what was skipped and why.

pub(crate) mod host;
pub(crate) mod orphans;
pub(crate) mod outcome;
pub(crate) mod program;
mod skips;

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{command, tidy};
use outcome::Totals;
use program::Program;

/// No test program takes as long as this; one that does hangs, and is killed.
const DEADLINE: Duration = Duration::from_secs(600);

struct Options {
    /// Only tests whose names contain it; then formatting and lints are left out.
    filter: Option<String>,
    shared_host: bool,
}

/// Runs everything. An error means that something failed, which has been printed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(at) = args.iter().position(|arg| arg == "--vm") {
        let words = [&args[..at], &args[at + 1..]].concat();
        return crate::vm::all(&words);
    }
    let options = Options {
        filter: args.iter().find(|arg| !arg.starts_with('-')).cloned(),
        shared_host: args.iter().any(|arg| arg == "--shared-host")
            || std::env::var_os("PINTLE_SHARED_HOST").is_some(),
    };
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true" || ci == "1");
    let mut totals = Totals::default();

    if options.filter.is_none() {
        totals.stage("formatting", || command::run(&mut command::cargo(&["fmt", "--all", "--check"])));
        totals.stage("tidy", tidy::run);
        totals.stage("lints", || clippy(&["--all-targets"], &["warnings"]));
        // Tests may panic; what ships may not, whatever it is given.
        totals.stage("no panic in what ships", || {
            clippy(&["--lib", "--bins"], &["clippy::unwrap_used", "clippy::panic", "clippy::unreachable"])
        });
    }
    match Program::build_all(&features(&mut totals)) {
        Ok(programs) => run_programs(&programs, &options, &mut totals)?,
        Err(error) => totals.fail("building the tests", format!("{error:#}")),
    }
    if options.filter.is_none() {
        totals.stage("documentation's examples", || {
            let examples = ["test", "--workspace", "--doc", "--locked", "--quiet"];
            let output = command::cargo(&examples).output().context("cannot start cargo")?;
            if !output.status.success() {
                std::io::stdout().write_all(&output.stdout)?;
                std::io::stderr().write_all(&output.stderr)?;
                bail!("cargo {} ended with {}", examples.join(" "), output.status);
            }
            Ok(())
        });
    }
    finish(totals, ci)
}

/// Runs clippy on every crate; each of `denied` is an error.
fn clippy(targets: &[&str], denied: &[&str]) -> Result<()> {
    let mut cargo = command::cargo(&["clippy", "--workspace", "--locked", "--quiet"]);
    cargo.args(targets).arg("--");
    for lint in denied {
        cargo.args(["-D", lint]);
    }
    command::run(&mut cargo)
}

/// A header, and the feature with whose tests it is needed: the seccomp compiler is compared with libseccomp where that can be linked.
const ORACLE: (&str, &str) = ("/usr/include/seccomp.h", "seccomp/libseccomp-oracle");

pub(crate) fn features(totals: &mut Totals) -> Vec<&'static str> {
    let (header, feature) = ORACLE;
    if std::path::Path::new(header).exists() {
        return vec![feature];
    }
    let reason = format!("{header} is missing (Debian and Ubuntu: libseccomp-dev)");
    totals.skipped.push(outcome::Skip { test: feature.to_owned(), reason });
    Vec::new()
}

fn run_programs(programs: &[Program], options: &Options, totals: &mut Totals) -> Result<()> {
    let before = host::Snapshot::take();
    let scratch =
        tempfile::Builder::new().prefix("pt-").tempdir().context("a folder for the tests' files")?;
    let mut orphans = orphans::Orphans::adopt()?;
    for program in programs {
        let start = Instant::now();
        let outcome = program.run(options.filter.as_deref(), scratch.path(), DEADLINE)?;
        totals.add(&program.name, outcome, start.elapsed());
        for left in orphans.collect() {
            totals.fail(&program.name, format!("left a process running: {left}"));
        }
        for left in emptied(scratch.path())? {
            totals.fail(&program.name, format!("left a temporary file: {left}"));
        }
    }
    let differences = host::settled_difference(&before, Duration::from_secs(10));
    for difference in differences {
        if options.shared_host {
            println!("  note: the host changed, by these tests or by somebody else: {difference}");
        } else {
            totals.fail("the host", format!("is not as it was: {difference}"));
        }
    }
    Ok(())
}

/// What stands in the folder, which is empty afterwards, so that each program answers for its own.
fn emptied(folder: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let removed = if path.is_dir() && !path.is_symlink() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            names.push(format!("{} (and it cannot be removed: {error})", path.display()));
        }
    }
    Ok(names)
}

fn finish(mut totals: Totals, ci: bool) -> Result<()> {
    let allowed = skips::Allowed::read(&command::root().join(".ci/skips.txt"))?;
    println!();
    for skip in &totals.skipped {
        let why = allowed.reason(&skip.reason);
        let note = why.map(|why| format!(" [allowed: {why}]")).unwrap_or_default();
        println!("skipped  {}: {}{note}", skip.test, skip.reason);
        if ci && why.is_none() {
            totals.failures.push(format!(
                "{}: was skipped, and .ci/skips.txt does not allow it: {}",
                skip.test, skip.reason
            ));
        }
    }
    for failure in &totals.failures {
        println!("FAILED   {failure}");
    }
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failures.len(), totals.skipped.len());
    if !totals.failures.is_empty() {
        bail!("{} failed", totals.failures.len());
    }
    Ok(())
}
