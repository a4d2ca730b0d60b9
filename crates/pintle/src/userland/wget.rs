//! Fetches one page by plain HTTP and writes it to standard output.

use std::io::Write;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Most that is read of an answer, in bytes.
const LARGEST_ANSWER: u64 = 1 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fetches `url` and prints the page.
pub(super) async fn fetch(url: &str) -> super::Outcome {
    let page = get(url).await?;
    std::io::stdout().write_all(&page).map_err(|error| error.to_string())
}

/// Fetches `http://HOST[:PORT]/PATH` and returns the page; any status but 200 is an error.
pub(crate) async fn get(url: &str) -> Result<Vec<u8>, String> {
    let answer = tokio::time::timeout(PATIENCE, request(url)).await;
    let answer = answer.map_err(|_| format!("{url}: no answer within {} seconds", PATIENCE.as_secs()))??;
    let end =
        answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or(format!("{url}: not an HTTP answer"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(answer[end + 4..].to_vec()),
        _ => Err(format!("{url}: {status}")),
    }
}

async fn request(url: &str) -> Result<Vec<u8>, String> {
    let rest = url.strip_prefix("http://").ok_or(format!("{url:?} does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let failed = |error: std::io::Error| format!("{url}: {error}");
    let mut stream = TcpStream::connect(&address).await.map_err(failed)?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(LARGEST_ANSWER).read_to_end(&mut answer).await.map_err(failed)?;
    Ok(answer)
}
