//! The command line as a person uses it: the real binary, and the demonstration on a real daemon.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn pintle(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
    command.args(args).env_remove("CONTAINER_RUNTIME_ENDPOINT").stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root: it makes namespaces, mounts and control groups");
    }
    root
}

#[test]
fn without_a_daemon_it_says_how_to_start_one() {
    for command in [&["ps"][..], &["pods"], &["pull", "x"], &["run", "x"], &["stop", "x"], &["info"]] {
        let output = pintle(&[&["--endpoint", "unix:///no/such.sock"], command].concat());
        let error = text(&output.stderr);
        assert!(error.contains("nothing listens at unix:///no/such.sock"), "{command:?}: {error}");
        assert!(error.contains("sudo pintle serve"), "{command:?}: {error}");
        let code = if command[0] == "run" { 125 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{command:?}");
    }
}

#[test]
fn an_endpoint_that_is_no_unix_socket_is_a_usage_error() {
    let output = pintle(&["--endpoint", "tcp://127.0.0.1:1", "ps"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("unix"), "{}", text(&output.stderr));
}

#[test]
fn what_needs_no_daemon_works_without_one() {
    assert!(text(&pintle(&["completion", "bash"]).stdout).contains("_pintle()"));
    assert!(text(&pintle(&["network", "init", "--print"]).stdout).contains("\"type\": \"pintle\""));
    let version = pintle(&["version", "--client", "-o", "json"]);
    assert!(text(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_demonstration_shows_everything_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let output = pintle(&["demo"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    assert!(shown.contains("Hello from a container"), "{shown}");
    assert!(shown.contains("Looked: no process"), "{shown}");
}

#[test]
fn an_interrupted_demonstration_leaves_nothing_either() {
    if !is_root() {
        return;
    }
    let child = Command::new(env!("CARGO_BIN_EXE_pintle"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let directory = std::env::temp_dir().join(format!("pintle-demo-{}", child.id()));
    let began = Instant::now();
    // The pod's log is there as soon as its first container runs.
    while !directory.join("logs/web.log").exists() && began.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{shown}\n{}", text(&output.stderr));
    assert!(shown.contains("Looked: no process"), "{shown}");
    assert!(!directory.exists());
}
