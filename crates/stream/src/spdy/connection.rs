//! One SPDY connection: what comes is taken apart into streams, and what the streams send is put together.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_buf};
use tokio::io::{sink, split};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::flow::Flow;
use super::frame::{self, Broken, Control, Decoder, HEAD, Head};
use super::headers::Headers;
use crate::channel::{CHUNK, Inbound, OUT_QUEUE, Out, Outbound};
use crate::converse::{Activity, LINGER, Silence, converse};

/// How many streams a connection may have at a time: 256 forwarded connections.
pub(crate) const MAX_STREAMS: usize = 512;
/// So many bytes of data are acknowledged at once, for all streams together.
const ACKNOWLEDGE: usize = 256 * 1024;

/// A stream that a client opens. Dropped without having been taken, it is refused.
pub(crate) struct Incoming {
    pub(crate) id: u32,
    pub(crate) headers: Headers,
    ends: Option<(Inbound, Outbound)>,
    flow: Arc<Flow>,
}

impl Incoming {
    /// Takes the stream: the client is told, and both directions are ours.
    pub(crate) fn accept(mut self) -> Option<(Inbound, Outbound)> {
        let ends = self.ends.take()?;
        self.flow.reply(self.id);
        Some(ends)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.ends.is_some() {
            self.flow.refuse(self.id);
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Serves a connection: `session` gets its streams as they are opened, and the connection ends with it.
pub(crate) async fn serve<S, F>(
    stream: S,
    silence: Silence,
    session: impl FnOnce(mpsc::Receiver<Incoming>) -> F,
) where
    S: AsyncRead + AsyncWrite,
    F: Future<Output = ()>,
{
    let (read_half, write_half) = split(stream);
    let flow = Arc::new(Flow::new());
    let activity = Activity::new();
    let (out, sending) = mpsc::channel(OUT_QUEUE);
    let (opened, streams) = mpsc::channel(1);
    let reader = Reader {
        io: BufReader::with_capacity(CHUNK, read_half),
        flow: Arc::clone(&flow),
        out: out.clone(),
        opened: Some(opened),
        activity: &activity,
        decoder: Decoder::new(),
        unacknowledged: 0,
    };
    let writer = write(write_half, &flow, sending, &activity, silence.ping);
    converse(reader.run(), writer, session(streams), out, &activity, silence.idle).await;
}

struct Reader<'a, R> {
    io: BufReader<R>,
    flow: Arc<Flow>,
    out: mpsc::Sender<Out>,
    /// None once the client has said that it opens no more.
    opened: Option<mpsc::Sender<Incoming>>,
    activity: &'a Activity,
    decoder: Decoder,
    unacknowledged: usize,
}

impl<R: AsyncRead + Unpin> Reader<'_, R> {
    /// Reads until the client is gone.
    async fn run(mut self) {
        if let Err(ReadError::Broken(why)) = self.frames().await {
            tracing::debug!(%why, "a SPDY client broke the protocol");
            self.flow.fail();
            // The writer tells it; the client may be in the middle of sending.
            let _deaf = timeout(LINGER, copy_buf(&mut self.io, &mut sink())).await;
        }
    }

    async fn frames(&mut self) -> Result<(), ReadError> {
        loop {
            self.flow.room().await;
            let mut head = [0; HEAD];
            self.io.read_exact(&mut head).await?;
            match Head::parse(&head)? {
                Head::Data { stream, fin, length } => self.data(stream, fin, length as usize).await?,
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; length as usize];
                    self.io.read_exact(&mut payload).await?;
                    let control = self.decoder.control(kind, flags, &payload)?;
                    self.control(control).await?;
                }
            }
        }
    }

    /// Passes a data frame's payload on as it comes, however long it is.
    async fn data(&mut self, stream: u32, fin: bool, length: usize) -> Result<(), ReadError> {
        let mut pipe = self.flow.take_pipe(stream, length);
        let mut left = length;
        while left > 0 {
            let there = self.io.fill_buf().await?;
            if there.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let part = &there[..there.len().min(left)];
            if let Some(to) = &mut pipe
                && to.write_all(part).await.is_err()
            {
                // Nobody reads it any more.
                pipe = None;
            }
            left -= part.len();
            let part = part.len();
            self.io.consume(part);
            self.activity.touch();
        }
        self.unacknowledged += length;
        if self.unacknowledged >= ACKNOWLEDGE {
            self.flow.consumed(0, std::mem::take(&mut self.unacknowledged));
        }
        if fin {
            drop(pipe);
            self.flow.received_all(stream);
        } else {
            self.flow.put_pipe(stream, pipe);
        }
        Ok(())
    }

    async fn control(&mut self, control: Control) -> Result<(), ReadError> {
        // An answer to a ping of ours is no use of the connection.
        if !matches!(control, Control::Ping { id } if id.is_multiple_of(2)) {
            self.activity.touch();
        }
        match control {
            Control::SynStream { stream, fin, unidirectional, headers } => {
                self.open(stream, fin, unidirectional, headers).await?;
            }
            Control::RstStream { stream } => self.flow.reset(stream),
            Control::Settings { initial_window: Some(size) } => self.flow.first_window(size)?,
            Control::Ping { id } => self.flow.ping(id),
            Control::GoAway => self.opened = None,
            Control::Headers { stream, fin: true } => self.flow.received_all(stream),
            Control::WindowUpdate { stream, delta } => self.flow.window_update(stream, delta)?,
            Control::Settings { .. } | Control::Headers { .. } | Control::Unknown => {}
        }
        Ok(())
    }

    async fn open(
        &mut self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), Broken> {
        let Some(inbound) = self.flow.open(id, fin, unidirectional)? else { return Ok(()) };
        let outbound = Outbound::new(id, self.out.clone(), Some(Arc::clone(&self.flow)));
        let ends = Some((inbound, outbound));
        let incoming = Incoming { id, headers, ends, flow: Arc::clone(&self.flow) };
        if let Some(opened) = &self.opened {
            // When nobody takes streams any more, it comes back and is refused.
            let _refused = opened.send(incoming).await;
        }
        Ok(())
    }
}

/// Sends what waits, control frames first: the reply to a stream is one, and it comes before the stream's data.
async fn write<W: AsyncWrite + Unpin>(
    mut io: W,
    flow: &Flow,
    mut out: mpsc::Receiver<Out>,
    activity: &Activity,
    ping: Duration,
) -> io::Result<()> {
    loop {
        let next = tokio::select! {
            biased;
            () = flow.waiting() => None,
            next = out.recv() => Some(next.unwrap_or(Out::Goodbye)),
            () = sleep(ping) => {
                flow.send_ping();
                None
            }
        };
        let (mut control, failed) = flow.take();
        let last = failed || matches!(next, Some(Out::Goodbye));
        if last {
            frame::goaway(&mut control, flow.last_stream(), failed);
        }
        io.write_all(&control).await?;
        match next {
            Some(Out::Data { channel, bytes }) => {
                let head = frame::data(channel, false, bytes.len());
                io.write_all_buf(&mut bytes::Buf::chain(&head[..], bytes)).await?;
                activity.touch();
            }
            Some(Out::End(channel)) => {
                io.write_all(&frame::data(channel, true, 0)).await?;
                flow.sent_all(channel);
            }
            Some(Out::Goodbye) | None => {}
        }
        io.flush().await?;
        if last {
            io.shutdown().await?;
            let broken = || io::Error::from(io::ErrorKind::InvalidData);
            return if failed { Err(broken()) } else { Ok(()) };
        }
    }
}
