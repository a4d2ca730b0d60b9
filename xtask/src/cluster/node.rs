//! One node: a network and a mount namespace with its own /var/lib, /var/log and /run, and in it a daemon and a kubelet.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::images::{HOSTS, PINNED};
use super::kubelet;
use super::programs::Release;
use super::sandbox::{GATEWAY, Place, ip, make_groups};
use crate::command;

/// What a kubelet sets for the whole machine: the node has copies of its own.
const SYSCTLS: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// In the namespaces: $0 is the node's folder, the rest are the settings.
const SET_UP: &str = r#"
set -e
mkdir -p "$0/lib" "$0/log" "$0/sys"
mount --bind "$0/lib" /var/lib
mount --bind "$0/log" /var/log
mount -t tmpfs -o mode=755 node /run
for setting in "$@"; do
    mkdir -p "$0/sys/${setting%/*}"
    cat "/proc/sys/$setting" >"$0/sys/$setting"
    mount --bind "$0/sys/$setting" "/proc/sys/$setting"
done
# The kernel lets users of a pod's own mount a proc only where a whole one is to be seen.
mkdir "$0/proc"
mount -t proc proc "$0/proc"
mount --make-rshared /
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
touch "$0/ready"
exec sleep infinity
"#;

/// A node, from its namespaces to its two programs.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) address: String,
    /// Where its files are, seen from everywhere.
    pub(super) folder: PathBuf,
    /// Its control group, from the root of the hierarchies.
    pub(super) group: String,
    /// Which kubelet it has.
    pub(super) release: Release,
    binary: PathBuf,
    kubelet: PathBuf,
    /// Keeps the namespaces.
    holder: Child,
    programs: RefCell<Programs>,
}

#[derive(Default)]
struct Programs {
    daemon: Option<Child>,
    kubelet: Option<Child>,
}

