//! Throw-away daemons: each with its own directories, socket and bridge, stopped and removed at the end.

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
    child: Child,
    bridge: &'static str,
    _state: tempfile::TempDir,
}

/// Where /run is a tmpfs, as on every machine with systemd, so is a runtime's state; elsewhere /dev/shm stands in for it.
fn state_directory() -> Result<tempfile::TempDir> {
    let state = tempfile::Builder::new().prefix("pintle-bench-").tempdir_in("/dev/shm");
    state.context("a state directory on the tmpfs /dev/shm")
}

impl Peer {
    /// Starts `BINARY serve`.
    pub(crate) async fn pintle(binary: &Path, scratch: &Path) -> Result<Peer> {
        let directory = scratch.join("pintle");
        let nets = directory.join("net.d");
        std::fs::create_dir_all(&nets)?;
        let bridge = "pbench0";
        let network = json!({
            "cniVersion": "1.1.0", "name": "pintle-bench",
            "plugins": [{
                "type": "pintle", "bridge": bridge, "subnets": ["10.232.0.0/16"], "ipMasq": true,
                "capabilities": { "portMappings": true },
            }],
        });
        std::fs::write(nets.join("10-bench.conflist"), network.to_string())?;
        let nri = directory.join("nri.sock");
        let config = format!(
            "[network]\nconf_dir = {nets:?}\n\n[nri]\nsocket = {nri:?}\n\n[image]\ncerts_dirs = []\nregistries_conf = \"\"\nauth_files = []\n\n[runtime]\ncgroup_driver = \"cgroupfs\"\n"
        );
        std::fs::write(directory.join("config.toml"), config)?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(directory.join("config.toml"));
        let state = state_directory()?;
        command.arg("--root").arg(directory.join("root")).arg("--state").arg(state.path().join("state"));
        command.arg("--socket").arg(directory.join("cri.sock"));
        start("pintle", command, &directory, bridge, state).await
    }

    /// Starts the installed containerd with runc, without its statistics collector's cost being hidden: all settings are its own defaults.
    pub(crate) async fn containerd(scratch: &Path, pause: &str) -> Result<Peer> {
        let directory = scratch.join("containerd");
        let nets = directory.join("net.d");
        std::fs::create_dir_all(&nets)?;
        let plugins = PLUGIN_DIRECTORIES.iter().find(|place| Path::new(place).join("bridge").exists());
        let plugins =
            plugins.context("containerd needs the CNI plugins (Debian: containernetworking-plugins)")?;
        let bridge = "pbench1";
        let network = json!({
            "cniVersion": "1.0.0", "name": "containerd-bench",
            "plugins": [
                {
                    "type": "bridge", "bridge": bridge, "isGateway": true, "ipMasq": true, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": directory.join("ipam"),
                        "ranges": [[{ "subnet": "10.233.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        std::fs::write(nets.join("10-bench.conflist"), network.to_string())?;
        let state = state_directory()?;
        let config = containerd_config(&directory, state.path(), &nets, plugins, pause);
        std::fs::write(directory.join("config.toml"), config)?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(directory.join("config.toml"));
        start("containerd", command, &directory, bridge, state).await
    }

    /// Ends it and removes its bridge.
    pub(crate) async fn stop(mut self) {
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
}

/// Version 2 of the configuration, which 1.6, 1.7 and 2.x read. Nothing but places, and what a machine without CAP_SYS_RESOURCE forces.
fn containerd_config(directory: &Path, state: &Path, nets: &Path, plugins: &str, pause: &str) -> String {
    let place = |name: &str| -> PathBuf { directory.join(name) };
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {pause:?}\nrestrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\nconf_dir = {nets:?}\n",
        place("root"),
        state.join("state"),
        place("cri.sock"),
    )
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
    let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
    let socket = directory.join("cri.sock");
    let began = Instant::now();
    loop {
        let given =
            Given { name: name.into(), socket: socket.clone(), daemon_pid: Some(child.id().cast_signed()) };
        // The socket comes before the services behind it.
        if crate::target::Target::connect(&given).await.is_ok() {
            return Ok(Peer { given, child, bridge, _state: state });
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
