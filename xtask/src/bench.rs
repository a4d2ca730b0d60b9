//! `cargo xtask bench`: builds the release and measures it through CRI, beside containerd and CRI-O where they are installed.

use std::env::consts::ARCH;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, dist};

/// Builds, starts throw-away daemons, measures and prints the tables; `args` go to the measuring program.
pub(crate) fn run(args: &[String]) -> Result<()> {
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
    let target = format!("{ARCH}-unknown-linux-musl");
    bench.arg("--pintle").arg(command::target_dir().join("dist").join(target).join("dist/pintle"));
    if command::find("containerd").is_some() && command::find("runc").is_some() {
        bench.arg("--containerd");
    } else {
        eprintln!("xtask: containerd and runc are not installed, so there is nothing to compare with");
    }
    if ["crio", "pinns", "conmon"].iter().all(|program| command::find(program).is_some()) {
        bench.arg("--crio");
    }
    command::run(bench.args(args))
}
