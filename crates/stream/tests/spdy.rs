//! Exec and attach over SPDY, with real processes and a client of the tests' own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;
use stream::{Attach, Config};
use support::spdy::{Client, Frame, Sender};
use support::{eventually, noise, server, sh};
use tokio::time::timeout;

const V4: &str = "v4.channel.k8s.io";

fn config() -> Config {
    Config { stream_timeout: Duration::from_millis(500), ..Config::default() }
}

#[tokio::test]
async fn streams_and_exit_code_in_every_version() {
    let (server, _) = server(config());
    for version in [V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let exec = sh("ioe", "read line; echo out $line; echo err >&2; exit 7");
        let mut client = Client::connect(&server.exec_url(exec).unwrap(), version).await;
        let ids = client.open(&["error", "stdin", "stdout", "stderr"]).await;
        client.send.data(ids[1], b"hello\n", true).await;
        let streams = client.rest().await;
        assert_eq!(streams[&ids[2]], (b"out hello\n".to_vec(), true));
        assert_eq!(streams[&ids[3]], (b"err\n".to_vec(), true));
        let (status, ended) = &streams[&ids[0]];
        assert!(ended);
        if version == V4 {
            let status: Value = serde_json::from_slice(status).unwrap();
            assert_eq!(status["details"]["causes"][0]["message"], "7");
        } else {
            assert_eq!(status, b"command terminated with non-zero exit code: 7");
        }
    }
}

#[tokio::test]
async fn the_status_says_what_happened() {
    let (server, _) = server(config());
    let mut lost = sh("o", "true");
    lost.container = "lost".into();
    let mut missing = sh("o", "true");
    missing.container = "missing".into();
    for (exec, status, message) in [
        (sh("o", "true"), "Success", Value::Null),
        (lost, "Failure", "Internal error occurred: the shim is gone".into()),
        (missing, "Failure", "Internal error occurred: there is no container missing".into()),
    ] {
        let mut client = Client::connect(&server.exec_url(exec).unwrap(), V4).await;
        let ids = client.open(&["stdout", "error"]).await;
        let streams = client.rest().await;
        let found: Value = serde_json::from_slice(&streams[&ids[1]].0).unwrap();
        assert_eq!((&found["status"], &found["message"]), (&Value::from(status), &message));
        assert!(streams[&ids[0]].1, "stdout was ended");
    }
}

