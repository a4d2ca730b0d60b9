//! A web server for the demonstration: `GET` of the files of one directory, nothing else.

use std::path::{Component, Path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head that is read, in bytes.
const LONGEST_HEAD: usize = 8 * 1024;

/// Serves `directory` on a port of every address until the process ends.
pub(super) async fn serve(port: &str, directory: &Path) -> super::Outcome {
    let port: u16 = port.parse().map_err(|_| format!("{port:?} is no port"))?;
    let listener = TcpListener::bind(("0.0.0.0", port)).await;
    let listener = listener.map_err(|error| format!("listening on port {port}: {error}"))?;
    println!("serving {} on port {port}", directory.display());
    serve_on(listener, directory).await
}

/// Serves one connection after the other.
pub(super) async fn serve_on(listener: TcpListener, directory: &Path) -> super::Outcome {
    loop {
        let (stream, peer) = listener.accept().await.map_err(|error| format!("accepting: {error}"))?;
        match answer(stream, directory).await {
            Ok(line) => println!("{} {line}", peer.ip()),
            Err(error) => println!("{} {error}", peer.ip()),
        }
    }
}

/// Answers one request and returns its first line with the status.
async fn answer(mut stream: TcpStream, directory: &Path) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.lines().next().unwrap_or_default();
    let path = line.strip_prefix("GET /").and_then(|rest| rest.split_whitespace().next());
    let path = if line.starts_with("GET / ") { Some("index.html") } else { path };
    let plain = |path: &&str| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    let body = path.filter(plain).and_then(|path| std::fs::read(directory.join(path)).ok());
    let (status, body) = match body {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", b"not found\n".to_vec()),
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await?;
    Ok(format!("\"{line}\" {status}"))
}