impl Node {
    /// Makes node `number`, with nothing running.
    pub(super) fn make(place: &Place, number: u8) -> Result<Node> {
        let name = format!("node-{number}");
        let folder = place.folder.join(&name);
        for part in ["manifests", "net.d", "shared"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let group = format!("{}/{name}", place.group);
        make_groups(&group)?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "--mount", "--propagation", "private", "--", "sh", "-c", SET_UP]);
        let mut holder =
            unshare.arg(&folder).args(SYSCTLS).stdin(Stdio::null()).spawn().context("unshare")?;
        until("the node's namespaces", Duration::from_secs(20), || {
            if let Some(status) = holder.try_wait()? {
                bail!("setting up {name} ended with {status}");
            }
            Ok(folder.join("ready").exists().then_some(()))
        })?;
        let address = format!("172.30.0.{}", 10 + number);
        ip(&format!("link add veth{number} type veth peer name eth0 netns {}", holder.id()))?;
        ip(&format!("link set veth{number} master cluster0 up"))?;
        ip(&format!("route add {} via {address}", pod_range(number)))?;
        let kubelet = super::programs::place(place.release)?.join("kubelet");
        let (binary, programs) = (place.binary.clone(), RefCell::default());
        let node =
            Node { name, address, folder, group, release: place.release, binary, kubelet, holder, programs };
        node.ip(&format!("addr add {}/24 dev eth0", node.address))?;
        node.ip("link set eth0 up")?;
        node.ip(&format!("route add default via {GATEWAY}"))?;
        node.configure_daemon()?;
        Ok(node)
    }

    fn configure_daemon(&self) -> Result<()> {
        let hosts = HOSTS.map(|host| format!("{host:?}")).join(", ");
        let config = format!(
            "[network]\nconf_dir = {:?}\n[nri]\nenabled = false\n[cdi]\ndirs = []\n[runtime]\ncgroup_driver = \"cgroupfs\"\n\
             [image]\ninsecure_registries = [{hosts}]\ncerts_dirs = []\nregistries_conf = \"\"\nauth_files = []\npinned = [{PINNED:?}]\n[log]\nlevel = \"debug\"\n\
             [runtimes.second]\nkind = \"oci\"\npath = {:?}\narguments = [\"oci\"]\n",
            self.folder.join("net.d"),
            self.binary,
        );
        fs::write(self.folder.join("config.toml"), config)?;
        self.give_network()
    }

    /// A list for the built-in network, whose range the kubelet tells.
    pub(super) fn give_network(&self) -> Result<()> {
        let plugin = json!({
            "type": "pintle", "bridge": "pintle0", "subnets": ["{podCIDR}"], "ipMasq": true,
            "capabilities": { "portMappings": true, "bandwidth": true, "dns": true }
        });
        let list = json!({ "cniVersion": "1.1.0", "name": "pods", "plugins": [plugin] });
        Ok(fs::write(self.folder.join("net.d/10-pintle.conflist"), list.to_string())?)
    }

    /// Takes the list away again.
    pub(super) fn take_network(&self) -> Result<()> {
        Ok(fs::remove_file(self.folder.join("net.d/10-pintle.conflist"))?)
    }

    /// A program in the node's namespaces.
    pub(super) fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--mount", "--"]).arg(program);
        command.stdin(Stdio::null());
        command
    }

    fn ip(&self, words: &str) -> Result<()> {
        command::run(self.inside("ip").args(words.split(' ')))
    }

    fn begin(&self, mut program: Command, log: &str) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join(log))?;
        program.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
        program.spawn().with_context(|| format!("cannot start {:?}", program.get_program()))
    }

    /// Starts the daemon and waits until it serves.
    pub(super) fn start_daemon(&self) -> Result<()> {
        let mut serve = self.inside(&self.binary);
        serve.arg("serve").arg("--config").arg(self.folder.join("config.toml"));
        self.programs.borrow_mut().daemon = Some(self.begin(serve, "daemon.log")?);
        until("the daemon", Duration::from_secs(30), || {
            if let Some(Some(status)) =
                self.programs.borrow_mut().daemon.as_mut().map(Child::try_wait).transpose()?
            {
                bail!("the daemon ended with {status}; see {}", self.folder.join("daemon.log").display());
            }
            Ok(self.pintle(&["version"]).ok())
        })?;
        Ok(())
    }

    /// Ends the daemon by a signal and waits for its end.
    pub(super) fn end_daemon(&self, signal: Signal) -> Result<()> {
        end(self.programs.borrow_mut().daemon.take(), signal)
    }

    /// Starts the kubelet alone, with `more` in its configuration, and waits until it answers.
    pub(super) fn start_kubelet(&self, more: &Value) -> Result<()> {
        self.launch_kubelet(None, more)
    }

    /// Starts the kubelet of a cluster, which it knows from a kubeconfig.
    pub(super) fn start_kubelet_of(&self, cluster: &Path, more: &Value) -> Result<()> {
        self.launch_kubelet(Some(cluster), more)
    }

    fn launch_kubelet(&self, cluster: Option<&Path>, more: &Value) -> Result<()> {
        let config = kubelet::configuration(self, more);
        fs::write(self.folder.join("kubelet.json"), serde_json::to_string_pretty(&config)?)?;
        let mut kubelet = self.inside(&self.kubelet);
        kubelet.args(kubelet::arguments(self));
        if let Some(cluster) = cluster {
            kubelet.arg("--kubeconfig").arg(cluster);
        }
        self.programs.borrow_mut().kubelet = Some(self.begin(kubelet, "kubelet.log")?);
        until("the kubelet", Duration::from_secs(60), || {
            if let Some(status) = self.kubelet_ended()? {
                bail!("the kubelet ended with {status}:\n{}", self.last_words());
            }
            let healthz = format!("http://{}:10248/healthz", self.address);
            let healthy =
                said(Command::new("curl").args(["--silent", "--fail", "--max-time", "10", &healthz]));
            Ok((healthy.ok().as_deref() == Some("ok")).then_some(()))
        })
    }

    /// Whether the kubelet has ended, and how.
    pub(super) fn kubelet_ended(&self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.programs.borrow_mut().kubelet.as_mut().map(Child::try_wait).transpose()?.flatten())
    }

    /// Ends the kubelet by a signal and waits for its end.
    pub(super) fn end_kubelet(&self, signal: Signal) -> Result<()> {
        end(self.programs.borrow_mut().kubelet.take(), signal)
    }

    /// The last lines of the kubelet's log.
    pub(super) fn last_words(&self) -> String {
        let log = self.kubelet_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// All that the kubelets of this node have logged.
    pub(super) fn kubelet_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("kubelet.log")).unwrap_or_default()).into_owned()
    }

    /// A client command of Pintle's, and its standard output.
    pub(super) fn pintle(&self, args: &[&str]) -> Result<String> {
        said(self.inside(&self.binary).args(args))
    }

    /// Has the kubelet run a pod.
    pub(super) fn apply(&self, pod: &Value) -> Result<()> {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        // Renamed into place: the kubelet reads the folder at any moment, but no file whose name begins with a dot.
        let making = self.folder.join(format!("manifests/.{name}"));
        fs::write(&making, pod.to_string())?;
        Ok(fs::rename(making, self.manifest(name))?)
    }

    /// Has the kubelet end a pod; one that is not there is done.
    pub(super) fn delete(&self, name: &str) {
        let _ = fs::remove_file(self.manifest(name));
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.folder.join(format!("manifests/{name}.json"))
    }

    /// A file that pods see below `/shared`.
    pub(super) fn shared(&self, name: &str) -> PathBuf {
        self.folder.join("shared").join(name)
    }

    /// The folder that pods write to.
    pub(super) fn shared_folder(&self) -> PathBuf {
        self.folder.join("shared")
    }

    /// A path in the node's own mount namespace, seen from here.
    pub(super) fn seen(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.holder.id().to_string()).join("root").join(path.trim_start_matches('/'))
    }
}

/// The range of a node's pods.
pub(super) fn pod_range(number: u8) -> String {
    format!("10.240.{number}.0/24")
}

fn end(program: Option<Child>, signal: Signal) -> Result<()> {
    let Some(mut child) = program else { return Ok(()) };
    if child.try_wait()?.is_none() {
        kill_process(Pid::from_child(&child), signal)?;
    }
    until("the end of a program that was told to end", Duration::from_secs(30), || Ok(child.try_wait()?))?;
    Ok(())
}

/// Runs to the end; standard output, or an error with what it said on standard error.
pub(super) fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    ensure!(output.status.success(), "{:?} ended with {}: {}", command, output.status, err.trim());
    Ok(out)
}

/// Asks until there is an answer. The last error, if there was one, is part of what is said when there is none in time.
pub(super) fn until<T>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begun.elapsed() > patience {
            bail!("{what}: not within {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
