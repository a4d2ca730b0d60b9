//! `pintle exec`, `attach`, `run` and `port-forward` as people use them: from a terminal, and from a pipe.

#[path = "support/seat.rs"]
mod seat;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use seat::{PATIENCE, Seat, pintle, piped, set_size};
use support::Daemon;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_streams_and_passes_the_exit_code_on() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let sandbox = daemon.pod("p");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = daemon.run(&pod, &sandbox, "c", "exec sleep 1000").await;
    let done = piped(&daemon, &["exec", "-i", &id, "sh", "-c", "cat; echo err >&2; exit 3"], "hello\n");
    assert_eq!(done.status.code(), Some(3));
    assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"hello\n"[..], &b"err\n"[..]));
    let done = piped(&daemon, &["exec", "p/c", "sh", "-c", "cat; echo no input"], "unread");
    assert_eq!((done.status.code(), &done.stdout[..]), (Some(0), &b"no input\n"[..]));
    let done = piped(&daemon, &["exec", "p/c", "no-such-program"], "");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(125) && said.contains("no-such-program"), "{done:?}");

    let mut seat = Seat::take(&daemon, &["exec", "-i", "-t", &id, "sh"], 100, 30);
    seat.type_in("stty size; echo $TERM\n");
    seat.until("30 100\r\nxterm\r\n");
    assert!(seat.is_raw());
    set_size(&seat.master, 120, 40);
    // Told a moment later; a shell that is asked too early tells the old size.
    seat.type_in("while [ \"$(stty size)\" != '40 120' ]; do :; done; echo resized\n");
    seat.until("\nresized");
    seat.type_in("exit 7\n");
    assert_eq!(seat.end(), (Some(7), true));

    let mut seat = Seat::take(&daemon, &["exec", "-i", "-t", &id, "sh"], 100, 30);
    seat.type_in("echo be''gun\n");
    seat.until("begun");
    kill_process(Pid::from_child(&seat.child), Signal::TERM).unwrap();
    assert_eq!(seat.end(), (Some(130), true), "also when it is ended from outside");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_run_left_and_joined_again() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let logs = daemon.path("run-logs").display().to_string();
    let image = daemon.image.as_str();
    let run = ["run", "--log-root", &logs];
    let script = "cat; echo err >&2; exit 4";
    let done = piped(&daemon, &[&run[..], &["-i", "--rm", image, "sh", "-c", script]].concat(), "hello\n");
    assert_eq!(done.status.code(), Some(4), "{done:?}");
    assert_eq!((&done.stdout[..], &done.stderr[..]), (&b"hello\n"[..], &b"err\n"[..]));
    assert!(daemon.pods().await.is_empty(), "it is removed");
    let line = [&run[..], &["-i", "--rm", image, "sh", "-c", "dd bs=1M count=30 if=/dev/zero; cat"]].concat();
    let done = piped(&daemon, &line, "end");
    let all = done.stdout.len() == (30 << 20) + 3 && done.stdout.ends_with(b"\0end");
    assert!(done.status.success() && all, "{} bytes", done.stdout.len());

    let line = [&run[..], &["-i", "-t", "--name", "shell", image, "sh"]].concat();
    let mut seat = Seat::take(&daemon, &line, 90, 20);
    seat.type_in("stty size; X=kept\n");
    seat.until("20 90\r\n");
    seat.type_in("\x10\x11");
    seat.until("runs on");
    assert_eq!(seat.end(), (Some(0), true));
    let mut seat = Seat::take(&daemon, &["attach", "-i", "-t", "shell"], 91, 21);
    seat.type_in("echo $X; while [ \"$(stty size)\" != '21 91' ]; do :; done; exit 6\n");
    seat.until("\nkept\r\n");
    assert_eq!(seat.end(), (Some(6), true));
    let done = piped(&daemon, &["attach", "shell"], "");
    assert!(String::from_utf8_lossy(&done.stderr).contains("exited"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_of_this_machine_lead_into_a_pod() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let sandbox = daemon.pod("web");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = daemon.run(&pod, &sandbox, "c", "exec nc -ll -p 7000 -e cat").await;
    let listens = || daemon.sh(&id, "grep -c :1B58 /proc/net/tcp /proc/net/tcp6 || true");
    let begun = Instant::now();
    while !listens().await.contains(":1\n") {
        assert!(begun.elapsed() < PATIENCE, "nobody listens");
    }
    let line = pintle(&daemon, &["port-forward", "web", ":7000", ":7001"]);
    let mut child = Command::new(&line[0])
        .args(&line[1..])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut address = || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        line.split_once(" -> web:700").unwrap().0.to_owned()
    };
    let (good, bad) = (address(), address());
    let talk = |address: &str, text: &str| {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        connection.write_all(text.as_bytes()).unwrap();
        let mut back = vec![0; text.len()];
        connection.read_exact(&mut back).map(|()| String::from_utf8(back).unwrap())
    };
    let long = "0123456789".repeat(10_000);
    for text in ["hello", &long] {
        assert_eq!(talk(&good, text).unwrap(), text);
    }
    assert!(talk(&bad, "hello").is_err());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("7001") && said.contains("refused"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_as_private_as_the_configuration_wants() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
                .split(' '),
        )
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("SKIPPED: no openssl that makes a certificate");
        return;
    }
    let config = format!("[streaming]\ntls_cert = {cert:?}\ntls_key = {key:?}\n");
    let daemon = Daemon::start_as(support::Setup { config, ..Default::default() }).await;
    let sandbox = daemon.pod("p");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = daemon.run(&pod, &sandbox, "c", "exec sleep 1000").await;
    let line = pintle(&daemon, &["exec", &id, "echo", "private"]);
    let run = |trusted: &str| {
        Command::new(&line[0]).args(&line[1..]).env("SSL_CERT_FILE", trusted).output().unwrap()
    };
    let trusting = run(&cert.display().to_string());
    assert_eq!(&trusting.stdout[..], b"private\n", "{trusting:?}");
    let wary = run("/dev/null");
    assert!(wary.status.code() == Some(125) && wary.stdout.is_empty(), "{wary:?}");
}
