//! A slow link: a relay on loopback that lets so many bytes a second through, in all connections together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What goes through at once.
const PIECE: usize = 16 << 10;

/// A relay that is there until it is dropped.
pub(crate) struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// When the link is free again.
struct Link {
    bytes_per_second: f64,
    free: Mutex<Instant>,
}

impl Link {
    /// Waits until `bytes` more are through.
    async fn pass(&self, bytes: usize) {
        let mut free = self.free.lock().await;
        *free = (*free).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        let until = *free;
        drop(free);
        tokio::time::sleep_until(until).await;
    }
}

impl Relay {
    /// Listens on loopback for connections to `to`; what `to` answers is held to `bytes_per_second`.
    pub(crate) async fn to(to: SocketAddr, bytes_per_second: f64) -> io::Result<Relay> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let link = Arc::new(Link { bytes_per_second, free: Mutex::new(Instant::now()) });
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let link = Arc::clone(&link);
                tokio::spawn(async move {
                    // Either side going away is the end of it.
                    let _ = relay(client, to, &link).await;
                });
            }
        });
        Ok(Relay { address, task })
    }

    /// Where it listens, as a reference names it.
    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, to: SocketAddr, link: &Link) -> io::Result<()> {
    let server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let slowly = async {
        let mut piece = vec![0; PIECE];
        loop {
            let read = from_server.read(&mut piece).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            link.pass(read).await;
            to_client.write_all(&piece[..read]).await?;
        }
    };
    tokio::try_join!(slowly, async { copy(&mut from_client, &mut to_server).await.map(drop) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_takes_as_long_as_the_link() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let relay = Relay::to(listener.local_addr().unwrap(), f64::from(1 << 20)).await.unwrap();
        let serving = async {
            let (mut server, _) = listener.accept().await.unwrap();
            server.write_all(&vec![7; 256 << 10]).await.unwrap();
        };
        let reading = async {
            let mut bytes = Vec::new();
            let mut client = TcpStream::connect(relay.address).await.unwrap();
            client.read_to_end(&mut bytes).await.unwrap();
            bytes.len()
        };
        let began = Instant::now();
        let ((), read) = tokio::join!(serving, reading);
        let took = began.elapsed().as_secs_f64();
        assert_eq!(read, 256 << 10);
        assert!((0.24..1.0).contains(&took), "{took} s");
    }
}
