//! `cargo xtask bench`: builds the release and measures it through CRI, beside containerd and CRI-O where they are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, dist};

/// The version of containerd that is measured.
const CONTAINERD: &str = "v2.4.2";

/// What `--peers` stands for: every row of the tables in docs/performance.md.
const WHOLE: &[&str] = &["--chain", "--restart-pods", "300", "--growth", "1,10,100,300"];

/// Builds containerd by Go's module proxy, and installs runc and the CNI plugins; returns the folder of what was built. CRI-O is measured where
/// it, pinns and conmon are in PATH: no proxy has it whole.
fn peers() -> Result<PathBuf> {
    command::need("go", "golang")?;
    command::need("runc", "runc")?;
    command::need("busybox", "busybox-static")?;
    if !["/opt/cni/bin/bridge", "/usr/lib/cni/bridge"].iter().any(|file| Path::new(file).exists()) {
        command::need("the CNI plugins", "containernetworking-plugins")?;
    }
    let folder = command::target_dir().join("peers").join(CONTAINERD);
    for program in ["containerd", "containerd-shim-runc-v2"] {
        if folder.join(program).exists() {
            continue;
        }
        let module = format!("github.com/containerd/containerd/v2/cmd/{program}@{CONTAINERD}");
        let mut go = Command::new("go");
        go.args(["install", "-trimpath", "-ldflags", "-s -w", &module]);
        // The version of Go that its go.mod names comes from the same proxy.
        command::run(go.env("GOBIN", &folder).env("GOTOOLCHAIN", "auto").env("CGO_ENABLED", "0"))?;
    }
    Ok(folder)
}

/// Builds, starts throw-away daemons, measures and prints the tables; `args` go to the measuring program.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--counts") {
        return counts(args);
    }
    let mut args = args.to_vec();
    let whole = args.iter().position(|arg| arg == "--peers");
    if let Some(at) = whole {
        args.splice(at..=at, WHOLE.iter().map(|&arg| arg.to_owned()));
        args.extend(["--page".into(), command::root().join("docs/performance.md").display().to_string()]);
        args.extend(["--picture".into(), command::root().join("docs/growth.svg").display().to_string()]);
    }
    command::run(&mut command::cargo(&["build", "--release", "--locked", "--package", "bench"]))?;
    let mut bench = Command::new(command::target_dir().join("release/bench"));
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return command::run(bench.arg("--help"));
    }
    if !command::is_root() {
        bail!(
            "bench needs root: it starts daemons and reads other processes' memory (sudo -E cargo xtask bench)"
        );
    }
    dist::run(&[])?;
    bench.arg("--pintle").arg(dist::built());
    if whole.is_some() {
        let folder = peers()?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let places = std::iter::once(folder).chain(std::env::split_paths(&path)).chain(sbin);
        bench.env("PATH", std::env::join_paths(places)?);
    }
    if whole.is_some() || command::find("containerd").is_some() && command::find("runc").is_some() {
        bench.arg("--containerd");
    } else {
        eprintln!("xtask: containerd and runc are not installed, so there is nothing to compare with");
    }
    if ["crio", "pinns", "conmon"].iter().all(|program| command::find(program).is_some()) {
        bench.arg("--crio");
    }
    command::run(bench.args(args))
}

/// Counts what a pod costs; `--binary FILE` is a release that was built already.
fn counts(args: &[String]) -> Result<()> {
    command::need("strace", "strace")?;
    let mut rest = args.to_vec();
    let binary = match rest.iter().position(|arg| arg == "--binary") {
        Some(at) if at + 1 < rest.len() => {
            rest.remove(at);
            PathBuf::from(rest.remove(at))
        }
        Some(_) => bail!("--binary needs a file"),
        None => {
            dist::run(&[])?;
            dist::built()
        }
    };
    // The client's own speed is not measured: the build that the tests share will do.
    let mut bench = command::cargo(&["run", "--quiet", "--locked", "--package", "bench", "--", "--pintle"]);
    command::run(bench.arg(binary).args(rest))
}
