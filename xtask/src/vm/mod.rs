//! `cargo xtask vm`: the tests as root on a machine of their own, emulated, whose control groups are version 2 alone and whose kernel is Debian's.

mod cache;
mod cpio;
mod disk;
mod jobs;
mod machine;
mod modules;
mod options;
mod selinux;
mod suite;
mod system;
mod validation;

use anyhow::{Result, bail};

use crate::command;
use crate::test::outcome::Totals;
use crate::test::program::{self, Built};
use machine::{Ended, Event};
use options::{Options, Suite, SuiteKind};

/// The crates whose tests ask a kernel for something.
const CRATES: &[&str] =
    &["sys", "cgroup", "seccomp", "store", "runtime", "shim", "image", "network", "node", "pintle"];

/// `cargo xtask test --vm`: everything in the plain machine, and then what is about systemd under systemd.
pub(crate) fn all(args: &[String]) -> Result<()> {
    let plain = run(args);
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let files = "--systemd -p cgroup -p pintle -t systemd -t life -t lifecycle -t checkpoint";
    let under_systemd = run(&words(files));
    let of_users = run(&words("--systemd -p runtime -- rootless checkpoint"));
    plain.and(under_systemd).and(of_users)
}

/// Builds, boots, runs, reports. An error means that something failed, which has been printed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let [word, address] = args
        && word == suite::FORWARD
    {
        return suite::forward(address);
    }
    let options = Options::parse(args)?;
    if std::env::consts::ARCH != "x86_64" {
        bail!("the machine is made of Debian's amd64 packages; this is {}", std::env::consts::ARCH);
    }
    for (program, package) in
        [("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod"), ("mke2fs", "e2fsprogs")]
    {
        command::need(program, package)?;
    }
    let built = match &options.suite {
        Some(suite) => suite::build(suite)?,
        None => build(&options)?,
    };
    let cached = cache::Cached::get()?;
    let folder = command::target_dir().join("vm");
    let (disk, initramfs) = (folder.join("root.img"), folder.join("initramfs.cpio"));
    let outside = match options.suite.as_ref().map(|suite| suite.kind) {
        Some(SuiteKind::Critest) => Some(suite::Outside::prepare()?),
        Some(SuiteKind::Oci) | None => None,
    };
    let jobs = match &options.suite {
        Some(Suite { kind: SuiteKind::Critest, .. }) => vec![suite::job()],
        Some(suite) => vec![validation::job(suite)],
        None => jobs::jobs(&built, &options),
    };
    disk::make(&folder, &disk, &cached, &built, &jobs, &options, outside.as_ref())?;
    std::fs::write(&initramfs, modules::initramfs(&cached)?)?;

    let mut totals = Totals::default();
    let started = machine::Machine {
        kernel: &cached.kernel,
        initramfs: &initramfs,
        disk: &disk,
        console: &folder.join("console.log"),
        options: &options,
        forwarding: outside.as_ref().map(suite::Outside::forwarding).transpose()?,
    };
    let mut seen = 0;
    let ended = started.run(|event| match event {
        Event::Booted { host, took } => println!("booted   {host} ({:.1} s)", took.as_secs_f64()),
        Event::Ran { index, status, took, output } => {
            seen += 1;
            let Some(job) = jobs.get(index) else { return };
            let outcome = job.outcome(status, &output);
            if !outcome.failed.is_empty() || job.speaks() {
                println!("{}", suite::words(&output));
            }
            totals.add(&job.name, outcome, took);
        }
    })?;
    for (what, why) in trouble(&ended, seen, jobs.len(), options.keep) {
        totals.fail(what, why);
    }
    totals.summary();
    if !totals.failures.is_empty() {
        bail!(
            "{} failed; the machine's console is in {}/console.log",
            totals.failures.len(),
            folder.display()
        );
    }
    Ok(())
}

/// The test programs as `cargo xtask test` builds them, and the other programs that they start. In CI that has built them already, with all of
/// the workspace; fewer at once would be built anew, with other features of what they depend on.
fn build(options: &Options) -> Result<Built> {
    let mut cargo = if std::env::var_os("CI").is_some() {
        program::everything(&crate::test::features(&mut Totals::default()))
    } else {
        chosen(options)
    };
    if let Some(jobs) = &options.jobs {
        cargo.args(["--jobs", jobs]);
    }
    let mut built = program::build(&mut cargo)?;
    built.programs.retain(|program| options.choose(&program.name));
    Ok(built)
}

fn chosen(options: &Options) -> std::process::Command {
    let mut cargo = command::cargo(&["test", "--no-run", "--locked"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let chosen = options.packages.iter().map(String::as_str);
    for package in chosen.chain(CRATES.iter().copied().filter(|_| options.packages.is_empty())) {
        cargo.args(["--package", package]);
    }
    for file in &options.files {
        cargo.args(["--test", file]);
    }
    cargo
}

/// What is wrong with the machine itself.
fn trouble(ended: &Ended, seen: usize, sent: usize, keep: bool) -> Vec<(&'static str, String)> {
    let mut trouble = Vec::new();
    match ended {
        Ended::PoweredOff => {}
        // Somebody at the console may end it in any way.
        Ended::Otherwise(_) if keep && seen == sent => {}
        Ended::Otherwise(how) => trouble.push(("the machine", how.clone())),
    }
    if seen < sent {
        trouble.push(("the machine", format!("{seen} of {sent} programs came to an end")));
    }
    trouble
}