#[tokio::test]
async fn attach_is_a_success_however_the_container_ends() {
    let (server, _) = server(config());
    let container = "echo main; exit 3".to_owned();
    let attach = Attach { container, terminal: false, stdin: false, stdout: true, stderr: true };
    let mut client = Client::connect(&server.attach_url(attach).unwrap(), V4).await;
    let ids = client.open(&["error", "stdout", "stderr"]).await;
    let streams = client.rest().await;
    assert_eq!(streams[&ids[1]].0, b"main\n");
    let status: Value = serde_json::from_slice(&streams[&ids[0]].0).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn a_terminal_gets_its_sizes_in_order_and_the_last_of_a_flood() {
    let (server, host) = server(config());
    let url = server.exec_url(sh("iot", "read go; stty size")).unwrap();
    let mut client = Client::connect(&url, V4).await;
    let ids = client.open(&["error", "stdin", "stdout", "resize"]).await;
    for width in (0..5000u32).chain([111]) {
        let size = format!("{{\"Width\":{width},\"Height\":44}}\n");
        client.send.data(ids[3], size.as_bytes(), false).await;
    }
    eventually("the last size", || host.sizes.lock().unwrap().last() == Some(&(111, 44))).await;
    client.send.data(ids[1], b"go\n", false).await;
    let output = String::from_utf8(client.rest().await[&ids[2]].0.clone()).unwrap();
    assert!(output.contains("44 111"), "{output:?}");
    let sizes = host.sizes.lock().unwrap();
    assert!(sizes.iter().all(|(width, _)| *width != 0), "a size of nothing was followed");
    assert!(sizes[..sizes.len() - 1].is_sorted(), "out of order");
}

/// Both ways at once, with a client that keeps to the server's windows and makes sure that the server keeps to its.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways_with_windows() {
    const SIZE: usize = 16 << 20;
    let (server, _) = server(config());
    let mut client = Client::connect(&server.exec_url(sh("io", "cat")).unwrap(), V4).await;
    client.send.first_window(100_000).await;
    let ids = client.open(&["error", "stdin", "stdout"]).await;
    let (stdin, stdout) = (ids[1], ids[2]);
    let sent = noise(1, SIZE);
    let (grants, mut granted) = tokio::sync::mpsc::unbounded_channel();
    let Client { mut send, mut receive } = client;
    let (acks, mut to_acknowledge) = tokio::sync::mpsc::unbounded_channel();
    // What the server may send, of the stream and of the session.
    let given = Arc::new((AtomicI64::new(100_000), AtomicI64::new(65_536)));
    let room = Arc::clone(&given);
    let acknowledge = async |send: &mut Sender<_>, count: u32| {
        if count > 0 {
            given.0.fetch_add(count.into(), Ordering::Relaxed);
            given.1.fetch_add(count.into(), Ordering::Relaxed);
            send.window(stdout, count).await;
            send.window(0, count).await;
        }
    };
    let reading = tokio::spawn(async move {
        let mut got = Vec::with_capacity(SIZE);
        while let Some(frame) = receive.frame().await {
            match frame {
                Frame::Data { stream, bytes, .. } if stream == stdout => {
                    let length = bytes.len() as i64;
                    assert!(room.0.fetch_sub(length, Ordering::Relaxed) >= length, "the stream's window");
                    assert!(room.1.fetch_sub(length, Ordering::Relaxed) >= length, "the session's window");
                    acks.send(bytes.len() as u32).ok();
                    got.extend(bytes);
                }
                Frame::Window { stream, delta } => {
                    grants.send((stream, delta)).ok();
                }
                _ => {}
            }
        }
        got
    });
    // The session's is a mebibyte from the server's first frames on, which came before the replies.
    let (mut window, mut session, mut at) = (65_536usize, 1usize << 20, 0);
    while at < SIZE {
        tokio::select! {
            biased;
            Some(count) = to_acknowledge.recv() => acknowledge(&mut send, count).await,
            Some((stream, delta)) = granted.recv() => {
                if stream == 0 { session += delta as usize } else if stream == stdin { window += delta as usize }
            }
            () = std::future::ready(()), if window.min(session) > 0 => {
                let count = window.min(session).min(20_000).min(SIZE - at);
                send.data(stdin, &sent[at..at + count], at + count == SIZE).await;
                at += count;
                window -= count;
                session -= count;
            }
        }
    }
    while let Some(count) = to_acknowledge.recv().await {
        acknowledge(&mut send, count).await;
    }
    assert!(reading.await.unwrap() == sent, "not the same bytes");
}

/// Like Go's library: no window is known, and only pings are answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways_without_windows() {
    const SIZE: usize = 32 << 20;
    let (server, _) = server(config());
    let mut client = Client::connect(&server.exec_url(sh("io", "cat")).unwrap(), V4).await;
    let ids = client.open(&["error", "stdin", "stdout"]).await;
    let sent = noise(2, SIZE);
    let Client { mut send, mut receive } = client;
    let expected = sent.clone();
    let stdout = ids[2];
    let writing = tokio::spawn(async move {
        for part in sent.chunks(1 << 20) {
            send.data(ids[1], part, false).await;
        }
        send.data(ids[1], b"", true).await;
        send
    });
    let mut got = Vec::with_capacity(SIZE);
    while let Some(frame) = receive.frame().await {
        if let Frame::Data { stream, bytes, .. } = frame
            && stream == stdout
        {
            got.extend(bytes);
        }
    }
    assert!(got == expected, "not the same bytes");
    writing.await.unwrap();
}

