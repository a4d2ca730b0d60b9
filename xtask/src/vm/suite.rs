//! `cargo xtask vm critest`: Kubernetes' own suite in the machine, whose kernel has what the usual host has not: AppArmor, or SELinux.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cache;
use super::disk::Root;
use super::jobs::Job;
use super::options::Suite;
use crate::command;
use crate::conformance::{self, Registry};
use crate::test::outcome::Outcome;
use crate::test::program::Built;

/// Where the registry seems to be to the machine: an address that its network card makes up.
const REGISTRY: &str = "10.0.2.80";

/// Before the suite's report, in the output of the script.
const REPORT: &str = "@report\n";

/// Programs that the suite starts.
const TOOLS: &[&str] = &["ipcmk", "ipcrm", "mount", "umount"];

/// What the suite needs outside of the machine, while it runs.
pub(super) struct Outside {
    critest: PathBuf,
    registry: Registry,
}

impl Outside {
    /// Builds the suite and its images, or finds them in the cache, and serves the images.
    pub(super) fn prepare() -> Result<Outside> {
        let clients = conformance::clients()?;
        let registry = Registry::start_at(&free_port()?.to_string())?;
        Ok(Outside { critest: conformance::patched_critest(&clients), registry })
    }

    /// What qemu's user network is told: connections to the registry's address become runs of this program, which hand on what is said.
    pub(super) fn forwarding(&self) -> Result<String> {
        let own = std::env::current_exe().context("this program's own file")?;
        Ok(format!("guestfwd=tcp:{REGISTRY}:80-cmd:{} vm {FORWARD} {}", own.display(), self.registry.address))
    }

    /// Puts everything that the suite needs on the machine's disk.
    pub(super) fn put(&self, root: &Root, built: &Built, suite: &Suite, systemd: bool) -> Result<()> {
        let place = Path::new("payload/suite");
        let pintle = built.executables().next().context("no pintle was built")?;
        root.program(pintle, Path::new("usr/bin/pintle"))?;
        root.put(&self.critest, &place.join("critest"))?;
        root.tools(TOOLS)?;
        let nri = Path::new("/run/suite/nri.sock");
        let nets = Path::new("/payload/suite/net.d");
        let mut config = conformance::daemon_config(nets, nri);
        if let Some(program) = &suite.handler {
            command::need(program, program)?;
            root.tools(&[program])?;
            config.push_str(&handler(program, systemd));
        }
        root.write("payload/suite/config.toml", &config)?;
        let network = conformance::network_config(Path::new("/var/lib/pintle-state/network"));
        root.write("payload/suite/net.d/10-pintle.conflist", &network)?;
        root.write("payload/suite/arguments", &arguments(suite))?;
        root.script("payload/suite/run", include_str!("suite.sh"))?;
        root.write(
            "etc/hosts",
            &format!("127.0.0.1 localhost\n::1 localhost\n{REGISTRY} {}\n", conformance::HOSTS.join(" ")),
        )?;
        apparmor(root)
    }
}

/// Has pods run by that OCI runtime, with the daemon's own driver of control groups.
fn handler(program: &str, systemd: bool) -> String {
    let driver = if systemd { "systemd" } else { "cgroupfs" };
    format!(
        "[runtime]\ndefault_handler = {program:?}\ncgroup_driver = {driver:?}\n[runtimes.{program}]\nkind = \"oci\"\npath = {program:?}\n"
    )
}

/// The suite loads profiles of its own by `sudo apparmor_parser`.
fn apparmor(root: &Root) -> Result<()> {
    let package = cache::package("apparmor")?;
    root.script("usr/bin/sudo", "#!/bin/sh\nexec \"$@\"\n")?;
    let parser = ["sbin/apparmor_parser", "usr/sbin/apparmor_parser"].map(|path| package.join(path));
    let parser = parser.iter().find(|file| file.is_file()).context("the package has no apparmor_parser")?;
    root.libraries(parser)?;
    root.put(parser, Path::new("usr/sbin/apparmor_parser"))?;
    root.put_tree(&package.join("etc/apparmor.d"), Path::new("etc/apparmor.d"))?;
    root.put_tree(&package.join("etc/apparmor"), Path::new("etc/apparmor"))?;
    let features = Path::new("usr/share/apparmor-features");
    root.put_tree(&package.join(features), features)
}

/// The words for the suite, a line each.
fn arguments(suite: &Suite) -> String {
    let focus = suite.focus.iter().map(|focus| format!("--ginkgo.focus={focus}\n"));
    let skip = suite.skip.iter().map(|skip| format!("--ginkgo.skip={skip}\n"));
    focus.chain(skip).collect()
}

/// The daemon with the suite against it.
pub(super) fn job() -> Job {
    Job::suite(PathBuf::from("/payload/suite"), PathBuf::from("/payload/suite/run"))
}

/// What the script said before the report.
pub(super) fn words(output: &str) -> &str {
    output.split(REPORT).next().unwrap_or(output)
}

/// What the suite's report says, from the output of the script.
pub(super) fn outcome(output: &str) -> Outcome {
    let report = output.split_once(REPORT).and_then(|(_, report)| serde_json::from_str(report).ok());
    let Some(report) = report else { return Outcome::default() };
    conformance::outcome(&report)
}

/// Only the program itself. It may have been built before.
pub(super) fn build(suite: &Suite) -> Result<Built> {
    if let Some(binary) = &suite.binary {
        return Ok(Built::only(binary.clone()));
    }
    command::run(&mut command::cargo(&["build", "--locked", "--package", "pintle"]))?;
    Ok(Built::only(command::target_dir().join("debug/pintle")))
}

/// The hidden word with which qemu starts this program for each connection.
pub(super) const FORWARD: &str = "--forward";

/// Hands on, both ways, between standard input, which is a socket, and `address`.
pub(super) fn forward(address: &str) -> Result<()> {
    let there = TcpStream::connect(address)?;
    let mut back = there.try_clone()?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut &there);
        let _ = there.shutdown(std::net::Shutdown::Write);
    });
    let mut out = std::fs::File::from(rustix::io::dup(std::io::stdout())?);
    std::io::copy(&mut back, &mut out)?;
    Ok(())
}

fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
