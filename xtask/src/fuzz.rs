//! `cargo xtask fuzz`: builds the program of all fuzz targets once, with coverage, and runs them beside each other for a while.
//!
//! libFuzzer with the compiler's own coverage works on the stable toolchain. What it found worth keeping stays in `target/fuzz/corpus`,
//! and what brought a target down in `target/fuzz/finds`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command;

const USAGE: &str = "\
cargo xtask fuzz [--seconds N] [--jobs N] [TARGET...]

  --seconds N   how long each target runs; 60 unless told
  --jobs N      how many run at a time; 2 unless told
  TARGET...     which; all unless told

To see one input again: PINTLE_FUZZ=TARGET target/debug/fuzz FILE";

struct Options {
    seconds: u64,
    jobs: usize,
    targets: Vec<String>,
}

/// What became of a target.
struct Outcome {
    target: String,
    executions: String,
    /// Edges and features, as libFuzzer's last line has them.
    coverage: String,
    failed: bool,
    log: PathBuf,
}

pub(crate) fn run(args: &[String]) -> Result<()> {
    let Some(options) = parse(args)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let program = build()?;
    let folder = command::target_dir().join("fuzz");
    let seeds = folder.join("seeds");
    let _ = fs::remove_dir_all(&seeds);
    command::run(Command::new(&program).env("PINTLE_FUZZ_SEEDS", &seeds))?;
    let mut all: Vec<String> = fs::read_dir(&seeds)
        .with_context(|| seeds.display().to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.ends_with(".dict"))
        .collect();
    all.sort();
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        bail!("{unknown} is no target; there are {}", all.join(", "));
    }
    let targets = if options.targets.is_empty() { all } else { options.targets };
    let outcomes = run_all(&program, &folder, targets, options.seconds, options.jobs)?;
    report(&outcomes, &folder)
}

fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options = Options { seconds: 60, jobs: 2, targets: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u64> {
            let value = args.next().with_context(|| format!("{arg} needs a number"))?;
            value.parse().with_context(|| format!("{arg} {value}"))
        };
        match arg.as_str() {
            "--seconds" => options.seconds = number()?.max(1),
            "--jobs" => options.jobs = number()?.max(1) as usize,
            "--help" | "-h" => return Ok(None),
            target if !target.starts_with('-') => options.targets.push(target.to_owned()),
            other => bail!("{other} is not known\n\n{USAGE}"),
        }
    }
    Ok(Some(options))
}

/// The workspace's own crates are compiled by `fuzz/rustc`; their dependencies are those of the tests.
fn build() -> Result<PathBuf> {
    let mut cargo = command::cargo(&["build", "--locked", "--package", "fuzz", "--features", "engine"]);
    cargo.env("RUSTC_WORKSPACE_WRAPPER", command::root().join("fuzz/rustc"));
    // The same as what dependencies have, so that these are not built again.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    command::run(&mut cargo)?;
    Ok(command::target_dir().join("debug/fuzz"))
}

fn run_all(
    program: &Path,
    folder: &Path,
    targets: Vec<String>,
    seconds: u64,
    jobs: usize,
) -> Result<Vec<Outcome>> {
    let mut waiting = VecDeque::from(targets);
    let mut running: Vec<(String, PathBuf, Child)> = Vec::new();
    let mut outcomes = Vec::new();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < jobs
            && let Some(target) = waiting.pop_front()
        {
            let (child, log) = start(program, folder, &target, seconds)?;
            running.push((target, log, child));
        }
        let mut at = 0;
        while at < running.len() {
            match running[at].2.try_wait()? {
                None => at += 1,
                Some(status) => {
                    let (target, log, _) = running.swap_remove(at);
                    let outcome = judge(target, log, !status.success())?;
                    println!("{}", line(&outcome));
                    outcomes.push(outcome);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(outcomes)
}

fn start(program: &Path, folder: &Path, target: &str, seconds: u64) -> Result<(Child, PathBuf)> {
    let own = |kind: &str| folder.join(kind).join(target);
    let (corpus, finds, log) = (own("corpus"), own("finds"), folder.join(format!("{target}.log")));
    for path in [&corpus, &finds] {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    }
    let dictionary = folder.join("seeds").join(format!("{target}.dict"));
    let dictionary = dictionary.is_file().then(|| format!("-dict={}", dictionary.display()));
    let output = File::create(&log).with_context(|| log.display().to_string())?;
    let child = Command::new(program)
        .env("PINTLE_FUZZ", target)
        .env("RUST_BACKTRACE", "1")
        .arg(format!("-max_total_time={seconds}"))
        .args(dictionary)
        .arg(format!("-artifact_prefix={}/", finds.display()))
        .args([
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-max_len=16384",
            "-print_final_stats=1",
            "-use_value_profile=1",
        ])
        .arg(&corpus)
        .arg(own("seeds"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| program.display().to_string())?;
    Ok((child, log))
}

fn judge(target: String, log: PathBuf, failed: bool) -> Result<Outcome> {
    let bytes = fs::read(&log).with_context(|| log.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let executions = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    // #4194304 pulse  cov: 1523 ft: 4711 corp: ...
    let progress = text.lines().rev().find(|line| line.contains(" cov: ") && line.contains(" ft: "));
    let number = |name: &str| {
        let mut words = progress.unwrap_or_default().split_whitespace();
        words.find(|word| *word == name).and_then(|_| words.next()).unwrap_or("?").to_owned()
    };
    let coverage = format!("{} edges, {} features", number("cov:"), number("ft:"));
    let executions = executions.map_or("?", str::trim).to_owned();
    Ok(Outcome { target, executions, coverage, failed, log })
}

fn line(outcome: &Outcome) -> String {
    let end = if outcome.failed { "FAILED" } else { "ok" };
    format!(
        "fuzz {:<12} {end:<7} {:>10} executions, {}",
        outcome.target, outcome.executions, outcome.coverage
    )
}

fn report(outcomes: &[Outcome], folder: &Path) -> Result<()> {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.failed).collect();
    for outcome in &failed {
        let bytes = fs::read(&outcome.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("\n{}:", outcome.log.display());
        let from =
            lines.iter().position(|line| line.contains("panicked at") || line.contains("ERROR: libFuzzer"));
        for line in lines.iter().skip(from.unwrap_or(lines.len().saturating_sub(30))).take(30) {
            eprintln!("  {line}");
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = failed.iter().map(|outcome| outcome.target.as_str()).collect();
    bail!("{} failed; the inputs are in {}", names.join(", "), folder.join("finds").display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_understood() {
        let folder = std::env::temp_dir().join(format!("pintle-xtask-fuzz-{}", std::process::id()));
        let text = "#2 INITED cov: 10 ft: 11 corp: 1/1b\n#9\tDONE   cov: 152 ft: 471 corp: 3/9b\nstat::number_of_executed_units: 9\n";
        fs::write(&folder, text).unwrap();
        let outcome = judge("t".into(), folder.clone(), false).unwrap();
        fs::remove_file(folder).unwrap();
        assert_eq!(
            (outcome.executions.as_str(), outcome.coverage.as_str()),
            ("9", "152 edges, 471 features")
        );
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let options = parse(&args("--seconds 5 layer")).unwrap().unwrap();
        assert_eq!((options.seconds, options.jobs, options.targets), (5, 2, vec!["layer".to_owned()]));
        assert!(parse(&args("--second 5")).is_err() && parse(&args("--seconds x")).is_err());
        assert!(parse(&args("--help")).unwrap().is_none());
    }
}
