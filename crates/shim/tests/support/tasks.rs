//! What containerd is to a shim: it starts one, calls it, takes its events, and gives its tasks fifos.

use super::client::Client;
use prost::Message;
use shim::protocol::{CallError, Decoder, FrameKind, Request, Response, encode};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use task::bootstrap::{BootstrapParams, BootstrapResult};
use task::events::ForwardRequest;
use task::*;

pub const NAMESPACE: &str = "tested";

/// A folder with bundles, and a socket that takes events.
pub struct Containerd {
    pub folder: tempfile::TempDir,
    pub cgroup: String,
    pub events: Arc<Mutex<Vec<Any>>>,
    program: PathBuf,
}

/// A server, and the first connection to it.
pub struct Served {
    pub address: String,
    pub client: Client,
    pub pid: i32,
}

impl Containerd {
    pub fn new() -> Containerd {
        let containerd = Containerd::silent();
        containerd.take_events();
        containerd
    }

    /// One that does not listen for events.
    pub fn silent() -> Containerd {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("pintle-task-").tempdir().unwrap();
        let program = folder.path().join(shim::task::PROGRAM);
        std::os::unix::fs::symlink(super::shim_program(), &program).unwrap();
        let cgroup = format!("/pintle-test-task-{}-{number}", std::process::id());
        Containerd { folder, cgroup, events: Arc::default(), program }
    }

    pub fn events_socket(&self) -> PathBuf {
        self.folder.path().join("events.sock")
    }

    /// From now on takes events, and says that it has.
    pub fn take_events(&self) {
        let listener = UnixListener::bind(self.events_socket()).unwrap();
        let events = Arc::clone(&self.events);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let events = Arc::clone(&events);
                std::thread::spawn(move || {
                    let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
                    while let Ok(length @ 1..) = socket.read(&mut buffer) {
                        decoder.feed(&buffer[..length]);
                        while let Some(frame) = decoder.next_frame().unwrap() {
                            let request = Request::decode(frame.payload).unwrap();
                            assert_eq!((&*request.service, &*request.method), (events::SERVICE, "Forward"));
                            let forward = ForwardRequest::decode(&request.payload[..]).unwrap();
                            let envelope = forward.envelope.unwrap();
                            assert_eq!(envelope.namespace, NAMESPACE);
                            events.lock().unwrap().push(envelope.event.unwrap());
                            let mut out = Vec::new();
                            encode(&mut out, frame.stream, FrameKind::Response, &Response::default())
                                .unwrap();
                            let _ = socket.write_all(&out);
                        }
                    }
                });
            }
        });
    }

    /// The names of the events until one of the name `last` came, which must be soon.
    pub fn events_until(&self, last: &str) -> Vec<String> {
        let names = || -> Vec<String> {
            let events = self.events.lock().unwrap();
            events
                .iter()
                .map(|event| event.type_url.trim_start_matches("containerd.events.Task").to_owned())
                .collect()
        };
        let end = Instant::now() + Duration::from_secs(8);
        while !names().iter().any(|name| name == last) {
            assert!(Instant::now() < end, "no event {last} among {:?}", names());
            std::thread::sleep(Duration::from_millis(10));
        }
        names()
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.folder.path().join(NAMESPACE).join(id)
    }

    /// A bundle that runs `script` in busybox.
    pub fn make_bundle(
        &self,
        id: &str,
        script: &str,
        change: impl FnOnce(&mut serde_json::Value),
    ) -> PathBuf {
        let bundle = self.bundle(id);
        let rootfs = bundle.join("rootfs");
        make_root(&rootfs);
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
                "namespaces": [ { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" } ],
            },
        });
        change(&mut spec);
        std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        // A fifo below containerd; what is said there is shown if a test fails.
        std::fs::write(bundle.join("log"), "").unwrap();
        bundle
    }

    pub fn command(&self, id: &str, action: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["-namespace", NAMESPACE, "-id", id])
            .arg("-address")
            .arg(self.folder.path().join("c.sock"));
        command.args(["-publish-binary", "/bin/true"]).args(action).current_dir(self.bundle(id));
        command.env("TTRPC_ADDRESS", self.events_socket()).stdin(Stdio::null());
        command
    }

    /// Runs `start` as containerd 2.3 and later do.
    pub fn try_start(&self, id: &str) -> Output {
        let parameters = BootstrapParams {
            instance_id: id.into(),
            namespace: NAMESPACE.into(),
            containerd_ttrpc_address: self.events_socket().to_str().unwrap().into(),
            socket_dir: Some(self.folder.path().join("s").to_str().unwrap().into()),
            ..Default::default()
        };
        let input = self.folder.path().join("parameters");
        std::fs::write(&input, parameters.encode_to_vec()).unwrap();
        let input = std::fs::File::open(input).unwrap();
        let mut command = self.command(id, &["start"]);
        command.env("MAX_SHIM_VERSION", "2").env("TTRPC_ADDRESS", "/what/is/said/counts");
        command.stdin(input).output().unwrap()
    }

    pub fn start(&self, id: &str) -> Served {
        let output = self.try_start(id);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let result = BootstrapResult::decode(&output.stdout[..]).unwrap();
        assert_eq!((result.version, &*result.protocol), (3, "ttrpc"));
        Served::at(result.address)
    }

    /// Runs `delete`.
    pub fn delete(&self, id: &str) -> DeleteResponse {
        let output =
            self.command(id, &["-bundle", self.bundle(id).to_str().unwrap(), "delete"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        DeleteResponse::decode(&output.stdout[..]).unwrap()
    }

    /// A fifo; both of its ends are opened by whoever wants them.
    pub fn fifo(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        path.to_str().unwrap().into()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let bundles =
            || std::fs::read_dir(self.folder.path().join(NAMESPACE)).into_iter().flatten().flatten();
        for bundle in bundles().filter(|_| std::thread::panicking()) {
            let said = std::fs::read_to_string(bundle.path().join("log")).unwrap_or_default();
            println!("{}: {said}", bundle.path().display());
        }
        // Whatever a failed test left: the servers of this folder, then what they parented.
        let own = self.folder.path().join("c.sock");
        for (pid, line) in command_lines() {
            if line.contains(own.to_str().unwrap()) {
                let _ = rustix::process::kill_process(
                    rustix::process::Pid::from_raw(pid).unwrap(),
                    rustix::process::Signal::KILL,
                );
            }
        }
        if let Ok(host) = cgroup::Host::detect() {
            if let Ok(group) = host.open(&self.cgroup) {
                let _ = group.kill_all(Duration::from_secs(3));
            }
            let _ = host.delete(&self.cgroup, Duration::from_secs(3));
        }
        for bundle in bundles() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            while rustix::mount::unmount(bundle.path().join("rootfs"), flags).is_ok() {}
        }
    }
}

