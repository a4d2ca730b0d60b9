//! A real shim on a pod of its own, a client of it, and containers made of busybox. Everything is taken away again, also on failure.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program is a crate of its own and uses a part of it"
)]

pub mod client;
pub mod tasks;

use client::Client;
use shim::config::{NamespaceMode, PidMode, PodNamespaces, ShimConfig, socket_path};
use shim::protocol::{
    CreateRequest, CreateResponse, Exit, InfoRequest, InfoResponse, Method, StartRequest, StartResponse,
    WaitRequest, WaitResponse,
};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BUSYBOX: &str = "/usr/bin/busybox";

/// What stands in the way of tests with real containers, if anything.
pub fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root");
    }
    if !Path::new(BUSYBOX).exists() {
        return Some("no static busybox at /usr/bin/busybox");
    }
    None
}

/// Returns from a test that cannot be run here.
#[macro_export]
macro_rules! needs_containers {
    () => {
        if let Some(why) = support::missing() {
            println!("SKIPPED: {why}");
            return;
        }
    };
}

pub fn config(pod_dir: &Path) -> ShimConfig {
    ShimConfig {
        version: 1,
        pod_id: "pod-under-test".into(),
        pod_dir: pod_dir.into(),
        hostname: "tested".into(),
        domainname: None,
        namespaces: PodNamespaces {
            net: NamespaceMode::New,
            ipc: NamespaceMode::New,
            uts: NamespaceMode::New,
            pid: PidMode::PerContainer,
        },
        users: None,
        sysctls: Default::default(),
        oom_score_adj: None,
        selinux: None,
        log_level: shim::config::LogLevel::Info,
        cgroup_mounts: String::new(),
        foreign: None,
    }
}

pub fn shim_program() -> PathBuf {
    std::env::var_os("PINTLE_SHIM").map_or_else(|| env!("CARGO_BIN_EXE_pintle-shim").into(), PathBuf::from)
}

/// Starts a shim; the other end of its first connection.
pub fn launch(config: &ShimConfig, messages: &Path) -> (Child, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let input = config.pod_dir.join("config-of-the-test.json");
    std::fs::write(&input, serde_json::to_vec(config).unwrap()).unwrap();
    let child = Command::new(shim_program())
        .arg("shim")
        .stdin(File::open(&input).unwrap())
        .stdout(Stdio::from(theirs))
        .stderr(File::create(messages).unwrap())
        .spawn()
        .unwrap();
    std::fs::remove_file(input).unwrap();
    (child, ours)
}

/// A pod with a shim of its own.
pub struct Pod {
    pub folder: tempfile::TempDir,
    pub dir: PathBuf,
    pub cgroup: String,
    pub child: Child,
    pub client: Client,
}

