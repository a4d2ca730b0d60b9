//! A throw-away daemon for tests: its own folders, bridge, addresses and registry, and nothing of it left when it is dropped.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

mod busybox;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use cri::runtime_v1::image_service_client::ImageServiceClient;
use cri::runtime_v1::runtime_service_client::RuntimeServiceClient;
use hyper_util::rt::TokioIo;
use registry::tar::Entry;
use tonic::transport::{Channel, Endpoint, Uri};

pub use busybox::busybox_with;

/// Why these tests cannot run here, if so; a test says it and returns.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root: it makes namespaces, mounts and cgroups");
    }
    if busybox::program().is_none() {
        return Some("needs a static busybox (Debian: busybox-static)");
    }
    None
}

/// Returns from the test, with the reason, where it cannot run.
#[macro_export]
macro_rules! needs_a_node {
    () => {
        if let Some(reason) = support::missing() {
            println!("SKIPPED: {reason}");
            return;
        }
    };
}

/// Numbers that no two daemons of this machine share: bridges and subnets are made of them.
fn number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    (std::process::id() * 7 + NEXT.fetch_add(1, Ordering::Relaxed)) % 4096
}

/// Runs a test in a network namespace of its own, with loopback: daemon, registry and clients are in it, and the machine's own bridges,
/// rules and ports stay as they are.
pub fn in_own_network(test: impl Future<Output = ()>) {
    sys::namespace::leave(sys::namespace::kind::NETWORK).unwrap();
    let up = Command::new("busybox").args(["ip", "link", "set", "lo", "up"]).status().unwrap();
    assert!(up.success());
    // Threads made from here on are in the namespace too.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// A configuration with the form of layers that the environment names: these tests hold for each.
fn with_snapshotter(config: String) -> String {
    let Ok(name) = std::env::var("PINTLE_TEST_SNAPSHOTTER") else { return config };
    let setting = format!("[image]\nsnapshotter = {name:?}\n");
    match config.contains("[image]\n") {
        true => config.replacen("[image]\n", &setting, 1),
        false => config + "\n" + &setting,
    }
}

/// Control groups have the same paths on every machine, unless the test says otherwise.
fn with_cgroup_driver(config: String) -> String {
    const SETTING: &str = "[runtime]\ncgroup_driver = \"cgroupfs\"\n";
    match () {
        () if config.contains("cgroup_driver") => config,
        () if config.contains("[runtime]\n") => config.replacen("[runtime]\n", SETTING, 1),
        () => config + "\n" + SETTING,
    }
}

/// How a daemon differs from the usual one.
#[derive(Default)]
pub struct Setup {
    /// More of its configuration, such as `[image]` and what follows.
    pub config: String,
    /// The whole `[network]` list instead of the built-in network's; empty: no list at all.
    pub network: Option<String>,
    /// The umask it is started with.
    pub umask: Option<u32>,
    /// A file system of so many bytes of its own for what it keeps.
    pub root_bytes: Option<u64>,
}

/// A running daemon, a registry that it pulls from, and what a client needs.
pub struct Daemon {
    folder: tempfile::TempDir,
    child: Option<Child>,
    network: String,
    /// Every pod that was ever run, to look for what stays of it.
    pub seen: std::sync::Mutex<Vec<String>>,
    umask: Option<u32>,
    pub registry: registry::Listening,
    pub contents: Arc<registry::Registry>,
    pub image: String,
}

impl Daemon {
    /// Starts a daemon with the built-in network and pulls a busybox.
    pub async fn start() -> Daemon {
        Daemon::start_as(Setup::default()).await
    }

    /// Starts a daemon that differs from the usual one.
    pub async fn start_as(setup: Setup) -> Daemon {
        let folder = tempfile::Builder::new().prefix("pintle-test-").tempdir().unwrap();
        let number = number();
        let network = format!("pt{number}");
        let conf = folder.path().join("net.d");
        std::fs::create_dir(&conf).unwrap();
        let subnet = format!("10.{}.{}.0/24", 180 + number / 256, number % 256);
        let list = network::default_configuration(&network::Defaults {
            name: network.clone(),
            bridge: network.clone(),
            subnets: vec![subnet.parse().unwrap()],
            mtu: None,
        });
        let list = setup.network.unwrap_or(list);
        if !list.is_empty() {
            std::fs::write(conf.join("10-test.conflist"), list).unwrap();
        }
        if let Some(bytes) = setup.root_bytes {
            let root = folder.path().join("root");
            std::fs::create_dir(&root).unwrap();
            let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("test", &root, "tmpfs", flags, Some(options.as_c_str())).unwrap();
        }
        let more = with_cgroup_driver(with_snapshotter(setup.config));
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let [nri, plugins, cdi] = ["nri.sock", "plugins", "cdi"].map(|name| folder.path().join(name));
        let config = format!(
            "[network]\nconf_dir = {conf:?}\nbin_dirs = [{bin:?}]\nplugin_deadline_secs = 2\n[nri]\nsocket = {nri:?}\nplugin_dir = {plugins:?}\nconfig_dir = {plugins:?}\n[cdi]\ndirs = [{cdi:?}]\n[log]\nlevel = \"info\"\n{more}"
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        // What this machine says of registries is no test's business. It stands apart: a test may have an `[image]` of its own.
        let own = "image = { certs_dirs = ['F/d'], registries_conf = 'F/r', auth_files = ['F/a'] }";
        std::fs::create_dir(folder.path().join("config.d")).unwrap();
        let own = own.replace('F', &folder.path().to_string_lossy());
        std::fs::write(folder.path().join("config.d/own.toml"), own).unwrap();
        let store = registry::Registry::new();
        store.add("library/busybox", "1", &busybox::image());
        let registry = store.listen().await.unwrap();
        let image = format!("{}/library/busybox:1", registry.host());
        let (contents, umask, seen) = (store, setup.umask, Default::default());
        let mut daemon = Daemon { folder, child: None, network, seen, umask, registry, contents, image };
        daemon.launch().await;
        daemon.pull(&daemon.image.clone()).await.unwrap();
        daemon
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("pintle.sock")
    }

    /// The daemon's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Starts the daemon's process and waits until it serves.
    pub async fn launch(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut command = match self.umask {
            None => Command::new(env!("CARGO_BIN_EXE_pintle")),
            Some(umask) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("umask {umask:o}; exec \"$0\" \"$@\"")]);
                shell.arg(env!("CARGO_BIN_EXE_pintle"));
                shell
            }
        };
        let child = command
            .arg("serve")
            .args([Path::new("--config"), &self.path("config.toml")])
            .args([Path::new("--root"), &self.path("root")])
            .args([Path::new("--state"), &self.path("state")])
            .args([Path::new("--socket"), &self.socket()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let begun = Instant::now();
        while self.runtime().version(v1::VersionRequest::default()).await.is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < Duration::from_secs(20),
                "{ended:?}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the daemon as a power switch would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Ends the daemon as a service manager would, and waits until it has ended.
    pub fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success(), "{}", self.log());
    }

    /// Takes the bridge, the rules and the addresses off the machine.
    fn remove_network(&self) {
        let networks = network::Networks::new(network::NetworkConfig {
            conf_dir: self.path("net.d"),
            state_dir: self.path("state/network"),
            root_dir: self.path("root/network"),
            ..network::NetworkConfig::default()
        });
        if let Ok(networks) = networks
            && let Err(error) = networks.remove_network(&self.network)
        {
            eprintln!("network {}: {error}", self.network);
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    fn channel(&self) -> Channel {
        let socket = Arc::new(self.socket());
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(
            move |_: Uri| {
                let socket = socket.clone();
                async move { tokio::net::UnixStream::connect(&*socket).await.map(TokioIo::new) }
            },
        ))
    }

    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel()).max_decoding_message_size(cri::MAX_MESSAGE_BYTES)
    }

    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel())
    }

    pub async fn pull(&self, image: &str) -> Result<String, tonic::Status> {
        let image = Some(v1::ImageSpec { image: image.into(), ..Default::default() });
        let request = v1::PullImageRequest { image, ..Default::default() };
        Ok(self.images().pull_image(request).await?.into_inner().image_ref)
    }

    /// A pod as the kubelet would describe it, with a log directory of its own.
    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "test".into(),
                attempt: 0,
            }),
            log_directory: self.path("logs").join(name).display().to_string(),
            linux: Some(v1::LinuxPodSandboxConfig::default()),
            ..Default::default()
        }
    }

    /// A container that runs `script` with a shell.
    pub fn container(&self, name: &str, script: &str) -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            log_path: format!("{name}.log"),
            linux: Some(v1::LinuxContainerConfig::default()),
            ..Default::default()
        }
    }

    pub async fn run_pod(&self, config: &v1::PodSandboxConfig) -> Result<String, tonic::Status> {
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let id = self.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        self.seen.lock().unwrap().push(id.clone());
        Ok(id)
    }

    pub async fn create(
        &self,
        pod: &str,
        sandbox: &v1::PodSandboxConfig,
        config: &v1::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        Ok(self.runtime().create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<(), tonic::Status> {
        let request = v1::StartContainerRequest { container_id: id.into() };
        self.runtime().start_container(request).await.map(drop)
    }

    /// Creates and starts a container that runs `script`.
    pub async fn run(&self, pod: &str, sandbox: &v1::PodSandboxConfig, name: &str, script: &str) -> String {
        let id = self.create(pod, sandbox, &self.container(name, script)).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    pub async fn exec(
        &self,
        id: &str,
        command: &[&str],
        timeout: i64,
    ) -> Result<v1::ExecSyncResponse, tonic::Status> {
        let cmd = command.iter().map(ToString::to_string).collect();
        let request = v1::ExecSyncRequest { container_id: id.into(), cmd, timeout };
        Ok(self.runtime().exec_sync(request).await?.into_inner())
    }

    /// What a shell in the container prints for `script`, which has to succeed.
    pub async fn sh(&self, id: &str, script: &str) -> String {
        let done = self.exec(id, &["sh", "-c", script], 20).await.unwrap();
        assert_eq!(done.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub async fn status(&self, id: &str) -> Result<v1::ContainerStatus, tonic::Status> {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        Ok(self.runtime().container_status(request).await?.into_inner().status.unwrap())
    }

    /// Waits until the container has exited.
    pub async fn exited(&self, id: &str) -> v1::ContainerStatus {
        let begun = Instant::now();
        loop {
            let status = self.status(id).await.unwrap();
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "container {id} does not exit\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn stop_container(&self, id: &str, timeout: i64) -> Result<(), tonic::Status> {
        let request = v1::StopContainerRequest { container_id: id.into(), timeout };
        self.runtime().stop_container(request).await.map(drop)
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), tonic::Status> {
        self.runtime()
            .remove_container(v1::RemoveContainerRequest { container_id: id.into() })
            .await
            .map(drop)
    }

    pub async fn stop_pod(&self, id: &str) -> Result<(), tonic::Status> {
        self.runtime()
            .stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.into() })
            .await
            .map(drop)
    }

    pub async fn remove_pod(&self, id: &str) -> Result<(), tonic::Status> {
        self.runtime()
            .remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() })
            .await
            .map(drop)
    }

    pub async fn pods(&self) -> Vec<v1::PodSandbox> {
        self.runtime()
            .list_pod_sandbox(v1::ListPodSandboxRequest::default())
            .await
            .unwrap()
            .into_inner()
            .items
    }

    /// The text of a container's log, without times and tags.
    pub fn log_of(&self, pod: &str, container: &str) -> String {
        let path = self.path("logs").join(pod).join(format!("{container}.log"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n").collect()
    }

    /// Stops and removes every pod.
    pub async fn empty(&self) {
        for pod in self.pods().await {
            self.remove_pod(&pod.id).await.unwrap();
        }
    }

    /// Serves a busybox with these entries above it, and this `config` object, as `library/<name>:1`, and pulls it.
    pub async fn image_with(&self, name: &str, entries: &[Entry], run: serde_json::Value) -> String {
        let image = format!("{}/library/{name}:1", self.registry.host());
        self.contents.add(&format!("library/{name}"), "1", &busybox_with(entries, run));
        self.pull(&image).await.unwrap();
        image
    }

    /// Everything that this daemon keeps, so that a refused request can be seen to have left nothing: rows, files, mounts, shims, and
    /// the cgroups of the pods it shows.
    pub async fn inventory(&self) -> Vec<String> {
        let mut found = self.remains();
        for folder in ["root", "state", "logs", "net.d"] {
            files_below(&self.path(folder), &mut found);
        }
        let db = store::rusqlite::Connection::open(self.path("root/pintle.db")).unwrap();
        for (table, key) in [
            ("pods", "id"),
            ("containers", "id"),
            ("root_filesystems", "container"),
            ("images", "id"),
            ("image_references", "name"),
            ("layers", "id"),
        ] {
            let mut query = db.prepare(&format!("SELECT {key} FROM {table}")).unwrap();
            let rows = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
            found.extend(rows.map(|row| format!("{table} {}", row.unwrap())));
        }
        for pod in self.pods().await {
            for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
                let cgroup = controller.path().join(format!("pintle-pod-{}", pod.id));
                let inner = std::fs::read_dir(&cgroup).into_iter().flatten().flatten();
                found.extend(
                    inner
                        .filter(|entry| entry.path().is_dir())
                        .map(|entry| format!("cgroup {}", entry.path().display())),
                );
            }
        }
        found.sort();
        found
    }

    /// What the daemon keeps that it did not keep before, or no longer; what it cleans up in the background it gets a moment for.
    pub async fn changed_since(&self, before: &[String], what: &str) -> Option<String> {
        let begun = Instant::now();
        loop {
            let now = self.inventory().await;
            let news: Vec<_> = now.iter().filter(|thing| !before.contains(thing)).collect();
            let lost: Vec<_> = before.iter().filter(|thing| !now.contains(thing)).collect();
            if news.is_empty() && lost.is_empty() {
                return None;
            }
            if begun.elapsed() > Duration::from_secs(1) {
                return Some(format!("{what}: left behind {news:?}, lost {lost:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The shim of the pod that this container is in: what parents its first process.
    pub fn shim_of(&self, container: &str) -> u32 {
        // /proc leaves a process out now and then while others come and go: what is not seen is looked for again.
        for _ in 0..100 {
            let found = shims_of(container);
            if let [shim] = found[..] {
                return shim;
            }
            assert!(found.is_empty(), "the shims of container {container}: {found:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("container {container} has no shim");
    }

    /// What of this daemon is still on the machine: mounts, processes and cgroups that name its folder or its pods.
    pub fn remains(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut found: Vec<String> = mounts
            .lines()
            .filter(|line| line.contains(&folder))
            .map(|line| format!("mount {line}"))
            .collect();
        found.extend(self.seen.lock().unwrap().iter().flat_map(|pod| {
            // As either driver names it.
            let slice = format!("pintle.slice/pintle-pod.slice/pintle-pod-{pod}.slice");
            [format!("pintle-pod-{pod}"), slice].into_iter().filter_map(|path| {
                let cgroup = format!("/sys/fs/cgroup/{}{path}", if v2 { "" } else { "memory/" });
                Path::new(&cgroup).exists().then_some(cgroup)
            })
        }));
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let pid = entry.file_name().to_string_lossy().into_owned();
            let is_daemon = self.child.as_ref().is_some_and(|child| child.id().to_string() == pid);
            // A shim tells nothing on its command line; what it was told stands in its standard input.
            let shim = read("cmdline").starts_with(b"pintle-shim\0");
            let cwd_or_fds = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
            let ours = cwd_or_fds
                .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                .any(|to| to.to_string_lossy().contains(&folder));
            if !is_daemon && shim && ours {
                found.push(format!("shim {pid}"));
            }
        }
        found
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // What a failed test left is taken down by the daemon itself, whose own code knows best what there is. A thread, because a test
        // is within a runtime, which cannot be waited in.
        let failed = std::thread::panicking();
        std::thread::scope(|scope| {
            let emptied = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    if self.child.is_none() {
                        self.launch().await;
                    }
                    self.empty().await;
                });
            });
            if emptied.join().is_err() {
                eprintln!("the daemon could not be emptied");
            }
        });
        if let Some(mut child) = self.child.take() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::TERM,
            );
            let begun = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(12) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        self.remove_network();
        // Where it was no file system of its own, there is nothing to unmount.
        let _ = rustix::mount::unmount(self.path("root"), rustix::mount::UnmountFlags::DETACH);
        if failed {
            eprintln!("--- the daemon's log\n{}", self.log());
        }
    }
}

/// Paths below `folder`; what SQLite keeps beside its database comes and goes.
fn files_below(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(".db-") || path.ends_with("rootfs") {
            continue;
        }
        found.push(format!("file {}", path.display()));
        if kind.is_ok_and(|kind| kind.is_dir()) {
            files_below(&path, found);
        }
    }
}

/// The shims that parent a process of this container.
fn shims_of(container: &str) -> Vec<u32> {
    let shims = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(b"pintle-shim\0"))
    });
    let numbers = shims.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().any(|child| {
            let cgroup = std::fs::read_to_string(format!("/proc/{child}/cgroup"));
            cgroup.is_ok_and(|cgroup| cgroup.contains(container))
        })
    };
    numbers.filter(has).collect()
}
