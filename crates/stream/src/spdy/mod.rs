//! SPDY/3.1 as a server speaks it: frames, header blocks, flow control, and one connection's streams.

mod connection;
mod dictionary;
mod flow;
mod frame;
mod headers;

pub(crate) use connection::{Incoming, MAX_STREAMS, serve};
pub(crate) use flow::Flow;
#[cfg(test)]
pub(crate) use frame::{Control, Decoder};
