//! Clients in Go: crictl and critest from the module that publishes them, and one of our own that speaks v1alpha2.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command;

const MODULE: &str = "sigs.k8s.io/cri-tools";
const VERSION: &str = "v1.36.0";

/// Where the clients are, and the cache that holds them.
pub(crate) struct Clients {
    pub(super) crictl: PathBuf,
    pub(super) critest: PathBuf,
    pub(super) v1alpha2: PathBuf,
    pub(super) cache: PathBuf,
}

/// Builds crictl and critest, unless the cache has them, and the client of v1alpha2, for which Go's own cache is good enough.
///
/// Not by `go install`: critest is a test program, which that does not build.
pub(super) fn build() -> Result<Clients> {
    let clients = places()?;
    if command::find("go").is_none() {
        bail!("building the clients needs Go (https://go.dev/dl, or Debian's golang-go from backports)");
    }
    let own = command::root().join("conformance/v1alpha2");
    build_one(&own, &["build"], &clients.v1alpha2, ".")?;
    if clients.crictl.is_file() && clients.critest.is_file() {
        return Ok(clients);
    }
    let source = copy_of(MODULE, VERSION, &clients.cache.join("cri-tools-source"))?;
    let version = format!("-s -w -X {MODULE}/pkg/version.Version={VERSION}");
    build_one(&source, &["build", "-ldflags", &version], &clients.crictl, "./cmd/crictl")?;
    build_one(&source, &["test", "-c", "-ldflags", &version], &clients.critest, "./cmd/critest")?;
    Ok(clients)
}

/// All of them, built before.
pub(super) fn built() -> Result<Clients> {
    places()
}

/// Where what takes long to build is kept.
pub(crate) fn cache() -> Result<PathBuf> {
    Ok(match std::env::var_os("PINTLE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("neither PINTLE_CACHE nor HOME is set")?)
            .join(".cache/pintle"),
    })
}

fn places() -> Result<Clients> {
    let cache = cache()?;
    let bin = cache.join(format!("cri-tools-{VERSION}"));
    fs::create_dir_all(&bin).with_context(|| bin.display().to_string())?;
    let [crictl, critest, v1alpha2] = ["crictl", "critest", "v1alpha2"].map(|name| bin.join(name));
    Ok(Clients { crictl, critest, v1alpha2, cache })
}

/// A copy of a module in the folder `source` that may be built in: the module cache itself is read-only.
pub(super) fn copy_of(module: &str, version: &str, source: &Path) -> Result<PathBuf> {
    let parent = source.parent().context("a folder in a folder")?;
    fs::create_dir_all(parent)?;
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", &format!("{module}@{version}")]).current_dir(parent);
    let answer: serde_json::Value = serde_json::from_str(&command::capture(&mut go)?)?;
    let downloaded = answer["Dir"].as_str().context("go names no folder for the module")?;
    if source.exists() {
        fs::remove_dir_all(source)?;
    }
    command::run(Command::new("cp").args(["-r", "--no-preserve=mode", downloaded]).arg(source))?;
    Ok(source.to_path_buf())
}

fn build_one(source: &Path, how: &[&str], to: &Path, package: &str) -> Result<()> {
    println!("building {}", to.display());
    let mut go = Command::new("go");
    go.args(how).args(["-trimpath", "-o"]).arg(to).arg(package).current_dir(source);
    command::run(go.env("CGO_ENABLED", "0").env("GOFLAGS", "-p=2"))
}
