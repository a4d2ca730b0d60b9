//! One WebSocket connection: its messages are taken apart into channels, and what the channels send is put into messages.

use std::future::Future;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, copy_buf, sink, split};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use super::frame::{self, Event, NORMAL, ReadError, Reader};
use super::framing::{Framing, Meaning, Parser};
use crate::channel::{CHUNK, Inbound, OUT_QUEUE, Out, Outbound};
use crate::converse::{Activity, LINGER, Silence, converse};

/// What a session gets of a connection.
pub(crate) struct Channels {
    inbound: Vec<Option<Inbound>>,
    out: mpsc::Sender<Out>,
}

impl Channels {
    /// What the client sends on a channel. Each can be had once; of those that nobody takes, all is thrown away.
    pub(crate) fn inbound(&mut self, channel: u8) -> Option<Inbound> {
        self.inbound.get_mut(usize::from(channel))?.take()
    }

    /// What goes to the client on a channel.
    pub(crate) fn outbound(&self, channel: u8) -> Outbound {
        Outbound::new(u32::from(channel), self.out.clone(), None)
    }
}

/// What the reader wants the writer to say.
#[derive(Default)]
struct Signals {
    said: Mutex<Said>,
    changed: Notify,
}

#[derive(Default)]
struct Said {
    /// Only the newest ping is answered (section 5.5.3).
    pong: Option<Bytes>,
    close: Option<u16>,
}

impl Signals {
    fn pong(&self, payload: Bytes) {
        self.lock().pong = Some(payload);
        self.changed.notify_one();
    }

    fn close(&self, code: u16) {
        self.lock().close.get_or_insert(code);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves a connection of `count` channels: `session` gets them, and the connection ends with it.
pub(crate) async fn serve<S, F>(
    stream: S,
    framing: Framing,
    count: usize,
    silence: Silence,
    session: impl FnOnce(Channels) -> F,
) where
    S: AsyncRead + AsyncWrite,
    F: Future<Output = ()>,
{
    let (read_half, write_half) = split(stream);
    let activity = Activity::new();
    let signals = Signals::default();
    let (out, sending) = mpsc::channel(OUT_QUEUE);
    let (inbound, pipes): (Vec<_>, Vec<_>) = (0..count)
        .map(|channel| Inbound::new(channel as u32, None))
        .map(|(inbound, pipe)| (Some(inbound), Some(pipe)))
        .unzip();
    let reader = Demultiplexer {
        reader: Reader::new(BufReader::with_capacity(CHUNK, read_half)),
        parser: Parser::new(framing),
        pipes,
        signals: &signals,
        activity: &activity,
    };
    let writer = write(write_half, framing, sending, &signals, &activity, silence.ping);
    let channels = Channels { inbound, out: out.clone() };
    converse(reader.run(), writer, session(channels), out, &activity, silence.idle).await;
}

struct Demultiplexer<'a, R> {
    reader: Reader<BufReader<R>>,
    parser: Parser,
    /// By channel; none where the client has ended it or nobody reads.
    pipes: Vec<Option<DuplexStream>>,
    signals: &'a Signals,
    activity: &'a Activity,
}

impl<R: AsyncRead + Unpin> Demultiplexer<'_, R> {
    /// Reads until the client is gone.
    async fn run(mut self) {
        let code = match self.events().await {
            Ok(code) => code,
            Err(ReadError::Io(_)) => return,
            Err(ReadError::Broken(code, why)) => {
                tracing::debug!(why, "a WebSocket client broke the protocol");
                code
            }
        };
        self.signals.close(code);
        // The writer answers; then it is the client's turn to go.
        let _deaf = timeout(LINGER, copy_buf(&mut self.reader.into_inner(), &mut sink())).await;
    }

    /// Reads until the client closes; its code.
    async fn events(&mut self) -> Result<u16, ReadError> {
        loop {
            match self.reader.next().await? {
                Event::Piece { bytes, first, last } => {
                    self.activity.touch();
                    match self.parser.piece(bytes, first, last)? {
                        Meaning::Bytes { channel, bytes } => {
                            if let Some(slot) = self.pipes.get_mut(usize::from(channel))
                                && let Some(pipe) = slot
                                && pipe.write_all(bytes).await.is_err()
                            {
                                // Nobody reads it any more.
                                *slot = None;
                            }
                        }
                        Meaning::End { channel } => match self.pipes.get_mut(usize::from(channel)) {
                            Some(pipe) => *pipe = None,
                            None => {
                                return Err(ReadError::Broken(
                                    frame::PROTOCOL_ERROR,
                                    "the end of a channel that does not exist",
                                ));
                            }
                        },
                        Meaning::Nothing => {}
                    }
                }
                Event::Ping(payload) => {
                    self.activity.touch();
                    self.signals.pong(payload);
                }
                Event::Pong => {}
                Event::Close(code) => return Ok(code),
            }
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut io: W,
    framing: Framing,
    mut out: mpsc::Receiver<Out>,
    signals: &Signals,
    activity: &Activity,
    ping: Duration,
) -> io::Result<()> {
    loop {
        let mut control = BytesMut::new();
        let next = tokio::select! {
            biased;
            () = signals.changed.notified() => None,
            next = out.recv() => Some(next.unwrap_or(Out::Goodbye)),
            () = sleep(ping) => {
                frame::ping(&mut control);
                None
            }
        };
        let Said { pong, close } = std::mem::take(&mut *signals.lock());
        if let Some(payload) = pong {
            frame::pong(&mut control, &payload);
        }
        let last = close.is_some() || matches!(next, Some(Out::Goodbye));
        if last {
            frame::close(&mut control, close.unwrap_or(NORMAL));
        }
        io.write_all(&control).await?;
        match next {
            Some(Out::Data { channel, bytes }) if !last => {
                let (head, bytes) = framing.message(channel, bytes);
                io.write_all_buf(&mut head.chain(bytes)).await?;
                activity.touch();
            }
            // Only a client can end a channel.
            _ => {}
        }
        io.flush().await?;
        if last {
            io.shutdown().await?;
            let closed = || io::Error::from(io::ErrorKind::ConnectionAborted);
            return if close.is_some() { Err(closed()) } else { Ok(()) };
        }
    }
}
