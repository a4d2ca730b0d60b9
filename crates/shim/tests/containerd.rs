//! The shim below a real containerd: the one that is installed, or that in the folder which PINTLE_TEST_CONTAINERD names.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const RUNTIME: &str = "io.containerd.pintle.v2";

/// A containerd with everything of it in one folder.
struct Containerd {
    folder: tempfile::TempDir,
    programs: PathBuf,
    namespace: String,
    child: Child,
    events: Child,
}

fn programs() -> Option<PathBuf> {
    let folder = std::env::var_os("PINTLE_TEST_CONTAINERD").map_or("/usr/bin".into(), PathBuf::from);
    let all = ["containerd", "ctr"].iter().all(|name| folder.join(name).exists());
    all.then_some(folder)
}

impl Containerd {
    fn start(programs: PathBuf) -> Containerd {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("pintle-ctd-").tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        let link = folder.path().join("bin").join(shim::task::PROGRAM);
        std::os::unix::fs::symlink(support::shim_program(), link).unwrap();
        let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.runtime\", \
                      \"io.containerd.cri.v1.images\", \"io.containerd.nri.v1.nri\", \"io.containerd.internal.v1.opt\", \
                      \"io.containerd.tracing.processor.v1.otlp\"]\n";
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let child = launch(&programs, folder.path());
        let namespace = format!("pintle-test-{}-{number}", std::process::id());
        let events = idle();
        let mut containerd = Containerd { folder, programs, namespace, child, events };
        containerd.await_answer();
        containerd.events = containerd.listen();
        containerd.import();
        containerd
    }

    fn command(&self) -> Command {
        let mut ctr = Command::new(self.programs.join("ctr"));
        ctr.arg("--address").arg(self.folder.path().join("c.sock")).args(["--namespace", &self.namespace]);
        ctr.stdin(Stdio::null());
        ctr
    }