impl Pod {
    pub fn start() -> Pod {
        Pod::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ShimConfig)) -> Pod {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("pintle-shim-").tempdir().unwrap();
        let dir = folder.path().join("pod");
        std::fs::create_dir(&dir).unwrap();
        let mut config = config(&dir);
        change(&mut config);
        let (child, socket) = launch(&config, &folder.path().join("messages"));
        let cgroup = format!("/pintle-test-shim-{}-{number}", std::process::id());
        let mut client = Client::over(socket);
        // From then on it listens.
        let _: InfoResponse = client.call(Method::Info, &InfoRequest {}).unwrap();
        Pod { dir, folder, cgroup, child, client }
    }

    /// A further connection.
    pub fn connect(&self) -> Client {
        Client::over(sys::socket::connect(&socket_path(&self.dir)).unwrap())
    }

    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("messages")).unwrap()
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.folder.path().join("logs").join(format!("{id}.log"))
    }

    /// A bundle with busybox that runs `script`; `change` edits the configuration.
    pub fn bundle(&self, id: &str, script: &str, change: impl FnOnce(&mut serde_json::Value)) -> PathBuf {
        let bundle = self.dir.join("containers").join(id);
        for folder in ["rootfs/bin", "rootfs/proc", "rootfs/dev", "rootfs/tmp", "rootfs/sys"] {
            std::fs::create_dir_all(bundle.join(folder)).unwrap();
        }
        std::fs::create_dir_all(self.folder.path().join("logs")).unwrap();
        let busybox = bundle.join("rootfs/bin/busybox");
        if !busybox.exists() {
            std::fs::copy(BUSYBOX, busybox).unwrap();
        }
        for name in [
            "sh",
            "sleep",
            "cat",
            "echo",
            "true",
            "seq",
            "head",
            "hostname",
            "dd",
            "yes",
            "tty",
            "stty",
            "kill",
            "sha256sum",
        ] {
            // It is there already when a container is made a second time.
            let _ = std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin").join(name));
        }
        let mut spec = serde_json::json!({
            "ociVersion": "1.2.0",
            "process": process(script),
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
            ],
            "linux": {
                "cgroupsPath": format!("{}/{id}", self.cgroup),
                "namespaces": [ { "type": "pid" }, { "type": "mount" }, { "type": "cgroup" } ],
            },
        });
        change(&mut spec);
        std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        bundle
    }

    pub fn create_request(&self, id: &str, script: &str) -> CreateRequest {
        self.create_request_with(id, script, |_| {})
    }

    pub fn create_request_with(
        &self,
        id: &str,
        script: &str,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> CreateRequest {
        let bundle = self.bundle(id, script, change);
        CreateRequest {
            id: id.into(),
            bundle: bundle.to_str().unwrap().into(),
            log_path: self.log(id).to_str().unwrap().into(),
            ..CreateRequest::default()
        }
    }

    /// Creates and starts a container; its pid.
    pub fn run(&mut self, id: &str, script: &str) -> u32 {
        let request = self.create_request(id, script);
        self.run_request(&request)
    }

    pub fn run_request(&mut self, request: &CreateRequest) -> u32 {
        let created: CreateResponse = self.client.call(Method::Create, request).unwrap();
        let _: StartResponse =
            self.client.call(Method::Start, &StartRequest { id: request.id.clone() }).unwrap();
        created.pid
    }

    pub fn wait(&mut self, id: &str) -> Exit {
        let waited: WaitResponse = self.client.call(Method::Wait, &WaitRequest { id: id.into() }).unwrap();
        waited.exit.unwrap()
    }

    /// The content of a container's log, stream by stream, without the records' heads.
    pub fn logged(&self, id: &str) -> (Vec<u8>, Vec<u8>) {
        let mut streams = (Vec::new(), Vec::new());
        read_log(&self.log(id), &mut streams);
        streams
    }

    /// Waits for the shim to end by itself.
    pub fn ended(&mut self) -> bool {
        within(Duration::from_secs(5), || self.child.try_wait().unwrap().is_some())
    }

    /// Every directory of this pod's cgroup that exists.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let name = &self.cgroup[1..];
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        hierarchies
            .chain([PathBuf::from("/sys/fs/cgroup")])
            .map(|hierarchy| hierarchy.join(name))
            .filter(|path| path.exists())
            .collect()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // Whoever is in the pod's cgroups, then the shim's own children, then the shim.
        for cgroup in self.cgroups() {
            for_each_below(&cgroup, &mut |folder| {
                let processes = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                processes.lines().for_each(kill);
            });
        }
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let pid = self.child.id();
            let children =
                std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            children.split_ascii_whitespace().for_each(kill);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let cgroups = self.cgroups();
        let gone = within(Duration::from_secs(3), || {
            for cgroup in &cgroups {
                for_each_below(cgroup, &mut |folder| drop(std::fs::remove_dir(folder)));
            }
            self.cgroups().is_empty()
        });
        if std::thread::panicking() {
            println!("the shim said:\n{}", self.messages());
        } else {
            assert!(gone, "cgroups are left: {:?}", self.cgroups());
        }
    }
}

fn kill(pid: &str) {
    if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Calls `each` with the folders below `folder` and then with `folder`.
fn for_each_below(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            for_each_below(&entry.path(), each);
        }
    }
    each(folder);
}

pub fn process(script: &str) -> serde_json::Value {
    serde_json::json!({
        "args": ["/bin/sh", "-c", script],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": { "uid": 0, "gid": 0 },
    })
}

/// Appends what a log file's records hold; checks each record's form.
pub fn read_log(path: &Path, streams: &mut (Vec<u8>, Vec<u8>)) {
    let text = std::fs::read(path).unwrap_or_default();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\n").expect("a record ends with a newline");
        assert_eq!((line[4], line[10], line[29], line[30]), (b'-', b'T', b'Z', b' '), "{line:?}");
        let stream = match &line[31..37] {
            b"stdout" => &mut streams.0,
            b"stderr" => &mut streams.1,
            other => panic!("{other:?}"),
        };
        stream.extend_from_slice(&line[40..]);
        match &line[37..40] {
            b" F " => stream.push(b'\n'),
            b" P " => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Whether `condition` becomes true in time.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
