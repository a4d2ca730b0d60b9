//! One upgraded connection, from the handing over to its end.

use tokio::io::{AsyncRead, AsyncWrite};

use crate::protocol::Transport;
use crate::server::Shared;
use crate::token::Request;

/// Serves what was asked for, over what was agreed on.
pub(crate) async fn run<S>(stream: S, request: Request, transport: Transport, shared: &Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _ = (stream, request, transport, &shared.backend, shared.idle_timeout, shared.stream_timeout);
}
