//! Kubernetes' programs: built from the modules in `conformance/`, once for each version, and kept outside the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::command;
use crate::conformance;

/// Which kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// The one that `conformance/kubernetes/go.mod` requires.
    Newest,
    /// 1.22, which speaks CRI v1alpha2 and nothing else.
    Last22,
}

impl Release {
    pub(super) fn parse(text: &str) -> Result<Release> {
        match text {
            "newest" => Ok(Release::Newest),
            "1.22" => Ok(Release::Last22),
            _ => bail!("there are two kubelets to test with: `newest` and `1.22`, and not `{text}`"),
        }
    }

    /// As an argument.
    pub(super) fn name(self) -> &'static str {
        match self {
            Release::Newest => "newest",
            Release::Last22 => "1.22",
        }
    }

    fn module(self) -> PathBuf {
        command::root().join(match self {
            Release::Newest => "conformance/kubernetes",
            Release::Last22 => "conformance/kubernetes-1.22",
        })
    }

    /// The version of `k8s.io/kubernetes` that its module requires, such as `v1.37.0`.
    pub(super) fn version(self) -> Result<String> {
        let file = self.module().join("go.mod");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        // In a block of its own, or the only one.
        let mut lines = text.lines().map(|line| line.trim().trim_start_matches("require "));
        let line = lines.find_map(|line| line.strip_prefix("k8s.io/kubernetes "));
        Ok(line
            .with_context(|| format!("{} requires no k8s.io/kubernetes", file.display()))?
            .trim()
            .to_owned())
    }
}

/// Where the programs of a release are.
pub(super) fn place(release: Release) -> Result<PathBuf> {
    Ok(conformance::cache()?.join(format!("kubernetes-{}", release.version()?)))
}

/// The client of our own, which is built with the newest release.
pub(super) fn agent() -> Result<PathBuf> {
    Ok(place(Release::Newest)?.join("agent"))
}

/// Builds the kubelet and our agent, unless they are there.
pub(super) fn build(release: Release) -> Result<()> {
    if command::find("go").is_none() {
        bail!("building Kubernetes needs Go (https://go.dev/dl)");
    }
    program(release, "k8s.io/kubernetes/cmd/kubelet")?;
    // Go's own cache is good enough for what is of this repository.
    let version = Release::Newest.version()?;
    go_build(&Release::Newest.module(), &version, &agent()?, "./agent")
}

/// Builds the control plane, unless it is there.
pub(super) fn build_plane() -> Result<()> {
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"] {
        program(Release::Newest, &format!("k8s.io/kubernetes/cmd/{name}"))?;
    }
    built_as(Release::Newest, "etcd", "go.etcd.io/etcd/server/v3")
}

/// Builds one program, unless it is there.
fn program(release: Release, package: &str) -> Result<()> {
    built_as(release, package.rsplit('/').next().unwrap_or(package), package)
}

fn built_as(release: Release, name: &str, package: &str) -> Result<()> {
    let to = place(release)?.join(name);
    if to.is_file() {
        return Ok(());
    }
    let (version, begun) = (release.version()?, Instant::now());
    println!("building {name} {version}, once, into {}", to.display());
    let making = to.with_extension("making");
    go_build(&release.module(), &version, &making, package)?;
    fs::rename(&making, &to)?;
    println!("built {name} in {} s", begun.elapsed().as_secs());
    Ok(())
}

fn go_build(module: &Path, version: &str, to: &Path, package: &str) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
    let mut numbers = version.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let set = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)]
        .map(|(name, value)| format!("-X k8s.io/component-base/version.{name}={value}"));
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-p", "2", "-ldflags", &format!("-s -w {}", set.join(" ")), "-o"]);
    go.arg(to).arg(package).current_dir(module);
    command::run(go.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly -buildvcs=false"))
}
