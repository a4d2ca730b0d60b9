//! Memory stays flat whatever clients do. Alone in its program, for it looks at the whole process.

mod support;

use std::time::Duration;

use stream::Config;
use support::spdy::Client;
use support::{request, server, sh};
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n";

/// Resident memory in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn neither_deaf_clients_nor_deaf_processes_fill_it() {
    let (server, _) = server(Config::default());
    let part = vec![0; 1 << 20];
    let mut clients = Vec::new();
    let mut sockets = Vec::new();
    let before = resident();
    for _ in 0..4 {
        // Clients that do not read what comes without end.
        let mut client =
            Client::connect(&server.exec_url(sh("o", "yes")).unwrap(), "v4.channel.k8s.io").await;
        client.open(&["error", "stdout"]).await;
        for ping in 0..2000 {
            client.send.ping(2 * ping).await;
        }
        clients.push(client);
        sockets.push(request(&server.exec_url(sh("o", "yes")).unwrap(), "GET", WEBSOCKET).await.0);
        // Processes that do not read what clients send without end.
        let url = server.exec_url(sh("i", "sleep 8")).unwrap();
        let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
        let stdin = client.open(&["error", "stdin"]).await[1];
        while timeout(Duration::from_millis(200), client.send.data(stdin, &part, false)).await.is_ok() {}
        clients.push(client);
        let mut socket = request(&server.exec_url(sh("i", "sleep 8")).unwrap(), "GET", WEBSOCKET).await.0;
        // One message without end.
        socket.write_all(&[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        while timeout(Duration::from_millis(200), socket.write_all(&part)).await.is_ok() {}
        sockets.push(socket);
    }
    sleep(Duration::from_secs(1)).await;
    let grown = resident() - before;
    // The 16 connections have fixed buffers of some 300 KiB each here; the kernel's are not counted.
    assert!(grown < 24 * 1024, "{grown} KiB");
    println!("16 connections that are stuck take {grown} KiB");
}
