//! Clients that mean harm, or die: nothing of them stays, and others do not notice.

mod support;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use stream::{Config, Server};
use support::spdy::{Client, Frame};
use support::{descriptors, eventually, request, server, sh};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

const V4: &str = "v4.channel.k8s.io";
const SPDY: &str =
    "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Runs a test on a runtime of its own while no other test runs: they count the descriptors of this process, and runtimes have some.
fn alone(test: impl Future<Output = ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Waits until all that connections had is given back.
async fn nothing_stays(descriptors_before: usize, tasks_before: usize) {
    eventually("descriptors stay open", || descriptors() <= descriptors_before).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    eventually("tasks stay", || tasks() <= tasks_before).await;
}

async fn fail(server: &Server, way: usize) {
    // To begin thousands of processes is not what is tried here.
    let url = || server.exec_url(stream::Exec { container: "missing".into(), ..sh("io", "cat") }).unwrap();
    let unknown = format!("http://{}/exec/AAAAAAAAAAAAAAAAAAAAAA", server.address());
    match way % 8 {
        0 => drop(request(&unknown, "POST", SPDY).await),
        1 => drop(TcpStream::connect(server.address()).await.unwrap()),
        2 => drop(request(&url(), "POST", "").await),
        3 => drop(request(&url(), "POST", SPDY).await),
        4 => drop(request(&url(), "GET", WEBSOCKET).await),
        5 => {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            stream.write_all(b"POST /exec/AAAAAAAAAAAAAAAAAAAAAA HTTP/1.1\r\nHo").await.unwrap();
        }
        6 => {
            let (mut stream, _) = request(&url(), "POST", SPDY).await;
            let _ = stream.write_all(&support::noise(way as u64, 500)).await;
        }
        _ => {
            let (mut stream, _) = request(&url(), "GET", WEBSOCKET).await;
            let _ = stream.write_all(&support::noise(way as u64, 500)).await;
        }
    }
}

#[test]
fn ten_thousand_failed_connections_leave_nothing() {
    alone(async {
        let (server, _) = server(Config::default());
        let server = Arc::new(server);
        let (files, tasks) = (descriptors(), Handle::current().metrics().num_alive_tasks());
        let places = Arc::new(Semaphore::new(64));
        let mut clients = tokio::task::JoinSet::new();
        for way in 0..10_000 {
            let (server, place) = (Arc::clone(&server), Arc::clone(&places).acquire_owned().await.unwrap());
            clients.spawn(async move {
                fail(&server, way).await;
                drop(place);
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        nothing_stays(files, tasks).await;
        for _ in 0..1000 {
            server.exec_url(sh("o", "true")).expect("no token was left out");
        }
    });
}

/// Waits for data on a stream, as a client that does no flow control.
async fn data_on(client: &mut Client, wanted: u32) {
    loop {
        match client.receive.frame().await.unwrap() {
            Frame::Data { stream, .. } if stream == wanted => return,
            Frame::Ping(id) => client.send.ping(id).await,
            _ => {}
        }
    }
}

#[test]
fn a_client_may_vanish_at_any_step() {
    alone(async {
        let (server, _) = server(Config::default());
        let (files, tasks) = (descriptors(), Handle::current().metrics().num_alive_tasks());
        for step in 0..8 {
            let url = server.exec_url(sh("ioe", "cat; echo err >&2; cat /dev/zero")).unwrap();
            let mut client = Client::connect(&url, V4).await;
            for (at, kind) in ["error", "stdin", "stdout", "stderr"].iter().enumerate() {
                if step > at {
                    client.open(&[kind]).await;
                }
            }
            if step > 4 {
                client.send.data(3, &vec![b'x'; 10_000], false).await;
            }
            if step > 5 {
                data_on(&mut client, 5).await;
            }
            if step > 6 {
                client.send.data(3, b"", true).await;
                data_on(&mut client, 7).await;
            }
            drop(client);
            nothing_stays(files, tasks).await;
        }
    });
}

#[test]
fn so_may_one_of_a_websocket() {
    alone(async {
        let (server, _) = server(Config::default());
        let (files, tasks) = (descriptors(), Handle::current().metrics().num_alive_tasks());
        let protocol = "Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n";
        // After the upgrade; in a frame's head; in a message; after one; after the end of input; after a close.
        let all = [
            0x82, 0x85, 0, 0, 0, 0, 0, b'w', b'o', b'r', b'd', 0x82, 0x82, 0, 0, 0, 0, 255, 0, 0x88, 0x80, 0,
            0, 0, 0,
        ];
        for step in [0, 3, 8, 11, 19, all.len()] {
            let url = server.exec_url(sh("ioe", "cat; echo err >&2; cat /dev/zero")).unwrap();
            let (mut socket, _) = request(&url, "GET", &[WEBSOCKET, protocol].concat()).await;
            socket.write_all(&all[..step]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(socket);
            nothing_stays(files, tasks).await;
        }
    });
}

/// Its own data fills every buffer, so its end cannot be read; only a ping finds out.
#[test]
fn a_client_that_vanishes_behind_its_own_data_is_noticed() {
    alone(async {
        let (server, _) = server(Config { ping_interval: Duration::from_millis(200), ..Config::default() });
        let (files, tasks) = (descriptors(), Handle::current().metrics().num_alive_tasks());
        let mut client = Client::connect(&server.exec_url(sh("i", "sleep 5")).unwrap(), V4).await;
        client.open(&["error", "stdin"]).await;
        let flood = vec![0; 1 << 20];
        while timeout(Duration::from_millis(300), client.send.data(3, &flood, false)).await.is_ok() {}
        drop(client);
        let start = std::time::Instant::now();
        nothing_stays(files, tasks).await;
        assert!(start.elapsed() < Duration::from_secs(3), "only the process's end ended it");
    });
}

/// What the server sends until it closes.
async fn told(client: &mut Client) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = timeout(Duration::from_secs(5), client.receive.frame()).await.unwrap() {
        frames.push(frame);
    }
    frames
}

#[test]
fn who_breaks_spdy_is_told_and_closed() {
    alone(async {
        let (server, _) = server(Config::default());
        for what in 0..7 {
            let mut client = Client::connect(&server.exec_url(sh("io", "cat")).unwrap(), V4).await;
            let last = client.open(&["error"]).await[0];
            match what {
                // Sixteen mebibytes of one letter, in sixteen kilobytes.
                0 => drop(client.send.syn(&[("a", &"x".repeat(16 << 20))], 0).await),
                // A control frame larger than any needs to be.
                1 => client.send.control(1, 0, &vec![0; 100_000]).await,
                // Another version.
                2 => client.send.raw(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await,
                // A stream of the server's, and one that was there.
                3 => client.send.control(1, 0, &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0]).await,
                4 => client.send.control(1, 0, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await,
                // A window past its end.
                5 => {
                    client.send.window(0, 0x7fff_ffff).await;
                    client.send.window(0, 0x7fff_ffff).await;
                }
                _ => client.send.control(6, 0, &[1]).await,
            }
            let frames = told(&mut client).await;
            assert_eq!(frames.last(), Some(&Frame::GoAway { last, status: 1 }), "{what}: {frames:?}");
        }
    });
}

#[test]
fn streams_are_bounded_and_those_that_are_there_go_on() {
    alone(async {
        let (server, _) = server(Config::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let url = server.port_forward_url("pod".into(), vec![]).unwrap();
        let mut client = Client::connect(&url, "portforward.k8s.io").await;
        let mut last = (0, 0);
        for at in 0..600 {
            let headers = [("streamtype", "error"), ("port", port.as_str()), ("requestid", &at.to_string())];
            let id = client.send.syn(&headers, 0).await;
            loop {
                match client.receive.frame().await.unwrap() {
                    Frame::Reply { stream, .. } => last.0 = stream,
                    Frame::Reset { stream, status } => {
                        assert_eq!((stream, status), (id, 3));
                        last.1 += 1;
                    }
                    _ => continue,
                }
                break;
            }
        }
        assert_eq!(last, (2 * 512 - 1, 600 - 512));
        // When one goes, another comes.
        client.send.reset(1).await;
        let headers = [("streamtype", "error"), ("port", port.as_str()), ("requestid", "again")];
        let id = client.send.syn(&headers, 0).await;
        while client.receive.frame().await.unwrap() != (Frame::Reply { stream: id, headers: 0 }) {}
    });
}

#[test]
fn what_goes_to_no_stream_is_passed_over() {
    alone(async {
        let (server, _) = server(Config::default());
        let mut client = Client::connect(&server.exec_url(sh("io", "cat")).unwrap(), V4).await;
        let ids = client.open(&["error", "stdin", "stdout"]).await;
        client.send.data(99, b"nobody", true).await;
        client.send.data(0, b"nobody", false).await;
        client.send.window(99, 1).await;
        client.send.reset(99).await;
        client.send.control(77, 0, b"of a type that does not exist").await;
        client.send.control(4, 0, &[0; 4]).await;
        client.send.data(ids[1], b"still here", true).await;
        assert_eq!(client.rest().await[&ids[2]].0, b"still here");
    });
}
