//! Namespaces, control groups and a folder around a whole run; and who removes them, however the run ends.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};

use super::images::{self, HOSTS};
use super::programs::Release;
use super::{Options, Task};
use crate::command;
use crate::conformance::Registry;

/// Tells the second start of this program which folder it is in.
pub(super) const INSIDE: &str = "--inside";
/// Where folders of runs are made, and how their names begin; control groups have the same names.
const FOLDERS: &str = "/tmp";
const PREFIX: &str = "pintle-cluster-";
/// The bridge between the nodes, in the sandbox's network namespace, has these addresses.
pub(super) const GATEWAY: &str = "172.30.0.1";
const PRIVATE: &str = "172.30.0.2";

/// Starts this program once more in namespaces of its own, and waits until it and everything that it made are gone.
///
/// All processes of the run are in one pid namespace, which ends with its first process, and that ends with this one. All of them hold
/// the lock of the folder: whoever gets it finds nobody there. That is the janitor, a process apart, which also Ctrl-C does not reach.
pub(super) fn enter(options: &Options, binary: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix(PREFIX).disable_cleanup(true).tempdir_in(FOLDERS)?;
    let folder = folder.path();
    fs::write(folder.join("task"), if options.task == Task::Up { "up" } else { "test" })?;
    fs::write(folder.join("pid"), std::process::id().to_string())?;
    let lock = File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let mut janitor = itself()?;
    janitor.args(["cluster", "down", INSIDE]).arg(folder).args(options.keep.then_some("--keep"));
    // A group of its own: the terminal's signals go to ours.
    let mut janitor = janitor.stdin(Stdio::null()).process_group(0).spawn()?;
    let done = make_groups(&group_of(folder)?).and_then(|()| sandboxed(options, binary, folder, &lock));
    drop(lock);
    let cleaned = janitor.wait()?;
    done?;
    if !cleaned.success() {
        bail!("something of the run is left: see above");
    }
    Ok(())
}

fn itself() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("this program's own file")?))
}

fn sandboxed(options: &Options, binary: &Path, folder: &Path, lock: &File) -> Result<()> {
    let hosts = folder.join("hosts");
    let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
    fs::write(&hosts, format!("{GATEWAY} {}\n{PRIVATE} {}\n{own}", HOSTS[0], HOSTS[1]))?;
    // Killed with us, and everything in the namespaces with it.
    let mut run = Command::new("setpriv");
    run.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    run.args(["--mount-proc", "--propagation", "private", "--", "sh", "-c"]);
    // The shell stays: it is the first process of the namespace, which every orphan becomes a child of, and it reaps them.
    let set_up = r#"mount --bind "$0" /etc/hosts && ip link set lo up || exit 1; "$@"; exit $?"#;
    run.arg(set_up).arg(hosts).arg(std::env::current_exe()?).arg("cluster");
    run.arg(if options.task == Task::Up { "up" } else { "test" });
    run.args(["--kubelet", options.kubelet.name(), "--binary"]).arg(binary);
    run.args(options.node.then_some("--node"));
    run.args(options.focus.iter().flat_map(|focus| ["--focus", focus]));
    run.arg(INSIDE).arg(folder).stdin(Stdio::null());
    fcntl_setfd(lock, FdFlags::empty())?;
    let child = run.spawn();
    fcntl_setfd(lock, FdFlags::CLOEXEC)?;
    let status = child.context("setpriv and unshare, of util-linux")?.wait()?;
    if !status.success() {
        bail!("the cluster's run did not pass");
    }
    Ok(())
}

/// The janitor of one run: waits until its processes are gone, and removes what they cannot take with them.
pub(super) fn janitor(folder: &Path, keep: bool) -> Result<()> {
    let lock = File::open(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let left = remove_groups(&group_of(folder)?);
    if keep {
        println!("kept: {}", folder.display());
    } else {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    left
}

/// Ends what `up` began, and removes what killed runs have left. A test that runs is left alone.
pub(super) fn remove_all() -> Result<()> {
    for entry in fs::read_dir(FOLDERS)?.flatten() {
        let folder = entry.path();
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if fs::read_to_string(folder.join("task")).unwrap_or_default() != "up" {
                println!("{} is a test that runs: left alone", folder.display());
                continue;
            }
            let pid = fs::read_to_string(folder.join("pid"))?.trim().parse()?;
            kill_process(Pid::from_raw(pid).context("the pid of the run")?, Signal::TERM)?;
        }
        drop(lock);
        // Its own janitor may be first; then there is nothing left to do.
        match janitor(&folder, false) {
            Err(error) if folder.exists() => return Err(error),
            _ => println!("removed {}", folder.display()),
        }
    }
    Ok(())
}

/// The name of the run's control groups.
fn group_of(folder: &Path) -> Result<String> {
    Ok(folder.file_name().context("a folder with a name")?.to_string_lossy().into_owned())
}

/// The hierarchies: one for each controller with version 1, one in all with version 2.
fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if top.join("cgroup.controllers").exists() {
        return vec![top.to_owned()];
    }
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect()
}

/// Makes a group in every hierarchy. Nobody but the kubelets and daemons of the run makes groups in it.
pub(super) fn make_groups(name: &str) -> Result<()> {
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| group.display().to_string())?;
        let parent = group.parent().unwrap_or(&hierarchy);
        // A new group of version 1 has no processors and no memory at first, and nothing can run in it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(of_parent) = fs::read_to_string(parent.join(file)) {
                let _ = fs::write(group.join(file), of_parent);
            }
        }
        if let Ok(controllers) = fs::read_to_string(parent.join("cgroup.controllers")) {
            for controller in controllers.split_whitespace() {
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    Ok(())
}

fn remove_groups(name: &str) -> Result<()> {
    let begun = Instant::now();
    for hierarchy in hierarchies() {
        let group = hierarchy.join(name);
        while let Err(error) = remove_group(&group) {
            // The processes of a group end a moment after they were killed.
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("{}: {error}; remove it when its processes are gone", group.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// What all nodes of a run share.
pub(super) struct Place {
    /// Everything of the run is in it.
    pub(super) folder: PathBuf,
    /// The name of its control groups.
    pub(super) group: String,
    /// The pintle under test.
    pub(super) binary: PathBuf,
    pub(super) release: Release,
    /// They serve until the run ends.
    _registries: [Registry; 2],
}

impl Place {
    /// Sets up what is outside the nodes: their bridge, and the registries.
    pub(super) fn open(folder: &Path, binary: &Path, release: Release) -> Result<Place> {
        ip("link add cluster0 type bridge")?;
        for address in [GATEWAY, PRIVATE] {
            ip(&format!("addr add {address}/24 dev cluster0"))?;
        }
        ip("link set cluster0 up")?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let registries = images::serve(GATEWAY, PRIVATE, folder)?;
        let (folder, binary) = (folder.to_owned(), binary.to_owned());
        Ok(Place { group: group_of(&folder)?, folder, binary, release, _registries: registries })
    }
}

/// ip(8), with its words as one text.
pub(super) fn ip(words: &str) -> Result<()> {
    command::run(Command::new("ip").args(words.split(' ')))
}
