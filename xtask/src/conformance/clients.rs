//! crictl and critest, built from the Go module that publishes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

const MODULE: &str = "sigs.k8s.io/cri-tools";
const VERSION: &str = "v1.36.0";

/// Where the clients are, and the cache that holds them.
pub(super) struct Clients {
    pub(super) crictl: PathBuf,
    pub(super) critest: PathBuf,
    pub(super) cache: PathBuf,
}

/// Builds both, unless the cache has them.
///
/// Not by `go install`: critest is a test program, which that does not build.
pub(super) fn build() -> Result<Clients> {
    let clients = places()?;
    if clients.crictl.is_file() && clients.critest.is_file() {
        return Ok(clients);
    }
    if command::find("go").is_none() {
        bail!(
            "building crictl and critest needs Go (https://go.dev/dl, or Debian's golang-go from backports)"
        );
    }
    let source = source(&clients.cache)?;
    let version = format!("-s -w -X {MODULE}/pkg/version.Version={VERSION}");
    build_one(&source, &["build", "-ldflags", &version], &clients.crictl, "./cmd/crictl")?;
    build_one(&source, &["test", "-c", "-ldflags", &version], &clients.critest, "./cmd/critest")?;
    Ok(clients)
}

/// Both, built before.
pub(super) fn built() -> Result<Clients> {
    places()
}

fn places() -> Result<Clients> {
    let cache = match std::env::var_os("PINTLE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither PINTLE_CACHE nor HOME is set")?)
            .join(".cache/pintle"),
    };
    let bin = cache.join(format!("cri-tools-{VERSION}"));
    fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
    Ok(Clients { crictl: bin.join("crictl"), critest: bin.join("critest"), cache })
}

/// A copy of the module that may be built in: the module cache itself is read-only.
fn source(cache: &Path) -> Result<PathBuf> {
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", &format!("{MODULE}@{VERSION}")]).current_dir(cache);
    let answer: serde_json::Value = serde_json::from_str(&command::capture(&mut go)?)?;
    let downloaded = answer["Dir"].as_str().context("go names no folder for the module")?;
    let source = cache.join("cri-tools-source");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    command::run(Command::new("cp").args(["-r", "--no-preserve=mode", downloaded]).arg(&source))?;
    Ok(source)
}

fn build_one(source: &Path, how: &[&str], to: &Path, package: &str) -> Result<()> {
    println!("building {}", to.display());
    let mut go = Command::new("go");
    go.args(how).args(["-trimpath", "-o"]).arg(to).arg(package).current_dir(source);
    command::run(go.env("CGO_ENABLED", "0").env("GOFLAGS", "-p=2"))
}
