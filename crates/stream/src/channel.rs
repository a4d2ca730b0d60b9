//! The two directions of one stream of a connection, whatever carries it: bounded, so that the slow side slows the fast one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::spdy::Flow;

/// How much of what the client sent on one stream may wait here to be read.
pub(crate) const WINDOW: usize = 128 * 1024;
/// How much is read from a process or a socket at a time.
pub(crate) const CHUNK: usize = 32 * 1024;
/// How many chunks of a connection, all its streams together, may wait to be sent.
pub(crate) const OUT_QUEUE: usize = 4;

/// The other side of the stream is no more: it was reset, or the connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// What a connection is to send, in this order.
#[derive(Debug)]
pub(crate) enum Out {
    Data {
        channel: u32,
        bytes: Bytes,
    },
    /// Nothing more comes on this stream.
    End(u32),
    /// Nothing more comes at all.
    Goodbye,
}

/// What the client sends on a stream.
pub(crate) struct Inbound {
    channel: u32,
    pipe: DuplexStream,
    flow: Option<Arc<Flow>>,
    unacknowledged: usize,
}

impl Inbound {
    /// The reading end, and the end into which a connection writes what came. Dropping that one is the end of the stream.
    pub(crate) fn new(channel: u32, flow: Option<Arc<Flow>>) -> (Inbound, DuplexStream) {
        let (pipe, from_wire) = duplex(WINDOW);
        (Inbound { channel, pipe, flow, unacknowledged: 0 }, from_wire)
    }

    /// Whether the client has not given the stream up.
    pub(crate) fn is_open(&self) -> bool {
        self.flow.as_ref().is_none_or(|flow| flow.is_open(self.channel))
    }

    /// Some of what came; 0 is the end that the client made.
    ///
    /// # Errors
    /// The client gave the stream up, in both directions.
    pub(crate) async fn read(&mut self, into: &mut [u8]) -> Result<usize, Gone> {
        let read = self.pipe.read(into).await.map_err(|_| Gone)?;
        if read == 0 && !self.is_open() {
            return Err(Gone);
        }
        let Some(flow) = &self.flow else { return Ok(read) };
        self.unacknowledged += read;
        if self.unacknowledged >= WINDOW / 2 {
            flow.consumed(self.channel, std::mem::take(&mut self.unacknowledged));
        }
        Ok(read)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(flow) = &self.flow {
            flow.unread(self.channel);
        }
    }
}

/// What goes to the client on a stream.
pub(crate) struct Outbound {
    channel: u32,
    out: mpsc::Sender<Out>,
    flow: Option<Arc<Flow>>,
}

impl Outbound {
    pub(crate) fn new(channel: u32, out: mpsc::Sender<Out>, flow: Option<Arc<Flow>>) -> Outbound {
        Outbound { channel, out, flow }
    }

    /// Waits until the client takes it.
    ///
    /// # Errors
    /// Nobody is there to take it any more.
    pub(crate) async fn write(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let room = match &self.flow {
                Some(flow) => flow.reserve(self.channel, bytes.len()).await?,
                None => bytes.len(),
            };
            let bytes = bytes.split_to(room);
            self.send(Out::Data { channel: self.channel, bytes }).await?;
        }
        Ok(())
    }

    /// Sends a message without content: a sign of life.
    pub(crate) async fn announce(&self) -> Result<(), Gone> {
        self.send(Out::Data { channel: self.channel, bytes: Bytes::new() }).await
    }

    /// Tells the client that nothing more comes.
    pub(crate) async fn end(self) {
        let _gone = self.send(Out::End(self.channel)).await;
    }

    async fn send(&self, out: Out) -> Result<(), Gone> {
        self.out.send(out).await.map_err(|_| Gone)
    }
}
