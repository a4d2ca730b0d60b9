//! Throw-away daemons: each with its own directories, socket and bridge, stopped and removed at the end.

pub(crate) mod containerd;
pub(crate) mod crio;
pub(crate) mod pintle;

use crate::cpu;
use crate::target::Given;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a daemon may take to answer and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the CNI plugins of distributions are.
const PLUGIN_DIRECTORIES: &[&str] = &["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// A running daemon.
pub(crate) struct Peer {
    pub(crate) given: Given,
    /// How it is started, also again.
    command: Command,
    child: Child,
    bridge: &'static str,
    /// After the daemon, which is in it.
    cpu: cpu::Group,
    _state: tempfile::TempDir,
}

/// The files that have to be there for a runtime, in MB.
pub(crate) fn installed_mb(files: &[PathBuf]) -> f64 {
    files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|file| file.len() as f64 / 1e6).sum()
}

/// The plugins of the chain that [`write_chain`] writes, with the one for loopback that other runtimes call too.
fn chain_files(whose: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(plugins(whose)?);
    Ok(["bridge", "host-local", "portmap", "loopback"].map(|plugin| folder.join(plugin)).into())
}

/// The program's full path.
fn find(program: &str, whose: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|file| file.is_file()).with_context(|| format!("{whose} needs {program}"))
}

/// Where /run is a tmpfs, as on every machine with systemd, so is a runtime's state; elsewhere /dev/shm stands in for it.
fn state_directory() -> Result<tempfile::TempDir> {
    let state = tempfile::Builder::new().prefix("pintle-bench-").tempdir_in("/dev/shm");
    state.context("a state directory on the tmpfs /dev/shm")
}

/// The folder of the installed CNI plugins, for `whose` sake.
fn plugins(whose: &str) -> Result<&'static str> {
    let mut places = PLUGIN_DIRECTORIES.iter().copied();
    let place = places.find(|place| Path::new(place).join("bridge").exists());
    place.with_context(|| format!("{whose} needs the CNI plugins (Debian: containernetworking-plugins)"))
}

/// The chain of plugins that a node without our network has: bridge, host-local and portmap, kept in `directory`.
fn write_chain(directory: &Path, name: &str, bridge: &str, subnet: &str) -> Result<()> {
    let nets = directory.join("net.d");
    std::fs::create_dir_all(&nets)?;
    let chain = json!({
        "cniVersion": "1.0.0", "name": name,
        "plugins": [
            {
                "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": directory.join("ipam"),
                    "ranges": [[{ "subnet": subnet }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    Ok(std::fs::write(nets.join("10-bench.conflist"), chain.to_string())?)
}

impl Peer {
    /// Ends it and removes its bridge.
    pub(crate) async fn stop(mut self) {
        self.end().await;
        if Path::new("/sys/class/net").join(self.bridge).exists() {
            let deleted = Command::new("ip").args(["link", "delete", self.bridge]).status();
            if !deleted.is_ok_and(|status| status.success()) {
                eprintln!("the bridge {} is left: ip link delete {}", self.bridge, self.bridge);
            }
        }
        // Only Pintle has a table of the bridge's name; where there is none, or no nft, there is nothing to say.
        let table = format!("pintle_pintle_bench_{}", self.bridge);
        let _ = Command::new("nft").args(["delete", "table", "inet", &table]).stderr(Stdio::null()).status();
    }

    /// Processor time so far of the daemon and of everything that it has started, but for what is in the pods' groups, in seconds.
    pub(crate) fn cpu_secs(&self) -> f64 {
        self.cpu.used()
    }

    /// Starts the daemon that [`Peer::end`] has ended again.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.child = self.command.spawn().with_context(|| format!("starting {}", self.given.name))?;
        self.given.daemon_pid = Some(self.child.id().cast_signed());
        self.cpu.take(self.child.id())
    }

    /// Ends the daemon; its pods run on.
    pub(crate) async fn end(&mut self) {
        signal(&self.child, Signal::TERM);
        let began = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if began.elapsed() > PATIENCE {
                eprintln!("{} did not end and is killed", self.given.name);
                signal(&self.child, Signal::KILL);
                let _ = self.child.wait();
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn start(
    name: &str,
    mut command: Command,
    directory: &Path,
    bridge: &'static str,
    state: tempfile::TempDir,
) -> Result<Peer> {
    ensure!(
        !Path::new("/sys/class/net").join(bridge).exists(),
        "the bridge {bridge} is there already; is another run going on?"
    );
    let log = std::fs::File::create(directory.join("daemon.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let cpu = cpu::Group::make(&format!("pintle-bench-{name}-{}", std::process::id()).replace(' ', "-"))?;
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    cpu.take(child.id())?;
    let socket = directory.join("cri.sock");
    let began = Instant::now();
    loop {
        let given =
            Given { name: name.into(), socket: socket.clone(), daemon_pid: Some(child.id().cast_signed()) };
        // The socket comes before the services behind it.
        if crate::target::Target::connect(&given).await.is_ok() {
            return Ok(Peer { given, command, child, bridge, cpu, _state: state });
        }
        let ended = child.try_wait()?;
        if ended.is_some() || began.elapsed() > PATIENCE {
            signal(&child, Signal::KILL);
            let _ = child.wait();
            let log = std::fs::read_to_string(directory.join("daemon.log")).unwrap_or_default();
            let first = log.lines().count().saturating_sub(15);
            bail!("{name} does not serve:\n{}", log.lines().skip(first).collect::<Vec<_>>().join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A child that was not waited for keeps its id.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}