    fn ctr(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// What a command prints that must succeed.
    fn text(&self, args: &[&str]) -> String {
        let output = self.ctr(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "ctr {args:?}: {out}{err}\n{}", self.log_end());
        out.into_owned()
    }

    fn run(&self, flags: &[&str], id: &str, script: &str) -> Output {
        let start = ["run", "--runtime", RUNTIME, "--snapshotter", "native"];
        let args = [&start[..], flags, &["docker.io/library/tested:1", id, "/bin/sh", "-c", script]].concat();
        self.ctr(&args)
    }

    /// Starts a task that stays.
    fn leave_running(&self, id: &str, script: &str) {
        let output = self.run(&["-d"], id, script);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{err}\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    fn await_answer(&mut self) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.ctr(&["version"]).status.success() {
            assert!(Instant::now() < end && self.child.try_wait().unwrap().is_none(), "{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `ctr events` into a file.
    fn listen(&self) -> Child {
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("events"))
            .unwrap();
        let child = self.command().arg("events").stdout(file).stderr(Stdio::null()).spawn().unwrap();
        // It says nothing when it is ready.
        std::thread::sleep(Duration::from_millis(300));
        child
    }

    /// The topics of a task's events until `last` came.
    fn events(&self, id: &str, last: &str) -> Vec<String> {
        let marker = format!("\"container_id\":\"{id}\"");
        let found = || -> Vec<String> {
            let text = std::fs::read_to_string(self.folder.path().join("events")).unwrap();
            let lines = text.lines().filter(|line| line.contains(&marker) && line.contains(" /tasks/"));
            lines
                .filter_map(|line| line.split(" /tasks/").nth(1)?.split(' ').next().map(String::from))
                .collect()
        };
        let end = Instant::now() + Duration::from_secs(8);
        while !found().iter().any(|topic| topic == last) {
            assert!(Instant::now() < end, "no {last} in {:?}", found());
            std::thread::sleep(Duration::from_millis(20));
        }
        found()
    }

    /// The state that `ctr` shows of a task; empty if there is none.
    fn state(&self, id: &str) -> String {
        let text = self.text(&["tasks", "ls"]);
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(id));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default().into()
    }

    fn await_state(&self, id: &str, state: &str) {
        let end = Instant::now() + Duration::from_secs(8);
        while self.state(id) != state {
            assert!(Instant::now() < end, "{id} is {:?} and not {state:?}\n{}", self.state(id), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn await_no_shims(&self) {
        let end = Instant::now() + Duration::from_secs(8);
        while !shims(self.folder.path()).is_empty() {
            assert!(Instant::now() < end, "{:?}", shims(self.folder.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pid of the shim of a task.
    fn shim(&self, id: &str) -> i32 {
        let wanted = format!(" -id {id} ");
        let found = shims(self.folder.path()).into_iter().find(|(_, line)| line.contains(&wanted));
        found.unwrap_or_else(|| panic!("no shim of {id}")).0
    }

    /// An image with busybox, imported from an archive.
    fn import(&self) {
        let place = self.folder.path().join("image");
        support::tasks::make_root(&place.join("root"));
        let script = "set -e; tar -C root -cf layer.tar .; id=$(sha256sum layer.tar | cut -d' ' -f1)
            printf '{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"PATH=/bin\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:%s\"]}}' $id > config.json
            printf '[{\"Config\":\"config.json\",\"RepoTags\":[\"tested:1\"],\"Layers\":[\"layer.tar\"]}]' > manifest.json
            tar -cf image.tar manifest.json config.json layer.tar";
        let packed = Command::new("sh").args(["-c", script]).current_dir(&place).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        let image = place.join("image.tar");
        let import = ["images", "import", "--snapshotter", "native", image.to_str().unwrap()];
        // containerd 2 wants to be told that it is not to be done by its transfer service.
        let local = [&import[..2], &["--local"], &import[2..]].concat();
        if !self.ctr(&local).status.success() {
            self.text(&import);
        }
    }

    /// Ends containerd as a service manager does, and starts it again. Its tasks go on.
    fn restart(&mut self) {
        signal(self.child.id() as i32, rustix::process::Signal::TERM);
        self.child.wait().unwrap();
        self.child = launch(&self.programs, self.folder.path());
        self.await_answer();
        let _ = self.events.kill();
        let _ = self.events.wait();
        self.events = self.listen();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let ids = self.ctr(&["containers", "ls", "-q"]);
        for id in String::from_utf8_lossy(&ids.stdout).lines() {
            let _ = self.ctr(&["tasks", "rm", "-f", id]);
        }
        for child in [&mut self.events, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (pid, _) in shims(self.folder.path()) {
            signal(pid, rustix::process::Signal::KILL);
        }
        if let Ok(host) = cgroup::Host::detect() {
            if let Ok(group) = host.open(&self.namespace) {
                let _ = group.kill_all(Duration::from_secs(3));
            }
            let _ = host.delete(&self.namespace, Duration::from_secs(3));
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = self.folder.path().to_str().unwrap();
        for place in
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|place| place.starts_with(own))
        {
            let _ = rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn launch(programs: &Path, folder: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", folder.join("bin").display());
    let mut containerd = Command::new(programs.join("containerd"));
    containerd.arg("--config").arg(folder.join("config.toml"));
    for (flag, name) in [("--root", "root"), ("--state", "state"), ("--address", "c.sock")] {
        containerd.arg(flag).arg(folder.join(name));
    }
    containerd.env("PATH", path).env("TMPDIR", folder).stdin(Stdio::null());
    containerd.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn idle() -> Child {
    Command::new("true").spawn().unwrap()
}

/// The servers whose containerd is in this folder.
fn shims(folder: &Path) -> Vec<(i32, String)> {
    let marker = format!(" -address {}/c.sock ", folder.display());
    support::tasks::command_lines().into_iter().filter(|(_, line)| line.contains(&marker)).collect()
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

macro_rules! containerd {
    () => {{
        needs_containers!();
        match programs() {
            Some(programs) => Containerd::start(programs),
            None => {
                println!("SKIPPED: containerd is not installed");
                return;
            }
        }
    }};
}

#[test]
fn ctr_drives_a_task_through_its_life() {
    let containerd = containerd!();
    let output = containerd.run(&["--rm"], "short", "echo to $1; echo err >&2; exit 7");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "to\n", "{}", containerd.log());
    assert!(String::from_utf8_lossy(&output.stderr).lines().any(|line| line == "err"));
    assert_eq!(output.status.code(), Some(7));

    containerd.leave_running("long", "sleep 100");
    assert_eq!(containerd.state("long"), "RUNNING");
    let exec =
        containerd.ctr(&["tasks", "exec", "--exec-id", "e", "long", "/bin/sh", "-c", "echo inside; exit 3"]);
    assert_eq!((String::from_utf8_lossy(&exec.stdout).as_ref(), exec.status.code()), ("inside\n", Some(3)));
    assert!(containerd.text(&["tasks", "ps", "long"]).lines().count() >= 2);
    assert!(containerd.text(&["tasks", "metrics", "long"]).contains("memory"));
    containerd.text(&["tasks", "pause", "long"]);
    assert_eq!(containerd.state("long"), "PAUSED");
    containerd.text(&["tasks", "resume", "long"]);
    assert_eq!(containerd.state("long"), "RUNNING");
    containerd.text(&["tasks", "kill", "--signal", "SIGKILL", "long"]);
    containerd.await_state("long", "STOPPED");
    let removed = containerd.ctr(&["tasks", "rm", "long"]);
    assert!(String::from_utf8_lossy(&removed.stderr).contains("137") || removed.status.success());
    containerd.text(&["containers", "rm", "long"]);
    assert_eq!(
        containerd.events("long", "delete"),
        ["create", "start", "exec-added", "exec-started", "exit", "paused", "resumed", "exit", "delete"]
    );
    containerd.await_no_shims();
}

#[test]
fn a_terminal_works_through_ctr() {
    if !Path::new("/usr/bin/script").exists() {
        println!("SKIPPED: there is no program script, which gives ctr a terminal");
        return;
    }
    let containerd = containerd!();
    let mut ctr = vec![containerd.programs.join("ctr").display().to_string()];
    let socket = containerd.folder.path().join("c.sock").display().to_string();
    ctr.extend(["--address", &socket, "--namespace", &containerd.namespace].map(String::from));
    let run = [
        "run",
        "--rm",
        "-t",
        "--runtime",
        RUNTIME,
        "--snapshotter",
        "native",
        "docker.io/library/tested:1",
        "term",
    ];
    ctr.extend(run.map(String::from));
    let line = format!("{} /bin/sh -c 'tty; stty size; exit 4'", ctr.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut script = script.spawn().unwrap();
    // It would type ^D where its input ends.
    let input = script.stdin.take();
    let script = script.wait_with_output().unwrap();
    drop(input);
    let out = String::from_utf8_lossy(&script.stdout);
    assert!(out.contains("/dev/"), "{out}\n{}", containerd.log());
    assert_eq!(script.status.code(), Some(4), "{out}");
}

#[test]
fn tasks_outlive_a_restart_of_containerd() {
    let mut containerd = containerd!();
    containerd.leave_running("stays", "sleep 100");
    containerd.leave_running("ends", "while [ ! -e /end ]; do sleep 0.1; done; exit 9");
    let before = containerd.text(&["tasks", "ls"]);
    containerd.text(&["tasks", "exec", "--exec-id", "x", "ends", "/bin/sh", "-c", "sleep 1; echo > /end"]);
    containerd.restart();
    containerd.await_state("ends", "STOPPED");
    assert_eq!(containerd.state("stays"), "RUNNING");
    let pid = |text: &str| {
        text.lines().find(|l| l.starts_with("stays")).map(|l| l.split_whitespace().nth(1).map(String::from))
    };
    assert_eq!(pid(&before), pid(&containerd.text(&["tasks", "ls"])));
    let exec = containerd.ctr(&["tasks", "exec", "--exec-id", "y", "stays", "/bin/echo", "again"]);
    assert_eq!(String::from_utf8_lossy(&exec.stdout), "again\n");
    containerd.text(&["tasks", "kill", "--signal", "SIGKILL", "stays"]);
    assert!(containerd.events("stays", "exit").contains(&"exit".to_owned()));
}

#[test]
fn a_killed_shim_is_noticed_and_nothing_of_its_task_is_left() {
    let containerd = containerd!();
    containerd.leave_running("lost", "sleep 100");
    let pid: i32 = {
        let text = containerd.text(&["tasks", "ls"]);
        let line = text.lines().find(|line| line.starts_with("lost")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    signal(containerd.shim("lost"), rustix::process::Signal::KILL);
    assert!(containerd.events("lost", "delete").contains(&"exit".to_owned()));
    containerd.await_state("lost", "");
    assert!(
        !matches!(sys::process::stat_fields(pid), Ok((state, _)) if state != 'Z'),
        "its process lives on"
    );
    containerd.text(&["containers", "rm", "lost"]);
}

#[test]
fn a_containerd_that_hangs_holds_up_no_task_and_hears_of_everything_later() {
    let containerd = containerd!();
    containerd.leave_running("busy", "sleep 1; exit 6");
    signal(containerd.child.id() as i32, rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_secs(3));
    let shim = containerd.shim("busy");
    let state = sys::process::stat_fields(shim).map(|(state, _)| state).unwrap();
    signal(containerd.child.id() as i32, rustix::process::Signal::CONT);
    assert_eq!(state, 'S', "the shim waits for something else than events");
    assert_eq!(containerd.events("busy", "exit"), ["create", "start", "exit"]);
    containerd.await_state("busy", "STOPPED");
}

#[test]
fn what_cannot_run_is_an_error_and_leaves_no_shim() {
    let containerd = containerd!();
    let output = containerd.run(&["-d", "--cwd", "relative"], "bad", "true");
    assert!(!output.status.success());
    let no_program = [
        "run",
        "--runtime",
        RUNTIME,
        "--snapshotter",
        "native",
        "docker.io/library/tested:1",
        "none",
        "/no/program",
    ];
    let output = containerd.ctr(&no_program);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && why.contains("/no/program"), "{why}");
    // The `ctr` of older versions leaves a task that did not start.
    let _ = containerd.ctr(&["tasks", "rm", "-f", "none"]);
    containerd.await_no_shims();
}
