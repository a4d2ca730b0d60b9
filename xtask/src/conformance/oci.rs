//! The OCI's validation programs for runtimes, run with our OCI runtime and with runc, and what the two pass.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Options;
use super::clients;
use crate::command;

const MODULE: &str = "github.com/opencontainers/runtime-tools";
const VERSION: &str = "v0.9.1-0.20251205004911-5e639034dcdc";
/// Programs that fail with ours, and why: `name -- reason`.
const KNOWN: &str = "conformance/oci-failing.txt";
/// How long one program may take, in seconds.
const LIMIT: &str = "120";

/// What a program said.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    passed: usize,
    /// The descriptions of what is not ok; of a program that did not get to its end, that.
    failed: Vec<String>,
}

impl Verdict {
    fn is_pass(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Runs all programs, or those whose names hold `--focus`; an error where ours fails one that is not known to fail.
pub(super) fn run(options: &Options) -> Result<()> {
    if !command::is_root() {
        bail!("the validation programs make containers: run this as root");
    }
    let folder = build()?;
    let scratch = tempfile::tempdir()?;
    let ours = scratch.path().join("pintle-oci");
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => super::daemon::build()?,
    };
    symlink(&binary, &ours)?;
    let runc = command::find("runc");
    let mut programs: Vec<String> = fs::read_dir(folder.join("bin"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    programs.sort();
    let wanted = |name: &String| options.focus.as_ref().is_none_or(|focus| name.contains(focus.as_str()));
    let text = fs::read_to_string(command::root().join(KNOWN))?;
    let known = known(&text, cgroup_version());
    let (mut unexpected, mut passed) = (0, (0, 0));
    println!("{:32} {:10} {:10}", "", "runc", "ours");
    for name in programs.iter().filter(|name| wanted(name)) {
        let theirs = runc.as_ref().map(|runc| verdict(&folder, name, runc)).transpose()?;
        let own = verdict(&folder, name, &ours)?;
        let word = |verdict: &Verdict| if verdict.is_pass() { "passed" } else { "FAILED" };
        let reason = known.get(name.as_str()).copied();
        println!(
            "{name:32} {:10} {:10} {}",
            theirs.as_ref().map_or("-", word),
            word(&own),
            reason.unwrap_or_default()
        );
        own.failed.iter().for_each(|line| println!("    ours: {line}"));
        theirs.iter().flat_map(|theirs| &theirs.failed).for_each(|line| println!("    runc: {line}"));
        passed.0 += usize::from(own.is_pass());
        passed.1 += usize::from(theirs.as_ref().is_some_and(Verdict::is_pass));
        unexpected += usize::from(!own.is_pass() && reason.is_none());
    }
    println!("{} pass with ours, {} with runc", passed.0, passed.1);
    if unexpected > 0 {
        bail!("{unexpected} programs fail that {KNOWN} does not name");
    }
    Ok(())
}

/// The folder with the programs in `bin`, and beside it what they use in containers.
pub(crate) fn build() -> Result<PathBuf> {
    let cache = clients::cache()?;
    let folder = cache.join(format!("runtime-tools-{VERSION}"));
    if folder.join("runtimetest").is_file() {
        return Ok(folder);
    }
    if command::find("go").is_none() {
        bail!(
            "building the validation programs needs Go (https://go.dev/dl, or Debian's golang-go from backports)"
        );
    }
    let source = clients::copy_of(MODULE, VERSION, &folder.join("source"))?;
    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    let go = |arguments: &[&str], to: &Path| {
        println!("building {}", to.display());
        let mut go = Command::new("go");
        go.args(["build", "-trimpath", "-o"]).arg(to).args(arguments).current_dir(&source);
        // The module's folder of copies comes without them.
        command::run(go.env("CGO_ENABLED", "0").env("GOFLAGS", "-p=2 -mod=mod"))
    };
    go(&["./validation/..."], &bin)?;
    for entry in fs::read_dir(&source)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("rootfs-") {
            fs::copy(entry.path(), folder.join(entry.file_name()))?;
        }
    }
    go(&["./cmd/runtimetest"], &folder.join("runtimetest"))?;
    fs::remove_dir_all(&source)?;
    Ok(folder)
}

fn verdict(folder: &Path, name: &str, runtime: &Path) -> Result<Verdict> {
    let mut program = Command::new("timeout");
    program.args(["-k", "5", LIMIT]).arg(folder.join("bin").join(name)).env("RUNTIME", runtime);
    let done = program.current_dir(folder).stdin(Stdio::null()).output().context("cannot start timeout")?;
    let text = [done.stdout, done.stderr].concat();
    Ok(read(&String::from_utf8_lossy(&text), done.status.success(), &done.status.to_string()))
}

/// Reads what such a program prints (testanything.org): `ok` and `not ok` lines, and how many there should be.
fn read(text: &str, success: bool, status: &str) -> Verdict {
    let mut verdict = Verdict { passed: 0, failed: Vec::new() };
    let mut plan = None;
    for line in text.lines() {
        let skipped = line.contains("# SKIP") || line.contains("# TODO");
        if line.starts_with("ok ") || skipped {
            verdict.passed += 1;
        } else if let Some(what) = line.strip_prefix("not ok ") {
            verdict.failed.push(what.to_owned());
        } else if let Some(count) = line.strip_prefix("1..") {
            plan = count.split_whitespace().next().and_then(|count| count.parse::<usize>().ok());
        }
    }
    let seen = verdict.passed + verdict.failed.len();
    let last = || text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    match plan {
        // Some print the lines of what runs inside the container too, and then more than they plan.
        Some(plan) if plan > seen => verdict.failed.push(format!("{seen} of {plan} tests: {}", last())),
        // Those that only expect an error of the runtime plan nothing.
        None if !success || text.contains("panic:") => verdict.failed.push(format!("no plan: {}", last())),
        _ if !success && verdict.failed.is_empty() => verdict.failed.push(format!("{status}: {}", last())),
        _ => {}
    }
    verdict
}

/// The programs that fail where control groups are of `version`: of lines `name -- why`, and `name (v2) -- why` for those of one version.
fn known<'a>(text: &'a str, version: &str) -> BTreeMap<&'a str, &'a str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let lines = lines.map(|line| line.split_once(" -- ").unwrap_or((line, "no reason given")));
    lines
        .filter_map(|(name, why)| match name.split_once(" (") {
            None => Some((name, why)),
            Some((name, only)) => (only.trim_end_matches(')') == version).then_some((name, why)),
        })
        .collect()
}

/// Which control groups containers get here.
fn cgroup_version() -> &'static str {
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if version_2 { "v2" } else { "v1" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_is_understood() {
        let good = read("TAP version 13\nok 1 - a\n# x\nok 2 # SKIP no seccomp\n1..2\n", true, "");
        assert_eq!(good, Verdict { passed: 2, failed: vec![] });
        assert_eq!(read("ok 1\nnot ok 2 - b\n1..2\n", true, "").failed, ["2 - b"]);
        assert_eq!(read("ok 1\n1..3\n", true, "").failed.len(), 1);
        assert_eq!(read("panic: oh\n", false, "exit status: 2").failed, ["no plan: panic: oh"]);
        assert_eq!(read("ok 1\n1..1\nlater\n", false, "signal: 9").failed, ["signal: 9: later"]);
        let text = "# c\na -- why\nb (v2) -- new\nc (v1) -- old\n";
        assert_eq!(known(text, "v2"), BTreeMap::from([("a", "why"), ("b", "new")]));
    }
}
