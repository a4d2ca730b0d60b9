//! Engines that were written for runc, run on our OCI runtime: containerd with its shim, Docker, Podman with conmon, buildah; nerdctl on our
//! shim; and Podman and nerdctl on our network plugin.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Options;
use crate::command;

/// A script beside the others, and the programs that it cannot do without.
const ENGINES: &[(&str, &[&str])] = &[
    ("containerd", &["containerd", "ctr", "containerd-shim-runc-v2"]),
    ("nerdctl", &["containerd", "nerdctl", "iptables"]),
    ("docker", &["dockerd", "docker"]),
    ("podman", &["podman", "conmon"]),
    ("podman-cni", &["podman", "conmon", "iptables"]),
];

/// Runs every engine that is installed, or the one that `--focus` names; an error where a step of one fails.
pub(super) fn run(options: &Options) -> Result<()> {
    if !command::is_root() {
        bail!("engines make containers: run this as root");
    }
    let scratch = tempfile::tempdir()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => super::daemon::build()?,
    };
    let runtime = scratch.path().join("pintle-oci");
    symlink(&binary, &runtime)?;
    let plugins = plugins();
    let folder = command::root().join("conformance/engines");
    let image = scratch.path().join("image.tar");
    command::run(Command::new("python3").arg(folder.join("image.py")).arg(&image))?;
    let mut failed = Vec::new();
    for (name, programs) in ENGINES {
        if options.focus.as_ref().is_some_and(|focus| focus != name) {
            continue;
        }
        if let Some(missing) = programs.iter().find(|program| command::find(program).is_none()) {
            println!("{name}: left out, there is no program {missing}");
            continue;
        }
        println!("{name}:");
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--net", "bash"]).arg(folder.join(format!("{name}.sh")));
        unshare.args([&runtime, &image, &binary]).arg(&plugins).stdin(Stdio::null());
        if !unshare.status().context("cannot start unshare")?.success() {
            failed.push(*name);
        }
    }
    if !failed.is_empty() {
        bail!("not everything worked with {}", failed.join(", "));
    }
    Ok(())
}

/// Where the CNI project's plugins are.
fn plugins() -> PathBuf {
    let named = std::env::var_os("PINTLE_CNI_PLUGINS").map(PathBuf::from);
    named.unwrap_or_else(|| {
        let debians = Path::new("/usr/lib/cni");
        if debians.is_dir() { debians.into() } else { "/opt/cni/bin".into() }
    })
}
