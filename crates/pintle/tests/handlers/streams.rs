//! The streams of further processes, which are as with Pintle's own runtime: input that ends, much of it, terminals, and clients that go away.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;

use crate::seat::{Seat, pintle, piped, set_size, within};
use crate::support::{self, Daemon};
use crate::{daemon_with, needs_a_node, run_pod, runtimes};

/// A container of each handler that does nothing.
async fn with_each(test: impl AsyncFn(&Daemon, &str, &str)) {
    for (handler, config) in runtimes() {
        let daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("streams");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "one", "exec sleep 1000").await;
        test(&daemon, handler, &id).await;
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_reads_to_the_end_of_its_input() {
    needs_a_node!();
    with_each(async |daemon, handler, id| {
        let script = "cat; echo end; echo err >&2; exit 3";
        for input in ["one line\n", ""] {
            let done = piped(daemon, &["exec", "-i", id, "sh", "-c", script], input);
            let shown = String::from_utf8_lossy(&done.stdout).into_owned();
            assert_eq!(
                (done.status.code(), shown),
                (Some(3), format!("{input}end\n")),
                "{handler}: {done:?}"
            );
            assert_eq!(done.stderr, b"err\n", "{handler}");
        }
        // One that does not read it.
        let done = piped(daemon, &["exec", "-i", id, "true"], "unread");
        assert_eq!(done.status.code(), Some(0), "{handler}: {done:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_input_and_output_arrives_whole() {
    needs_a_node!();
    with_each(async |daemon, handler, id| {
        let much: Vec<u8> = (0..8_u32 << 20).map(|number| (number / 3 % 251) as u8).collect();
        let line = pintle(daemon, &["exec", "-i", id, "cat"]);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut stdin, given) = (child.stdin.take().unwrap(), much.clone());
        let writer = std::thread::spawn(move || stdin.write_all(&given).unwrap());
        // A client that begins to read late.
        std::thread::sleep(Duration::from_millis(300));
        let mut shown = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut shown).unwrap();
        writer.join().unwrap();
        assert!(child.wait().unwrap().success(), "{handler}");
        assert!(shown == much, "{handler}: {} bytes came back", shown.len());
    })
    .await;
}

/// 100 MB, by way of a handler whose streams are passed on, and by way of attach too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_of_input_arrive() {
    needs_a_node!();
    const MUCH: usize = 100_000_000;
    for (handler, config) in runtimes().into_iter().filter(|(name, _)| *name == "shim") {
        let daemon = daemon_with(&config).await;
        let sandbox = daemon.pod("much");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let mut asked = daemon.container("one", "wc -c");
        (asked.stdin, asked.stdin_once) = (true, true);
        let id = daemon.create(&pod, &sandbox, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        for args in [&["exec", "-i", &id, "wc", "-c"][..], &["attach", "-i", &id]] {
            let line = pintle(&daemon, args);
            let mut command = Command::new(&line[0]);
            let mut child =
                command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let piece = vec![7; 1 << 20];
            let mut left = MUCH;
            while left > 0 {
                let length = left.min(piece.len());
                stdin.write_all(&piece[..length]).unwrap();
                left -= length;
            }
            drop(stdin);
            let done = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), MUCH.to_string(), "{args:?}");
        }
        daemon.remove_pod(&pod).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_the_size_of_the_clients_and_loses_nothing() {
    needs_a_node!();
    with_each(async |daemon, handler, id| {
        let mut seat = Seat::take(daemon, &["exec", "-i", "-t", id, "sh"], 100, 30);
        // Told a moment later by some; a shell that is asked too early tells the old size.
        seat.type_in("while [ \"$(stty size)\" != '30 100' ]; do :; done; echo si''zed\n");
        seat.until("sized");
        set_size(&seat.master, 120, 40);
        seat.type_in("while [ \"$(stty size)\" != '40 120' ]; do :; done; echo resi''zed\n");
        seat.until("resized");
        seat.type_in("seq 1 20000; echo fini''shed\n");
        seat.until("finished");
        seat.type_in("exit 7\n");
        assert_eq!(seat.end(), (Some(7), true), "{handler}");
        let shown = String::from_utf8_lossy(&seat.shown.lock().unwrap()).into_owned();
        let numbers: Vec<u32> = shown.lines().filter_map(|line| line.trim().parse().ok()).collect();
        assert!(numbers.iter().copied().eq(1..=20000), "{handler}: {} numbers", numbers.len());
    })
    .await;
}

/// The processes on this machine whose command line has this word.
fn processes_with(word: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        if words.next().is_some_and(|first| first == b"sh") && words.any(|other| other == word.as_bytes()) {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// What a client that was killed leaves: the end of the input, a pipe that nobody reads, a terminal that hangs up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_is_noticed_by_its_command() {
    needs_a_node!();
    with_each(async |daemon, handler, id| {
        let writes = "while :; do echo x; sleep 0.02; done";
        let cases = [
            (false, "reads", "cat >/dev/null; echo"),
            (false, "writes", writes),
            (true, "sits", "while :; do read line; done"),
            (true, "shows", writes),
        ];
        for (terminal, name, script) in cases {
            let word = format!("{name}-{handler}-{}", std::process::id());
            let mut args = vec!["exec", "-i"];
            args.extend(terminal.then_some("-t"));
            args.extend([id, "sh", "-c", script, &word]);
            let runs =
                || assert!(within(|| !processes_with(&word).is_empty()), "{handler}: {word} does not run");
            if terminal {
                let mut seat = Seat::take(daemon, &args, 80, 24);
                runs();
                seat.child.kill().unwrap();
            } else {
                let line = pintle(daemon, &args);
                let mut command = Command::new(&line[0]);
                command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut client = command.spawn().unwrap();
                runs();
                client.kill().unwrap();
                client.wait().unwrap();
            }
            let begun = Instant::now();
            assert!(within(|| processes_with(&word).is_empty()), "{handler}: {word} goes on");
            println!("{handler}: {name} ended {:?} after its client", begun.elapsed());
        }
        let status = daemon.status(id).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning, "{handler}");
    })
    .await;
}