pub fn command_lines() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pid = |entry: &std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries
        .filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((pid(&entry)?, String::from_utf8_lossy(&line).replace('\0', " ")))
        })
        .collect()
}

impl Served {
    pub fn at(address: String) -> Served {
        let path = address.strip_prefix("unix://").unwrap();
        let mut client = Client::over(sys::socket::connect(Path::new(path)).unwrap());
        let stream = client.send_raw(SERVICE_V3, "Connect", Vec::new(), 0, &[]);
        let response: ConnectResponse = client.result(stream).unwrap();
        Served { address, client, pid: response.shim_pid as i32 }
    }

    pub fn call<R: Message + Default>(
        &mut self,
        method: Method,
        message: &impl Message,
    ) -> Result<R, CallError> {
        let stream = self.send(method, message);
        self.client.result(stream)
    }

    pub fn send(&mut self, method: Method, message: &impl Message) -> u32 {
        self.client.send_raw(SERVICE_V3, method.name(), message.encode_to_vec(), 0, &[])
    }

    /// Creates a task in its bundle.
    pub fn create(
        &mut self,
        bundle: &Path,
        change: impl FnOnce(&mut CreateTaskRequest),
    ) -> Result<u32, CallError> {
        let mut request = CreateTaskRequest {
            id: bundle.file_name().unwrap().to_str().unwrap().into(),
            bundle: bundle.to_str().unwrap().into(),
            ..Default::default()
        };
        change(&mut request);
        self.call::<CreateTaskResponse>(Method::Create, &request).map(|response| response.pid)
    }

    pub fn run(&mut self, id: &str, exec_id: &str) -> Result<u32, CallError> {
        let request = StartRequest { id: id.into(), exec_id: exec_id.into() };
        self.call::<StartResponse>(Method::Start, &request).map(|response| response.pid)
    }

    pub fn status(&mut self, id: &str, exec_id: &str) -> Result<Status, CallError> {
        let request = StateRequest { id: id.into(), exec_id: exec_id.into() };
        self.call::<StateResponse>(Method::State, &request).map(|response| response.status())
    }

    pub fn kill(&mut self, id: &str, exec_id: &str, signal: u32) -> Result<Empty, CallError> {
        self.call(Method::Kill, &KillRequest { id: id.into(), exec_id: exec_id.into(), signal, all: false })
    }

    pub fn wait(&mut self, id: &str, exec_id: &str) -> Result<u32, CallError> {
        let request = WaitRequest { id: id.into(), exec_id: exec_id.into() };
        self.call::<WaitResponse>(Method::Wait, &request).map(|response| response.exit_status)
    }

    pub fn delete(&mut self, id: &str, exec_id: &str) -> Result<DeleteResponse, CallError> {
        self.call(Method::Delete, &DeleteRequest { id: id.into(), exec_id: exec_id.into() })
    }

    /// Whether the server is gone, or is so soon.
    pub fn is_gone(&self) -> bool {
        let end = Instant::now() + Duration::from_secs(5);
        while Path::new(&format!("/proc/{}", self.pid)).exists() {
            let state = sys::process::stat_fields(self.pid).map(|(state, _)| state);
            if matches!(state, Ok('Z') | Err(_)) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

/// A root file system with busybox and its usual names.
pub fn make_root(rootfs: &Path) {
    for folder in ["bin", "proc", "dev", "tmp", "sys"] {
        std::fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", rootfs.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "cat", "echo", "true", "seq", "head", "dd", "yes", "tty", "stty", "tail"] {
        let _ = std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name));
    }
}

/// An OCI process object.
pub fn process(script: &str) -> serde_json::Value {
    serde_json::json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0 },
        "args": ["/bin/sh", "-c", script],
        "env": ["PATH=/bin"],
        "cwd": "/",
    })
}

/// What a further process is told of with.
pub fn exec_request(id: &str, exec_id: &str, script: &str) -> ExecProcessRequest {
    ExecProcessRequest {
        id: id.into(),
        exec_id: exec_id.into(),
        spec: Some(pack_json(OCI_PROCESS, serde_json::to_vec(&process(script)).unwrap())),
        ..Default::default()
    }
}

/// Reads a fifo until it ends, beside the test.
pub fn reader(path: &str) -> std::thread::JoinHandle<String> {
    let path = path.to_owned();
    std::thread::spawn(move || String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
}

/// An open end of a fifo that does not wait for the other.
pub fn open_end(path: &str, write: bool) -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    let flags = if write { OFlags::WRONLY } else { OFlags::RDONLY };
    rustix::fs::open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap()
}
