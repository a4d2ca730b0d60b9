//! What callers of runc use of its command line beyond the life of a container.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::{Bundle, bundle};

fn started(bundle: &mut Bundle, script: &str) {
    bundle.shell(script);
    bundle.create().ok();
    bundle.start().ok();
}

#[test]
fn statistics_have_the_names_of_runc() {
    let mut bundle = bundle!();
    bundle.config["linux"]["resources"]["pids"] = json!({"limit": 33});
    started(&mut bundle, "sleep 100");
    let event: Value = serde_json::from_str(&bundle.oci(&["events", "--stats", &bundle.id]).ok()).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(bundle.id)));
    let data = &event["data"];
    assert!(data["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{data}");
    assert_eq!(data["pids"]["current"], 1, "{data}");
    assert_eq!(data["pids"]["limit"], 33, "{data}");
    assert!(bundle.oci(&["events", "--interval", "0s", &bundle.id]).failed().contains("above 0"));
    let mut command = bundle.command(&["events", "--interval=100ms", &bundle.id]);
    let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 16];
    events.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    bundle.oci(&["kill", &bundle.id, "KILL"]).ok();
    let mut rest = String::new();
    events.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert!(events.wait().unwrap().success(), "it ends with the container");
    assert!(bundle.oci(&["events", "--stats", &bundle.id]).failed().contains("container not running"));
}

#[test]
fn a_process_killed_for_want_of_memory_is_an_event() {
    let mut bundle = bundle!();
    bundle.config["linux"]["resources"]["memory"] = json!({"limit": 8 << 20, "swap": 8 << 20});
    started(
        &mut bundle,
        "while [ ! -e /tmp/go ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 100",
    );
    let mut command = bundle.command(&["events", "--interval", "1h", &bundle.id]);
    let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    bundle.exec(&["touch", "/tmp/go"]).ok();
    let mut line = vec![0; 12];
    events.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
    events.stdout.as_mut().unwrap().read_to_end(&mut line).unwrap();
    events.wait().unwrap();
    let text = String::from_utf8(line).unwrap();
    let event: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(event, json!({"type": "oom", "id": bundle.id}));
}

#[test]
fn the_hosts_ps_shows_the_containers_processes() {
    let mut bundle = bundle!();
    started(&mut bundle, "sleep 4321 & exec sleep 1234");
    let text = bundle.oci(&["ps", &bundle.id]).ok();
    assert!(text.contains("PID") && text.contains("sleep 1234") && !text.contains("[kthreadd]"), "{text}");
    let text = bundle.oci(&["ps", &bundle.id, "-o", "pid,comm", "-A"]).ok();
    assert_eq!(text.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND"]);
    let pids: Vec<i64> = serde_json::from_str(&bundle.oci(&["ps", "-f", "json", &bundle.id]).ok()).unwrap();
    assert_eq!(pids.len(), 2);
}

#[test]
fn a_session_keyring_is_the_containers_and_what_is_executed_in_it_shares_it() {
    let mut bundle = bundle!();
    // Which keys there are is hidden otherwise.
    bundle.config["linux"]["maskedPaths"] = json!([]);
    let show = "grep -c _ses. /proc/keys || true";
    started(&mut bundle, "sleep 100");
    let keys = |bundle: &Bundle, words: &[&str]| bundle.exec(words).ok();
    if !std::path::Path::new("/proc/keys").exists() {
        println!("SKIPPED: the kernel does not show keys");
        return;
    }
    let text = keys(&bundle, &["grep", "_ses.", "/proc/keys"]);
    assert!(text.contains(&format!("_ses.{}", bundle.id)), "{text}");
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
    bundle.save();
    bundle.oci(&["create", "--no-new-keyring", &bundle.id]).ok();
    bundle.start().ok();
    assert!(!keys(&bundle, &["sh", "-c", show]).contains(&bundle.id));
}

#[test]
fn without_pivot_root_the_container_sees_its_own_mounts_only() {
    let mut bundle = bundle!();
    bundle.shell("ls / | grep -c rootfs; cat /proc/self/mountinfo; test ! -e /root/.cargo && echo apart");
    bundle.save();
    let text = bundle.oci(&["run", "--no-pivot", &bundle.id]).ok();
    assert!(text.contains("apart"), "{text}");
    // The container's alone: of the host's root, which is below its own, nothing is mounted any more.
    for place in ["/", "/proc", "/sys", "/dev"] {
        assert_eq!(
            text.lines().filter(|line| line.split(' ').nth(4) == Some(place)).count(),
            1,
            "{place}: {text}"
        );
    }
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn descriptors_are_passed_on_and_missing_ones_refused() {
    let mut bundle = bundle!();
    bundle.shell("cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l");
    bundle.save();
    let script = format!(
        "exec 3<<A 4<<B\nthree\nA\nfour\nB\nLISTEN_FDS=1 LISTEN_PID=$$ exec {} --root {} run --preserve-fds 1 {}",
        crate::bundle::oci().display(),
        bundle.states().display(),
        bundle.id
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).current_dir(bundle.path()).stdin(Stdio::null());
    // Three streams, the two, and the folder that ls reads.
    assert_eq!(bundle.to_end(shell).ok(), "three\nfour\n1 1\n6\n");
    let message = bundle.oci(&["run", "--preserve-fds", "200", &bundle.id]).failed();
    assert!(message.contains("of the 200 to be preserved is not open"), "{message}");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn signals_reach_the_container_through_whoever_waits_for_it() {
    let mut bundle = bundle!();
    bundle.shell("trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.1; done");
    bundle.save();
    let mut command = bundle.command(&["run", &bundle.id]);
    let mut run = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    run.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    let mut rest = String::new();
    run.stdout.as_mut().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!((run.wait().unwrap().code(), rest.as_str()), (Some(7), "got it\n"));
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

/// A terminal of the test's own.
fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let peer = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, peer)
}

#[test]
fn a_terminal_in_the_foreground_is_joined_with_the_callers() {
    let mut bundle = bundle!();
    bundle.config["process"]["terminal"] = true.into();
    bundle.shell("stty size; read line; echo \"<$line>\"; exit 5");
    bundle.save();
    let (master, peer) = terminal();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&peer, size).unwrap();
    let mut command = bundle.command(&["run", &bundle.id]);
    command.stdin(peer.try_clone().unwrap()).stdout(peer.try_clone().unwrap()).stderr(peer);
    let mut run = command.spawn().unwrap();
    drop(command);
    let mut file = std::fs::File::from(master);
    file.write_all(b"typed\n").unwrap();
    let deadline = Instant::now() + Duration::from_secs(8);
    let code = loop {
        if let Some(status) = run.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut text = vec![0; 4096];
    let read = file.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..read]).into_owned();
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("33 77") && text.contains("<typed>"), "{text}");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
    let message = bundle.oci(&["run", "--detach", &bundle.id]).failed();
    assert!(message.contains("there is no console socket"), "{message}");
}

