//! Programs that are called runtimes and are none: each is refused in words, and nothing of the container stays.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tonic::Code;

use crate::needs_a_node;
use crate::support::{self, Daemon};
use crate::{daemon_with, run_pod};

/// What a program does, and what is said of it. `$pid` and `$bundle` are the words behind those options.
const CREATES: [(&str, &str); 11] = [
    ("echo some garbage; exit 1", "some garbage"),
    ("echo the disk is on fire >&2; exit 3", "the disk is on fire"),
    (
        r#"echo '{"level":"error","msg":"no such seccomp profile","time":"now"}' >> "$log"; exit 1"#,
        "no such seccomp profile",
    ),
    ("exit 1", "it said nothing"),
    ("kill -KILL $$", "signal: 9"),
    ("sleep 600", "did not end within 1 s"),
    ("trap '' TERM; setsid sleep 601 & sleep 601", "did not end within 1 s"),
    ("exit 0", "its pid file cannot be read"),
    (r#"echo 1 > "$pid""#, "its pid file says 1, which is no process that it left behind"),
    (r#"echo garbage > "$pid""#, "which is no process"),
    (r#"sleep 602 & echo $! > "$pid"; wait"#, "did not end within 1 s"),
];

/// A runtime whose `create` is this script; everything else succeeds.
fn program(daemon_folder: &std::path::Path, create: &str) -> String {
    let path = daemon_folder.join("runtime");
    let script = format!(
        "#!/bin/sh\nfor word; do\n  case \"$before\" in --pid-file) pid=$word;; --bundle) bundle=$word;; --log) log=$word;; esac\n  \
         case \"$word\" in create|start|delete|kill|state|features) verb=$word;; esac\n  before=$word\ndone\n\
         case \"$verb\" in create) {create}\n;; state) exit 1;; esac\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn handler(path: &str) -> String {
    format!("[runtimes.bad]\nkind = 'oci'\npath = {path:?}\ndeadline_secs = 1\n")
}

/// The processes that a script of this test has left: the programs `sleep` with one of these arguments.
fn sleepers(seconds: &[u32]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if seconds.iter().any(|seconds| line == format!("sleep\0{seconds}\0").as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_makes_no_container_is_told_of_and_leaves_nothing() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    let daemon = daemon_with(&handler(&program(folder.path(), "exit 1"))).await;
    let sandbox = daemon.pod("bad");
    let pod = run_pod(&daemon, &sandbox, "bad").await.unwrap();
    // The first process of the pod's process namespace is a copy of its shim until it has let go of everything.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = daemon.inventory().await;
    for tty in [false, true] {
        for (create, expected) in CREATES {
            program(folder.path(), create);
            let mut asked = daemon.container("one", "true");
            asked.tty = tty;
            let begun = Instant::now();
            let refused = daemon.create(&pod, &sandbox, &asked).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{create}: {refused}");
            let told = refused.message();
            assert!(
                told.contains(expected) && told.contains("runtime create"),
                "{create} (tty {tty}): {told}"
            );
            assert!(begun.elapsed() < Duration::from_secs(6), "{create}: {:?}", begun.elapsed());
            assert_eq!(daemon.changed_since(&before, create).await, None);
            assert_eq!(sleepers(&[600, 601, 602]), [""; 0], "{create}");
        }
    }
    daemon.remove_pod(&pod).await.unwrap();
}

/// With a first process that lives, and what comes after it fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_fails_later_is_told_of_too() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    let path = program(folder.path(), r#"sleep 603 & echo $! > "$pid""#);
    let script = std::fs::read_to_string(&path).unwrap();
    let later = "start) echo the clock is wrong >&2; exit 1;; kill) exit 1;; state) echo '{\"status\":\"running\"}';; delete) exit 0";
    std::fs::write(&path, script.replace("state) exit 1", later)).unwrap();
    let daemon = daemon_with(&handler(&path)).await;
    let sandbox = daemon.pod("later");
    let pod = run_pod(&daemon, &sandbox, "bad").await.unwrap();
    let id = daemon.create(&pod, &sandbox, &daemon.container("one", "true")).await.unwrap();
    let refused = daemon.start_container(&id).await.unwrap_err();
    assert!(
        refused.message().contains("start failed") && refused.message().contains("the clock is wrong"),
        "{refused}"
    );
    let _ = daemon.remove_container(&id).await;
    daemon.remove_pod(&pod).await.unwrap();
    assert_eq!(sleepers(&[603]), [""; 0]);
    assert_eq!(daemon.remains(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_program_is_named_when_a_pod_wants_it() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "no program").unwrap();
    let config = format!(
        "[runtimes.gone]\nkind = 'oci'\npath = '/nowhere/runc'\n[runtimes.unfound]\nkind = 'oci'\npath = 'no-such-runtime'\n\
         [runtimes.plain]\nkind = 'oci'\npath = {plain:?}\n"
    );
    let daemon: Daemon = daemon_with(&config).await;
    let before = daemon.inventory().await;
    for (name, expected) in [
        ("gone", "/nowhere/runc cannot be executed: No such file"),
        ("unfound", "the program no-such-runtime is not in /"),
        ("plain", "its mode does not allow that"),
    ] {
        let refused = run_pod(&daemon, &daemon.pod(name), name).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let told = refused.message();
        assert!(told.contains(expected) && told.contains(&format!("[runtimes.{name}]")), "{told}");
        let _ = std::fs::remove_dir_all(daemon.path("logs"));
        assert_eq!(daemon.changed_since(&before, name).await, None);
    }
    let refused = run_pod(&daemon, &daemon.pod("other"), "kata").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("gone, plain, unfound, and the empty default"), "{refused}");
}

/// What a program does that is called a shim, and what is said of it.
const SHIMS: [(&str, &str); 9] = [
    ("exit 1", "start failed (exit status: 1): it said nothing"),
    ("echo no kernel for the guest >&2; exit 2", "no kernel for the guest"),
    ("exit 0", "it printed no address"),
    ("echo garbage", "no path of a socket"),
    (r#"echo '{"version":7,"address":"unix:///run/x","protocol":"ttrpc"}'"#, "it is of version 7"),
    (r#"echo '{"version":3,"address":"unix:///run/x","protocol":"grpc"}'"#, "it speaks \"grpc\""),
    ("echo unix:///nowhere/at/all", "cannot be reached"),
    ("sleep 604", "did not end within 1 s"),
    ("sleep 605 & echo unix:///nowhere/at/all", "cannot be reached"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_no_shim_is_told_of_and_leaves_nothing() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("containerd-shim-bad-v2");
    let write = |start: &str| {
        let script =
            format!("#!/bin/sh\nfor word; do verb=$word; done\ncase $verb in start) {start}\n;; esac\n");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("exit 1");
    let daemon =
        daemon_with(&format!("[runtimes.bad]\nkind = 'shim'\npath = {path:?}\ndeadline_secs = 1\n")).await;
    let _ = run_pod(&daemon, &daemon.pod("first"), "bad").await.unwrap_err();
    let before = daemon.inventory().await;
    for (start, expected) in SHIMS {
        write(start);
        let begun = Instant::now();
        let refused = run_pod(&daemon, &daemon.pod("bad"), "bad").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{start}: {refused}");
        assert!(refused.message().contains(expected), "{start}: {refused}");
        assert!(begun.elapsed() < Duration::from_secs(9), "{start}: {:?}", begun.elapsed());
        assert_eq!(daemon.changed_since(&before, start).await, None);
        assert_eq!(sleepers(&[604, 605]), [""; 0], "{start}");
    }
}
