//! `pintle port-forward`: ports of this machine that lead into a pod.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::inventory::Inventory;
use super::output::write_out;
use cri::runtime_v1::PortForwardRequest;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;
use stream::client::{FORWARD, Receiver, Sender};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// The channels of one forwarded connection. Each begins with the port's number.
const DATA: u8 = 0;
const ERROR: u8 = 1;
const PORT_BYTES: usize = 2;

/// What is read from a connection at a time.
const CHUNK: usize = 32 << 10;

/// How long to wait after a connection could not be taken: descriptors have run out, mostly.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Listen on this address of the machine
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "IP")]
    address: IpAddr,
    /// Pod by name, NAMESPACE/NAME, id or the beginning of an id
    pod: String,
    /// Port of the pod, and before it the one of this machine; the same if it is missing, a free one if it is empty or 0
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<Ports>,
}

/// A pair of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let bad = || format!("{text:?} is not LOCAL:REMOTE, two numbers up to 65535");
        let port = |text: &str| text.parse::<u16>().map_err(|_| bad());
        let (local, remote) = match text.split_once(':') {
            None => (port(text)?, port(text)?),
            Some(("", remote)) => (0, port(remote)?),
            Some((local, remote)) => (port(local)?, port(remote)?),
        };
        if remote == 0 { Err(bad()) } else { Ok(Ports { local, remote }) }
    }
}

/// Forwards until it is interrupted.
pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let inventory = Inventory::load(client).await?;
    let pod = inventory.pod(&args.pod)?.id.clone();
    let mut listeners = Vec::new();
    for ports in &args.ports {
        let address = SocketAddr::new(args.address, ports.local);
        let listener =
            TcpListener::bind(address).await.map_err(|source| Failure::Listen { address, source })?;
        // Whether the pod can be reached at all is known before anybody connects.
        url(client, &pod, ports.remote).await?;
        listeners.push((listener, ports.remote));
    }
    let mut serving = JoinSet::new();
    for (listener, remote) in listeners {
        let local = listener.local_addr().map_err(Failure::Output)?;
        write_out(&format!("{local} -> {}:{remote}\n", args.pod))?;
        serving.spawn(serve(listener, client.clone(), pod.clone(), remote));
    }
    // Interrupting is how it is ended.
    let _ = tokio::signal::ctrl_c().await;
    Ok(())
}

async fn serve(listener: TcpListener, client: Client, pod: String, port: u16) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((connection, from)) => {
                let (client, pod) = (client.clone(), pod.clone());
                connections.spawn(async move {
                    if let Err(failure) = forward(connection, &client, &pod, port).await {
                        eprintln!("pintle: the connection of {from}: {failure}");
                    }
                });
            }
            Err(error) => {
                eprintln!("pintle: a connection could not be taken: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn url(client: &Client, pod: &str, port: u16) -> Result<String, Failure> {
    let request = PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: vec![port.into()] };
    let answer = client.runtime().port_forward(request).await;
    Ok(answer.explain(|| format!("forwarding to port {port} of the pod {pod}"))?.url)
}

async fn forward(connection: TcpStream, client: &Client, pod: &str, port: u16) -> Result<(), Failure> {
    let url = url(client, pod, port).await?;
    let (sender, receiver) = stream::client::connect(&url, FORWARD).await?;
    connection.set_nodelay(true).ok();
    let (read, write) = connection.into_split();
    tokio::select! {
        done = into_pod(read, &sender) => done,
        done = out_of_pod(receiver, write) => done,
    }
}

/// Ends only on an error: this version of the protocol has no word for the end of one direction, and the answer may still come.
async fn into_pod(mut read: OwnedReadHalf, sender: &Sender) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match read.read(&mut buffer).await {
            Ok(0) => std::future::pending().await,
            Ok(length) => sender.send(DATA, &buffer[..length]).await?,
            // The local side is gone.
            Err(_) => return Ok(()),
        }
    }
}

async fn out_of_pod(mut receiver: Receiver, mut write: OwnedWriteHalf) -> Result<(), Failure> {
    let mut heads = [PORT_BYTES; 2];
    let mut error = Vec::new();
    while let Some((channel, bytes)) = receiver.next().await? {
        let Some(head) = heads.get_mut(usize::from(channel)) else { continue };
        let skipped = (*head).min(bytes.len());
        *head -= skipped;
        let bytes = &bytes[skipped..];
        if channel == ERROR {
            error.extend_from_slice(bytes);
        } else if write.write_all(bytes).await.is_err() {
            return Ok(());
        }
    }
    if error.is_empty() {
        Ok(())
    } else {
        Err(Failure::Session(String::from_utf8_lossy(&error).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let ports = |text: &str| text.parse::<Ports>().map(|ports| (ports.local, ports.remote)).ok();
        assert_eq!(ports("80"), Some((80, 80)));
        assert_eq!(ports("8080:80"), Some((8080, 80)));
        assert_eq!((ports(":80"), ports("0:80")), (Some((0, 80)), Some((0, 80))));
        for bad in ["", "0", "80:", "80:0", "65536", "a", "1:2:3", "-1"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }
}