#[test]
fn a_process_runs_in_a_group_below_and_in_a_paused_container_when_asked() {
    let mut bundle = bundle!();
    started(&mut bundle, "sleep 100");
    let below: Vec<_> = std::fs::read_dir("/sys/fs/cgroup")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain(["/sys/fs/cgroup".into()])
        .map(|place| place.join(&bundle.id))
        .filter(|place| place.is_dir())
        .map(|place| place.join("probe"))
        .collect();
    for folder in &below {
        std::fs::create_dir(folder).unwrap();
        // A new group of cpuset takes no process before it has processors.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read(folder.parent().unwrap().join(file)) {
                let _ = std::fs::write(folder.join(file), value);
            }
        }
    }
    let text = bundle.oci(&["exec", "--cgroup", "pids:/probe", &bundle.id, "cat", "/proc/self/cgroup"]).ok();
    assert!(text.contains("/probe"), "{text}");
    let message = bundle.oci(&["exec", "--cgroup", "/absent", &bundle.id, "true"]).failed();
    assert!(message.contains("\"/absent\" below the container's"), "{message}");
    assert!(bundle.oci(&["exec", "--cgroup", "../x", &bundle.id, "true"]).failed().contains("plain names"));
    bundle.oci(&["pause", &bundle.id]).ok();
    assert!(bundle.exec(&["true"]).failed().contains("cannot exec in a paused container"));
}

#[test]
fn what_runcs_own_tests_expect_holds() {
    let mut bundle = bundle!();
    bundle.config["process"]["env"] = json!(["PATH=/bin", "ONE=two", "ONE=three"]);
    started(&mut bundle, "sleep 100");
    // Nothing of the host is open in a container that waits or runs; the last of equal variables counts; no user is root.
    let pid = bundle.pid();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string();
        assert!(!target.starts_with("/sys/fs/cgroup"), "{target}");
    }
    assert_eq!(bundle.exec(&["sh", "-c", "env | grep -c ONE; echo $ONE"]).ok(), "1\nthree\n");
    let file = bundle.path().join("process.json");
    std::fs::write(&file, json!({"cwd": "/", "args": ["/bin/id", "-u"]}).to_string()).unwrap();
    assert_eq!(bundle.oci(&["exec", "-p", file.to_str().unwrap(), &bundle.id]).ok(), "0\n");
    bundle.oci(&["kill", &bundle.id, "0"]).ok();
    bundle.oci(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_for("stopped");
    assert!(bundle.oci(&["kill", &bundle.id, "0"]).failed().contains("container not running"));
    bundle.oci(&["kill", "--all", &bundle.id, "0"]).ok();
    bundle.oci(&["delete", &bundle.id]).ok();
    // One that waits for start.
    bundle.create().ok();
    let pid = bundle.pid();
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .filter(|target| target.starts_with('/') && !target.contains(bundle.path().to_str().unwrap()))
        .filter(|target| target != "/dev/null")
        .collect();
    assert_eq!(open, Vec::<String>::new());
    assert!(bundle.oci(&["--root", "/absent/states", "list"]).failed().contains("/absent/states"));
}

#[test]
fn the_version_is_three_lines_that_engines_parse() {
    let bundle = bundle!();
    let text = bundle.oci(&["--version"]).ok();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("pintle-oci version ") && lines[1].starts_with("commit: "));
    assert!(lines[2].starts_with("spec: 1."));
    assert!(bundle.oci(&["help"]).ok().contains("checkpoint ID"));
}
