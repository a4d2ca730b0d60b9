//! A bundle with a busybox root file system, and the commands that tests run on it. Everything is removed when it is dropped.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const APPLETS: &[&str] = &[
    "cat", "chmod", "echo", "env", "false", "grep", "head", "hostname", "id", "ip", "ls", "mkdir", "mount",
    "ps", "readlink", "sh", "sleep", "stat", "stty", "touch", "true", "tty", "umask", "wc", "dd", "nproc",
];

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Bundle {
    folder: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) config: Value,
}

/// A bundle, or a line that says why there is none and the end of the test.
macro_rules! bundle {
    () => {
        match $crate::bundle::Bundle::new() {
            Ok(bundle) => bundle,
            Err(why) => {
                println!("SKIPPED: {why}");
                return;
            }
        }
    };
}
pub(crate) use bundle;

impl Bundle {
    pub(crate) fn new() -> Result<Bundle, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".into());
        }
        let busybox = Path::new("/usr/bin/busybox");
        let static_busybox =
            std::fs::read(busybox).is_ok_and(|bytes| !bytes.windows(9).take(4096).any(|w| w == b"/ld-linux"));
        if !static_busybox {
            return Err("needs /usr/bin/busybox of busybox-static".into());
        }
        let folder = tempfile::Builder::new().prefix("pintle-test-").tempdir().unwrap();
        let rootfs = folder.path().join("rootfs");
        for directory in ["bin", "etc", "tmp", "root", "work"] {
            std::fs::create_dir_all(rootfs.join(directory)).unwrap();
        }
        std::fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        std::fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/work:/bin/sh\n",
        )
        .unwrap();
        let id = format!("pintle-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut config = serde_json::to_value(runtime::default_spec()).unwrap();
        config["process"]["terminal"] = false.into();
        config["process"]["env"] = json!(["PATH=/bin"]);
        config["root"] = json!({"path": "rootfs"});
        config["hostname"] = "inside".into();
        config["linux"]["cgroupsPath"] = format!("/{id}").into();
        Ok(Bundle { folder, id, config })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub(crate) fn states(&self) -> PathBuf {
        self.path().join("states")
    }

    pub(crate) fn args(&mut self, args: &[&str]) -> &mut Bundle {
        self.config["process"]["args"] = json!(args);
        self
    }

    pub(crate) fn shell(&mut self, script: &str) -> &mut Bundle {
        self.args(&["/bin/sh", "-c", script])
    }

    pub(crate) fn mount(&mut self, mount: Value) -> &mut Bundle {
        self.config["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    /// Gives the container a user namespace of 65536 ids from `start` on, and the root file system to its root.
    pub(crate) fn user_namespace(&mut self, start: u32) -> &mut Bundle {
        let map = json!([{"containerID": 0, "hostID": start, "size": 65536}]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        // The folders above the root file system stay closed: sources are opened from outside.
        let chown = Command::new("chown")
            .arg("-R")
            .arg(format!("{start}:{start}"))
            .arg(self.rootfs())
            .status()
            .unwrap();
        assert!(chown.success());
        self
    }

    pub(crate) fn save(&self) {
        std::fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(oci());
        command.arg("--debug").arg("--root").arg(self.states()).args(words).current_dir(self.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs an OCI command; its output goes to files, since init of a created container keeps the streams.
    pub(crate) fn oci(&self, words: &[&str]) -> Done {
        self.to_end(self.command(words))
    }

    pub(crate) fn to_end(&self, mut command: Command) -> Done {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (out, err) =
            (self.path().join(format!("out.{number}")), self.path().join(format!("err.{number}")));
        command.stdout(std::fs::File::create(&out).unwrap()).stderr(std::fs::File::create(&err).unwrap());
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                panic!("{command:?} does not end: {}", std::fs::read_to_string(&err).unwrap());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Done { code: status.code().unwrap_or(-1), out, err: std::fs::read_to_string(err).unwrap() }
    }

    /// Creates, starts and waits; what the container said and how it ended.
    pub(crate) fn run(&self) -> Done {
        self.save();
        self.oci(&["run", &self.id])
    }

    pub(crate) fn create(&self) -> Done {
        self.save();
        self.oci(&["create", &self.id])
    }

    pub(crate) fn start(&self) -> Done {
        self.oci(&["start", &self.id])
    }

    pub(crate) fn exec(&self, words: &[&str]) -> Done {
        let mut all = vec!["exec", &self.id];
        all.extend(words);
        self.oci(&all)
    }

    pub(crate) fn state(&self) -> Value {
        let done = self.oci(&["state", &self.id]);
        serde_json::from_str(&done.text()).unwrap_or_else(|_| panic!("{}", done.err))
    }

    pub(crate) fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }

    pub(crate) fn wait_for(&self, status: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.state()["status"] != status {
            assert!(Instant::now() < deadline, "is {} and not {status}", self.state());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What of the container is left on the host: state, cgroups, processes.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.states().join(&self.id).exists() {
            left.push("state directory".to_string());
        }
        let mut places = vec![PathBuf::from("/sys/fs/cgroup")];
        places.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path()));
        left.extend(
            places.iter().map(|p| p.join(&self.id)).filter(|p| p.exists()).map(|p| p.display().to_string()),
        );
        let needle = self.path().as_os_str().as_encoded_bytes();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            if line.windows(needle.len()).any(|window| window == needle) {
                left.push(format!("process {}", String::from_utf8_lossy(&line)));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        if mounts.contains(self.path().to_str().unwrap()) {
            left.push("mount".into());
        }
        left
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = Command::new(oci())
            .arg("--root")
            .arg(self.states())
            .args(["delete", "--force", &self.id])
            .output();
    }
}

/// How a command ended.
pub(crate) struct Done {
    pub(crate) code: i32,
    out: PathBuf,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap()).into_owned()
    }

    /// The output of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.text(), self.err);
        self.text()
    }

    /// The message of a failure.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert_ne!(self.code, 0, "succeeded: {}", self.text());
        self.err
    }
}

/// The OCI command line, built as an example of this crate.
pub(crate) fn oci() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join("examples/oci");
    assert!(path.exists(), "{} is missing: cargo builds it with the tests", path.display());
    path
}
