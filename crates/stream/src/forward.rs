//! Port-forward: connections into a pod, over either transport.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Backend;
use crate::channel::{CHUNK, Gone, Inbound, Outbound};
use crate::spdy::{Incoming, MAX_STREAMS};
use crate::websocket::Channels;

/// Once the pod has said all, the client is listened to until it was silent for so long.
const GRACE: Duration = Duration::from_secs(1);

/// Whose ports they are.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) backend: Arc<dyn Backend>,
}

/// One connection's way to the client.
struct Pair {
    from_client: Inbound,
    to_client: Outbound,
    error: Outbound,
}

/// Half of a pair, and until when the other half has to come.
struct Half {
    kind: Kind,
    port: u16,
    ends: (Inbound, Outbound),
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// Over SPDY a client opens two streams for each connection, `error` and `data`, and as many pairs as it likes.
pub(crate) async fn over_spdy(mut incoming: mpsc::Receiver<Incoming>, pod: Pod, limit: Duration) {
    let mut halves: HashMap<String, Half> = HashMap::new();
    let mut connections = JoinSet::new();
    loop {
        let next_late = halves.values().map(|half| half.until).min();
        let late = async {
            match next_late {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            stream = incoming.recv() => {
                let Some(stream) = stream else { break };
                if let Some((port, pair)) = paired(&mut halves, stream, limit) {
                    connections.spawn(connect(pod.clone(), port, pair));
                }
            }
            Some(_) = connections.join_next() => {}
            () = late => give_up(&mut halves).await,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// The pair that a new stream completes. One that makes no sense is refused by dropping it.
fn paired(halves: &mut HashMap<String, Half>, stream: Incoming, limit: Duration) -> Option<(u16, Pair)> {
    let kind = match stream.headers.get("streamtype")? {
        "data" => Kind::Data,
        "error" => Kind::Error,
        _ => return None,
    };
    let port = stream.headers.get("port")?.parse().ok().filter(|port| *port != 0)?;
    let request = match stream.headers.get("requestid") {
        Some(id) => id.to_owned(),
        // Clients from before there were request ids open the stream for errors, then at once the one for data.
        None => format!("#{}", if kind == Kind::Error { stream.id } else { stream.id.saturating_sub(2) }),
    };
    match halves.remove(&request) {
        None => {
            if halves.len() >= MAX_STREAMS {
                halves.retain(|_, half| half.ends.0.is_open());
            }
            if halves.len() < MAX_STREAMS {
                let half = Half { kind, port, ends: stream.accept()?, until: Instant::now() + limit };
                halves.insert(request, half);
            }
            None
        }
        Some(half) if half.kind == kind || half.port != port => {
            halves.insert(request, half);
            None
        }
        Some(half) => {
            let ends = stream.accept()?;
            let (data, error) = if kind == Kind::Data { (ends, half.ends) } else { (half.ends, ends) };
            Some((port, Pair { from_client: data.0, to_client: data.1, error: error.1 }))
        }
    }
}

/// Ends the halves whose other half has not come.
async fn give_up(halves: &mut HashMap<String, Half>) {
    let now = Instant::now();
    for (_, Half { kind, ends: (_, outbound), .. }) in halves.extract_if(|_, half| half.until <= now) {
        if kind == Kind::Error {
            let text = "the stream for data was not opened in time";
            let _gone = outbound.write(Bytes::from_static(text.as_bytes())).await;
        }
        outbound.end().await;
    }
}

/// Over WebSocket each port has two channels, for data and for errors, and carries one connection.
pub(crate) async fn over_websocket(mut channels: Channels, ports: Vec<u16>, pod: Pod) {
    let mut connections = JoinSet::new();
    for (index, port) in (0u8..).zip(ports) {
        let to_client = channels.outbound(2 * index);
        let error = channels.outbound(2 * index + 1);
        for first in [&to_client, &error] {
            let _gone = first.write(Bytes::copy_from_slice(&port.to_le_bytes())).await;
        }
        if let Some(from_client) = channels.inbound(2 * index) {
            connections.spawn(connect(pod.clone(), port, Pair { from_client, to_client, error }));
        }
    }
    drop(channels);
    while connections.join_next().await.is_some() {}
}

/// Carries one connection from its beginning to its end.
async fn connect(pod: Pod, port: u16, pair: Pair) {
    let Pair { mut from_client, to_client, error } = pair;
    let connected = match pod.backend.connect(&pod.id, port).await {
        Ok(stream) => TcpStream::from_std(stream).map_err(|error| error.to_string()),
        Err(refusal) => Err(refusal.to_string()),
    };
    let why = match connected {
        Ok(stream) => {
            carry(stream, &mut from_client, &to_client).await;
            None
        }
        Err(why) => Some(format!("port {port} of pod {} cannot be reached: {why}", pod.id)),
    };
    if let Some(why) = why {
        let _gone = error.write(Bytes::from(why)).await;
    }
    error.end().await;
    to_client.end().await;
}

/// Moves bytes in both directions until both have ended, or one of the two sides has thrown the connection away.
async fn carry(mut stream: TcpStream, from_client: &mut Inbound, to_client: &Outbound) {
    let (mut from_pod, mut to_pod) = stream.split();
    let (pod_done, mut done) = watch::channel(false);
    let down = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            match from_pod.read(&mut buffer).await {
                Ok(0) => break,
                Ok(count) => to_client.write(Bytes::copy_from_slice(&buffer[..count])).await?,
                // Whoever listens there has thrown the connection away; the client sees its end.
                Err(_) => return Err(Gone),
            }
        }
        pod_done.send_replace(true);
        Ok(())
    };
    let up = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let silent = async {
                let _done = done.wait_for(|done| *done).await.map(drop);
                sleep(GRACE).await;
            };
            let count = tokio::select! {
                biased;
                count = from_client.read(&mut buffer) => count?,
                () = silent => return Ok(()),
            };
            if count == 0 {
                // The pod may have more to say all the same.
                return to_pod.shutdown().await.map_err(|_| Gone);
            }
            // What the pod has said is still the client's, even if it listens no more.
            if to_pod.write_all(&buffer[..count]).await.is_err() {
                return Ok(());
            }
        }
    };
    let _gone = tokio::try_join!(down, up);
}