/// Waits until so many bytes of data came, makes sure that no more come, and returns the last ping.
async fn exactly(client: &mut Client, expected: usize) -> Option<u32> {
    let (mut got, mut asked) = (0, None);
    loop {
        let patience = Duration::from_millis(if got < expected { 5000 } else { 300 });
        match timeout(patience, client.receive.frame()).await {
            Ok(Some(Frame::Data { bytes, .. })) => got += bytes.len(),
            Ok(Some(Frame::Ping(id))) => asked = Some(id),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    assert_eq!(got, expected);
    asked
}

#[tokio::test]
async fn a_window_is_never_overrun() {
    let (server, _) = server(config());
    let mut client = Client::connect(&server.exec_url(sh("o", "yes")).unwrap(), V4).await;
    client.send.first_window(1000).await;
    let ids = client.open(&["error", "stdout"]).await;
    exactly(&mut client, 1000).await;
    client.send.window(ids[1], 500).await;
    exactly(&mut client, 500).await;
    client.send.window(ids[1], 1 << 20).await;
    // The session's window is what is left of 64 KiB, and nothing was added to that one.
    let asked = exactly(&mut client, 65_536 - 1500).await;
    assert_eq!(asked, None, "it has shown that it counts");
    client.send.window(0, 1).await;
    exactly(&mut client, 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_count_is_asked_with_a_ping() {
    let (server, _) = server(config());
    let mut client = Client::connect(&server.exec_url(sh("o", "yes")).unwrap(), V4).await;
    client.open(&["error", "stdout"]).await;
    // No more until the ping is answered.
    let asked = exactly(&mut client, 65_536).await;
    client.send.ping(asked.unwrap()).await;
    let mut got = 0;
    while got < 1 << 20 {
        if let Frame::Data { bytes, .. } = client.receive.frame().await.unwrap() {
            got += bytes.len();
        }
    }
}

#[tokio::test]
async fn a_client_that_opens_too_little_is_told_and_nothing_starts() {
    let (server, host) = server(config());
    let mut client = Client::connect(&server.exec_url(sh("io", "true")).unwrap(), V4).await;
    let ids = client.open(&["error", "stdin"]).await;
    let streams = client.rest().await;
    let status: Value = serde_json::from_slice(&streams[&ids[0]].0).unwrap();
    assert!(status["message"].as_str().unwrap().contains("not all streams were opened"), "{status}");
    let mut silent = Client::connect(&server.exec_url(sh("io", "true")).unwrap(), V4).await;
    assert!(silent.rest().await.is_empty());
    assert_eq!(host.started.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn streams_that_nobody_asked_for_are_refused() {
    let (server, _) = server(config());
    let mut client = Client::connect(&server.exec_url(sh("o", "sleep 0.3; echo x")).unwrap(), V4).await;
    for kind in ["stdin", "resize", "nonsense", ""] {
        let id = client.send.syn(&[("streamtype", kind)], 0).await;
        while client.receive.frame().await.unwrap() != (Frame::Reset { stream: id, status: 3 }) {}
    }
    let ids = client.open(&["stdout", "error"]).await;
    let late = client.send.syn(&[("streamtype", "stdout")], 0).await;
    let mut refused = false;
    let mut output = Vec::new();
    while let Some(frame) = client.receive.frame().await {
        match frame {
            Frame::Reset { stream, status: 3 } => refused |= stream == late,
            Frame::Data { stream, bytes, .. } if stream == ids[0] => output.extend(bytes),
            _ => {}
        }
    }
    assert!(refused);
    assert_eq!(output, b"x\n");
}

#[tokio::test]
async fn a_stream_that_the_client_gave_up_does_not_stop_the_process() {
    let (server, _) = server(config());
    let url = server.exec_url(sh("oe", "head -c 1000000 /dev/zero; echo done >&2")).unwrap();
    let mut client = Client::connect(&url, V4).await;
    let ids = client.open(&["error", "stdout", "stderr"]).await;
    client.send.reset(ids[1]).await;
    let streams = client.rest().await;
    assert_eq!(streams[&ids[2]].0, b"done\n");
    let status: Value = serde_json::from_slice(&streams[&ids[0]].0).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let (server, _) = server(Config { idle_timeout: Duration::from_millis(300), ..config() });
    let mut client = Client::connect(&server.exec_url(sh("io", "cat")).unwrap(), V4).await;
    client.open(&["error", "stdin", "stdout"]).await;
    assert!(timeout(Duration::from_secs(5), client.rest()).await.unwrap().is_empty());
}

#[tokio::test]
async fn stopping_gives_connections_time_and_then_ends_them() {
    let (server, _) = server(config());
    let mut short = Client::connect(&server.exec_url(sh("o", "sleep 0.3; echo end")).unwrap(), V4).await;
    let ids = short.open(&["error", "stdout"]).await;
    let mut long = Client::connect(&server.exec_url(sh("io", "cat")).unwrap(), V4).await;
    long.open(&["error", "stdin", "stdout"]).await;
    let address = server.address();
    let (short, long, ()) = tokio::join!(short.rest(), long.rest(), server.stop(Duration::from_secs(1)));
    assert_eq!(short[&ids[1]].0, b"end\n");
    assert!(long.is_empty());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
