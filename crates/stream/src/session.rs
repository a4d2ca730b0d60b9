//! One upgraded connection, from the handing over to its end.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex, split};

use crate::channel::{CHUNK, WINDOW};
use crate::forward::{self, Pod};
use crate::protocol::{Protocol, Transport};
use crate::remote::{self, Remote};
use crate::server::Shared;
use crate::token::Request;
use crate::websocket::{Channels, Framing};
use crate::{spdy, websocket};

/// Exec and attach have channels for stdin, stdout, stderr, errors and sizes.
const REMOTE_CHANNELS: usize = 5;

/// Serves what was asked for, over what was agreed on.
pub(crate) async fn run<S>(stream: S, request: Request, transport: Transport, shared: &Shared)
where
    S: AsyncRead + AsyncWrite,
{
    match request {
        Request::Exec(exec) => talk(stream, Remote::Exec(exec), transport, shared).await,
        Request::Attach(attach) => talk(stream, Remote::Attach(attach), transport, shared).await,
        Request::PortForward { pod, ports } => {
            let pod = Pod { id: pod, backend: Arc::clone(&shared.backend) };
            carry(stream, pod, ports, transport, shared).await;
        }
    }
}

async fn talk<S>(stream: S, remote: Remote, transport: Transport, shared: &Shared)
where
    S: AsyncRead + AsyncWrite,
{
    let (backend, silence, limit) = (&*shared.backend, shared.silence, shared.stream_timeout);
    match transport {
        Transport::Spdy(protocol) | Transport::Tunnel(protocol) => {
            let session = |incoming| remote::over_spdy(incoming, remote, protocol, backend, limit);
            spdy::serve(stream, silence, session).await;
        }
        Transport::WebSocket(protocol) => {
            let session = |channels| remote::over_websocket(channels, remote, protocol, backend);
            websocket::serve(stream, framing(protocol), REMOTE_CHANNELS, silence, session).await;
        }
    }
}

async fn carry<S>(stream: S, pod: Pod, ports: Vec<u16>, transport: Transport, shared: &Shared)
where
    S: AsyncRead + AsyncWrite,
{
    let (silence, limit) = (shared.silence, shared.stream_timeout);
    let over_spdy = |incoming| forward::over_spdy(incoming, pod.clone(), limit);
    match transport {
        Transport::Spdy(_) => spdy::serve(stream, silence, over_spdy).await,
        Transport::Tunnel(_) => {
            let (near, far) = duplex(WINDOW);
            let session = |channels| async {
                tokio::join!(spdy::serve(near, silence, over_spdy), pass(channels, far));
            };
            websocket::serve(stream, Framing::Raw, 1, silence, session).await;
        }
        Transport::WebSocket(protocol) => {
            let count = 2 * ports.len();
            let session = |channels| forward::over_websocket(channels, ports, pod.clone());
            websocket::serve(stream, framing(protocol), count, silence, session).await;
        }
    }
}

/// Carries the bytes of a tunnel between its messages and its inner connection, until that one says no more.
async fn pass(mut channels: Channels, inner: DuplexStream) {
    let Some(mut inbound) = channels.inbound(0) else { return };
    let outbound = channels.outbound(0);
    let (mut from_inner, mut to_inner) = split(inner);
    let up = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = inbound.read(&mut buffer).await {
            if to_inner.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from_inner.read(&mut buffer).await {
            if outbound.write(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {}, () = down => {} }
}

fn framing(protocol: Protocol) -> Framing {
    if protocol.base64 { Framing::Base64 } else { Framing::Binary { half_close: protocol.half_close } }
}
