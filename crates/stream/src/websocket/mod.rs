//! WebSocket (RFC 6455) as a server of channels speaks it. Messages pass through as they come, in pieces, so that their size costs nothing.

mod connection;
pub(crate) mod frame;
pub(crate) mod framing;

pub(crate) use connection::{Channels, serve};
pub(crate) use framing::Framing;
