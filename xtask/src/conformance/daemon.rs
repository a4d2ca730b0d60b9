//! A daemon of its own for one run: its folders, its configuration, its start, and a look at what it leaves.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::containerd;
use super::images::HOSTS;
use crate::command;
use crate::test::{host, orphans};

/// The runtime under test.
pub(super) struct Daemon {
    /// `unix://` and the socket's path.
    pub(super) endpoint: String,
    /// Where NRI plugins connect, of one that was started here.
    pub(super) nri: Option<PathBuf>,
    own: Option<Own>,
}

struct Own {
    child: Child,
    folder: tempfile::TempDir,
    before: host::Snapshot,
    orphans: orphans::Orphans,
    keep: bool,
}

/// What is known before a daemon is started.
struct Watched {
    folder: tempfile::TempDir,
    before: host::Snapshot,
    orphans: orphans::Orphans,
    keep: bool,
}

/// Builds `pintle` as somebody would by hand.
pub(crate) fn build() -> Result<PathBuf> {
    command::run(&mut command::cargo(&["build", "--release", "--locked", "--package", "pintle"]))?;
    Ok(command::target_dir().join("release/pintle"))
}

impl Daemon {
    /// One that runs already.
    pub(super) fn running(endpoint: &str) -> Result<Daemon> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        UnixStream::connect(path).with_context(|| format!("nobody serves {path}"))?;
        Ok(Daemon { endpoint: format!("unix://{path}"), nri: None, own: None })
    }

    /// Starts one and waits until it accepts connections.
    /// `more` follows in its configuration.
    pub(super) fn start(binary: &Path, more: &str, keep: bool) -> Result<Daemon> {
        let orphans = orphans::Orphans::adopt()?;
        let before = host::Snapshot::take();
        let folder = tempfile::Builder::new().prefix("pintle-c-").disable_cleanup(keep).tempdir()?;
        let [root, state, nets] = ["root", "state", "net.d"].map(|name| folder.path().join(name));
        for place in [&root, &state, &nets] {
            fs::create_dir(place)?;
        }
        let nri = folder.path().join("nri.sock");
        fs::write(folder.path().join("config.toml"), configuration(&nets, &nri) + more)?;
        fs::write(nets.join("10-pintle.conflist"), network(&state.join("network")))?;

        let socket = folder.path().join("pintle.sock");
        let mut serve = Command::new(binary);
        serve.arg("serve").arg("--root").arg(root).arg("--state").arg(state).arg("--socket").arg(&socket);
        serve.arg("--config").arg(folder.path().join("config.toml"));
        let watched = Watched { folder, before, orphans, keep };
        Daemon::launch(serve, &socket, Some(nri), watched)
    }

    /// A containerd from the folder `programs`, whose default runtime is `runtime`; the shim that `binary` is can be that too.
    pub(super) fn containerd(
        programs: &Path,
        runtime: &str,
        oci: Option<&Path>,
        binary: Option<&Path>,
        keep: bool,
    ) -> Result<Daemon> {
        let orphans = orphans::Orphans::adopt()?;
        let before = host::Snapshot::take();
        let folder = tempfile::Builder::new().prefix("pintle-c-").disable_cleanup(keep).tempdir()?;
        let (command, socket) = containerd::prepare(programs, runtime, oci, binary, folder.path())?;
        Daemon::launch(command, &socket, None, Watched { folder, before, orphans, keep })
    }

    fn launch(mut command: Command, socket: &Path, nri: Option<PathBuf>, watched: Watched) -> Result<Daemon> {
        let Watched { folder, before, orphans, keep } = watched;
        let log = fs::File::create(folder.path().join("daemon.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let endpoint = format!("unix://{}", socket.display());
        let mut daemon = Daemon { endpoint, nri, own: Some(Own { child, folder, before, orphans, keep }) };
        if let Err(error) = daemon.await_socket(socket) {
            // The error is the news; what the stop finds would only repeat it.
            let _ = daemon.stop(true);
            return Err(error);
        }
        Ok(daemon)
    }

    fn await_socket(&mut self, socket: &Path) -> Result<()> {
        let Some(own) = &mut self.own else { return Ok(()) };
        let start = Instant::now();
        while UnixStream::connect(socket).is_err() {
            if let Some(status) = own.child.try_wait()? {
                bail!("the daemon ended with {status}");
            }
            if start.elapsed() > Duration::from_secs(20) {
                bail!("the daemon does not listen at {}", socket.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where logs of pods may go.
    pub(super) fn scratch(&self) -> Result<tempfile::TempDir> {
        Ok(tempfile::Builder::new().prefix("pintle-c-logs-").tempdir()?)
    }

    /// Stops it as a service manager would, and says what it left behind; with `show_log`, also the end of its log.
    pub(super) fn stop(self, show_log: bool) -> Result<()> {
        let Some(mut own) = self.own else { return Ok(()) };
        let asked = Instant::now();
        if own.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&own.child), Signal::TERM)?;
        }
        let mut late = false;
        while own.child.try_wait()?.is_none() {
            if asked.elapsed() > Duration::from_secs(20) {
                late = true;
                own.child.kill()?;
                own.child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        containerd::clean_up();
        let mut left: Vec<String> =
            own.orphans.collect().into_iter().map(|process| format!("process {process}")).collect();
        left.extend(host::settled_difference(&own.before, Duration::from_secs(5)));
        if show_log {
            show_end(&own.folder.path().join("daemon.log"))?;
        }
        if own.keep {
            println!("kept: {}", own.folder.path().display());
        }
        for thing in &left {
            println!("left behind: {thing}");
        }
        if late {
            bail!("the daemon did not end within 20 s of SIGTERM");
        }
        Ok(())
    }
}

/// What the daemon is told: where networks are described and plugins connect, and that our registries speak plain HTTP.
pub(crate) fn configuration(nets: &Path, nri: &Path) -> String {
    let hosts = HOSTS.iter().map(|host| format!("{host:?}")).collect::<Vec<_>>().join(", ");
    format!(
        "[network]\nconf_dir = {nets:?}\n[nri]\nsocket = {nri:?}\n[image]\ninsecure_registries = [{hosts}]\ncerts_dirs = []\nregistries_conf = \"\"\nauth_files = []\n[log]\nlevel = \"debug\"\n"
    )
}

/// The network of its pods.
pub(crate) fn network(state: &Path) -> String {
    let network = serde_json::json!({
        "cniVersion": "1.1.0",
        "name": "conformance",
        "plugins": [{
            "type": "pintle",
            "bridge": "pintle-conf0",
            "subnets": ["10.211.0.0/16"],
            "stateDir": state,
            "capabilities": { "portMappings": true, "bandwidth": true, "dns": true }
        }]
    });
    network.to_string()
}

fn show_end(log: &Path) -> io::Result<()> {
    let text = fs::read(log)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    println!("-- the end of the daemon's log");
    for line in &lines[lines.len().saturating_sub(60)..] {
        println!("{line}");
    }
    Ok(())
}
