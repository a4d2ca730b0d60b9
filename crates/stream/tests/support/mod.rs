//! What the tests of the streaming server share. Not every test program uses all of it.
#![allow(dead_code)]

pub(crate) mod backend;
#[path = "../../src/spdy/dictionary.rs"]
mod dictionary;
pub(crate) mod spdy;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stream::{Config, Exec, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use backend::Host;

/// A server of this host.
pub(crate) fn server(config: Config) -> (Server, Arc<Host>) {
    let host = Arc::new(Host::default());
    (Server::start(config, Arc::clone(&host) as Arc<dyn stream::Backend>).unwrap(), host)
}

/// A command of the shell with the streams of the letters: `i`, `o`, `e`, and `t` for a terminal.
pub(crate) fn sh(letters: &str, script: &str) -> Exec {
    let has = |letter| letters.contains(letter);
    Exec {
        container: "c".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        terminal: has('t'),
        stdin: has('i'),
        stdout: has('o'),
        stderr: has('e'),
    }
}

/// Sends a request's head and reads the answer's.
pub(crate) async fn request(url: &str, method: &str, headers: &str) -> (TcpStream, String) {
    let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(_) => break,
        }
    }
    (stream, String::from_utf8(answer).unwrap().to_lowercase())
}

/// How many descriptors this process has open.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until something is so, and fails after some seconds.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(8), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Bytes that do not repeat soon, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
