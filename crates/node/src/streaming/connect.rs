//! Connections into a pod: the socket is made inside its network namespace, and from then on belongs there, whoever uses it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use model::pod::Pod;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::TcpSocket;

use crate::context::blocking;
use crate::error::{ConnectError, Fault};
use crate::node::Node;
use crate::pod_shim::PodShim;
use crate::record::PodRecord;

/// How long a connection over loopback may take; a listener whose queue is full lets it wait.
const PATIENCE: Duration = Duration::from_secs(10);

impl Node {
    /// Whether ports of the pod can be reached now; the pod.
    ///
    /// # Errors
    /// There is none, or it does not run.
    pub fn can_connect(&self, given: &str) -> Result<Arc<PodRecord>, ConnectError> {
        let record = self.snapshot().pod(given).cloned()?;
        match &record.state.pod {
            Pod::Ready => Ok(record),
            Pod::Stopped { .. } => Err(ConnectError::NotReady { pod: record.id.clone() }),
        }
    }

    /// Connects to a port of loopback in the pod's network: over IPv4, then over IPv6. The socket does not block.
    ///
    /// # Errors
    /// The pod is not there or does not run, or nobody listens.
    pub async fn connect(&self, given: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let record = self.can_connect(given)?;
        let pod = record.id.clone();
        let Some(shim) = self.shim_of(&pod) else { return Err(ConnectError::NotReady { pod }) };
        let failed = |source| ConnectError::Failed {
            pod: pod.clone(),
            fault: Fault::File { path: "a socket in its network".into(), source },
        };
        let mut refused = Vec::new();
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let address = SocketAddr::new(ip, port);
            let socket = match socket_in(shim.clone(), ip).await {
                Ok(socket) => TcpSocket::from_std_stream(socket.into()),
                // A kernel without IPv6, or one in which it is switched off.
                Err(error) if ip.is_ipv6() => {
                    refused.push(format!("{address}: {error}"));
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            match tokio::time::timeout(PATIENCE, socket.connect(address)).await {
                Ok(Ok(stream)) => return stream.into_std().map_err(failed),
                Ok(Err(error)) => refused.push(format!("{address}: {error}")),
                Err(_) => refused.push(format!("{address}: no answer within {PATIENCE:?}")),
            }
        }
        Err(ConnectError::Refused { pod, port, why: refused.join("; ") })
    }
}

/// A TCP socket in the network namespace of the shim, which is its pod's. The process is named by descriptor: its number may be another's.
async fn socket_in(shim: PodShim, ip: IpAddr) -> std::io::Result<OwnedFd> {
    blocking(move || {
        sys::namespace::in_network(shim.pidfd(), || {
            let family = if ip.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
        })
    })
    .await
}
