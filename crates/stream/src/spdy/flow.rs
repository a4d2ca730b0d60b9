//! The streams of one SPDY connection: which are open in which direction, what may be sent on them, and the control frames that wait.
//!
//! SPDY/3.1 has a window per stream and one for the session. Go's spdystream, which is what nearly every client is built with, knows
//! neither: it sends no WINDOW_UPDATE and passes over ours, and would never let us send more than the first 64 KiB. So when a window is
//! used up for the first time and the client has shown no sign of counting, it is asked with a PING: one that counts has by its answer
//! sent a WINDOW_UPDATE for what it has read, and one that answers without does not count. Neither does one that sends more than it may:
//! its answer could wait behind what we cannot read for as long as we may not write.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::io::DuplexStream;
use tokio::sync::Notify;

use super::connection::MAX_STREAMS;
use super::frame::{self, Broken, MAX_31, Reset};
use super::headers::Deflater;
use crate::channel::{Gone, Inbound, WINDOW};

/// What either side may send before it hears of more (section 2.6.4 of the draft).
const FIRST_WINDOW: i64 = 64 * 1024;
/// What a client that counts may send on all streams together.
const SESSION_WINDOW: u32 = 1024 * 1024;
/// So many bytes of control frames may wait until no more is read.
const MAX_WAITING: usize = 64 * 1024;

/// The state that a connection's reader, writer and streams share.
pub(crate) struct Flow {
    state: Mutex<State>,
    /// A window has grown or a stream is gone.
    windows: Notify,
    /// Control frames wait.
    waiting: Notify,
    /// They were taken.
    taken: Notify,
}

struct State {
    streams: HashMap<u32, Stream>,
    session_window: i64,
    first_window: i64,
    peer: Peer,
    control: BytesMut,
    deflater: Deflater,
    next_ping: u32,
    last_stream: u32,
    failed: bool,
}

/// Whether the client does flow control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Unknown,
    /// With the ping of this identifier.
    Asked(u32),
    Counts,
    DoesNot,
}

struct Stream {
    window: i64,
    /// What the client may still send, if it counts.
    granted: i64,
    /// Where the reader puts what comes; it holds it while it does.
    pipe: Option<DuplexStream>,
    /// The client may still send.
    receiving: bool,
    /// Somebody reads what it sends.
    read: bool,
    /// We may still send.
    sending: bool,
}

impl Flow {
    /// The state of a new connection, with what is said first on it.
    pub(crate) fn new() -> Flow {
        let mut control = BytesMut::new();
        frame::settings_window(&mut control, WINDOW as u32);
        frame::window_update(&mut control, 0, SESSION_WINDOW - FIRST_WINDOW as u32);
        let state = State {
            streams: HashMap::new(),
            session_window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            peer: Peer::Unknown,
            control,
            deflater: Deflater::default(),
            next_ping: 2,
            last_stream: 0,
            failed: false,
        };
        let flow = Flow {
            state: Mutex::new(state),
            windows: Notify::new(),
            waiting: Notify::new(),
            taken: Notify::new(),
        };
        flow.waiting.notify_one();
        flow
    }

    /// A stream that the client opens; none when there are too many, and it was told so.
    pub(crate) fn open(
        self: &Arc<Flow>,
        id: u32,
        fin: bool,
        unidirectional: bool,
    ) -> Result<Option<Inbound>, Broken> {
        let mut state = self.lock();
        if id.is_multiple_of(2) || id <= state.last_stream {
            return Err(Broken::Identifier(id));
        }
        state.last_stream = id;
        if state.streams.len() >= MAX_STREAMS {
            self.queue(state, |control| frame::rst_stream(control, id, Reset::Refused));
            return Ok(None);
        }
        let (inbound, pipe) = Inbound::new(id, Some(Arc::clone(self)));
        let window = state.first_window;
        let pipe = (!fin).then_some(pipe);
        let granted = WINDOW as i64;
        let stream = Stream { window, granted, pipe, receiving: !fin, read: true, sending: !unidirectional };
        state.streams.insert(id, stream);
        Ok(Some(inbound))
    }

    /// Takes a stream.
    pub(crate) fn reply(&self, id: u32) {
        let mut state = self.lock();
        let block = state.deflater.empty();
        self.queue(state, |control| frame::syn_reply(control, id, &block));
    }

    /// Ends a stream without having taken it.
    pub(crate) fn refuse(&self, id: u32) {
        let mut state = self.lock();
        if state.streams.remove(&id).is_some() {
            self.queue(state, |control| frame::rst_stream(control, id, Reset::Refused));
        }
    }

    /// Whether a stream is there in any direction.
    pub(crate) fn is_open(&self, id: u32) -> bool {
        self.lock().streams.contains_key(&id)
    }

    /// Where to put the `length` bytes that come on a stream; none if nobody wants them.
    pub(crate) fn take_pipe(&self, id: u32, length: usize) -> Option<DuplexStream> {
        let mut state = self.lock();
        let stream = state.streams.get_mut(&id)?;
        let pipe = stream.pipe.take();
        stream.granted -= length as i64;
        if stream.granted < 0 && matches!(state.peer, Peer::Unknown | Peer::Asked(_)) {
            state.peer = Peer::DoesNot;
            drop(state);
            self.windows.notify_waiters();
        }
        pipe
    }

    /// Gives back what was taken, unless the client ended its direction.
    pub(crate) fn put_pipe(&self, id: u32, pipe: Option<DuplexStream>) {
        if let Some(stream) = self.lock().streams.get_mut(&id) {
            stream.pipe = pipe;
        }
    }

    /// The client sends no more on a stream.
    pub(crate) fn received_all(&self, id: u32) {
        let mut state = self.lock();
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.receiving = false;
            stream.pipe = None;
        }
        self.settle(state, id);
    }

    /// Nobody reads any more what comes on a stream.
    pub(crate) fn unread(&self, id: u32) {
        let mut state = self.lock();
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.read = false;
        }
        self.settle(state, id);
    }

    /// All was sent on a stream.
    pub(crate) fn sent_all(&self, id: u32) {
        let mut state = self.lock();
        if let Some(stream) = state.streams.get_mut(&id) {
            stream.sending = false;
        }
        self.settle(state, id);
    }

    /// Forgets a stream that is over in both directions. A client that could still send to nobody is told.
    fn settle(&self, mut state: MutexGuard<'_, State>, id: u32) {
        let Some(stream) = state.streams.get(&id) else { return };
        let receiving = stream.receiving;
        if stream.sending || (receiving && stream.read) {
            return;
        }
        state.streams.remove(&id);
        if receiving {
            self.queue(state, |control| frame::rst_stream(control, id, Reset::Cancel));
        }
    }

    /// The client gave a stream up.
    pub(crate) fn reset(&self, id: u32) {
        // Outside of the lock: what is dropped may wake a reader.
        let gone = self.lock().streams.remove(&id);
        drop(gone);
        self.windows.notify_waiters();
    }

    /// As much of `want` as may be sent on a stream now, and at least one byte: it waits for that.
    ///
    /// # Errors
    /// The stream is gone.
    pub(crate) async fn reserve(&self, id: u32, want: usize) -> Result<usize, Gone> {
        loop {
            let mut changed = pin!(self.windows.notified());
            changed.as_mut().enable();
            if let Some(room) = self.try_reserve(id, want)? {
                return Ok(room);
            }
            changed.await;
        }
    }

    fn try_reserve(&self, id: u32, want: usize) -> Result<Option<usize>, Gone> {
        let mut state = self.lock();
        let session = state.session_window;
        let counts = state.peer != Peer::DoesNot;
        let stream = state.streams.get_mut(&id).filter(|stream| stream.sending).ok_or(Gone)?;
        let want = want as i64;
        let room = if counts { stream.window.min(session).min(want) } else { want };
        if room > 0 {
            stream.window -= room;
            state.session_window -= room;
            return Ok(Some(room as usize));
        }
        if state.peer == Peer::Unknown {
            let id = next_ping(&mut state);
            state.peer = Peer::Asked(id);
            self.queue(state, |control| frame::ping(control, id));
        }
        Ok(None)
    }

    /// The client may get more, on one stream or (0) on all together.
    pub(crate) fn window_update(&self, id: u32, delta: u32) -> Result<(), Broken> {
        let mut state = self.lock();
        state.peer = Peer::Counts;
        if id == 0 {
            state.session_window += i64::from(delta);
            if state.session_window > i64::from(MAX_31) {
                return Err(Broken::Window);
            }
        } else if let Some(stream) = state.streams.get_mut(&id) {
            stream.window += i64::from(delta);
            if stream.window > i64::from(MAX_31) {
                let gone = state.streams.remove(&id);
                self.queue(state, |control| frame::rst_stream(control, id, Reset::FlowControl));
                drop(gone);
            }
        }
        self.windows.notify_waiters();
        Ok(())
    }

    /// What every stream begins with, the open ones included.
    pub(crate) fn first_window(&self, size: u32) -> Result<(), Broken> {
        let size = if size <= MAX_31 { i64::from(size) } else { return Err(Broken::Window) };
        let mut state = self.lock();
        state.peer = Peer::Counts;
        let change = size - state.first_window;
        state.first_window = size;
        state.streams.values_mut().for_each(|stream| stream.window += change);
        drop(state);
        self.windows.notify_waiters();
        Ok(())
    }

    /// A ping came: the client's is answered, an answer to ours may tell something.
    pub(crate) fn ping(&self, id: u32) {
        let mut state = self.lock();
        if !id.is_multiple_of(2) {
            self.queue(state, |control| frame::ping(control, id));
        } else if state.peer == Peer::Asked(id) {
            state.peer = Peer::DoesNot;
            drop(state);
            self.windows.notify_waiters();
        }
    }

    /// Sends a ping of ours.
    pub(crate) fn send_ping(&self) {
        let mut state = self.lock();
        let id = next_ping(&mut state);
        self.queue(state, |control| frame::ping(control, id));
    }

    /// So much was read of what came, on one stream or (0) on all together: the client may send as much again.
    pub(crate) fn consumed(&self, id: u32, count: usize) {
        let mut state = self.lock();
        let stream = state.streams.get_mut(&id).filter(|stream| stream.receiving);
        let open = stream.is_some();
        if let Some(stream) = stream {
            stream.granted += count as i64;
        }
        if id == 0 || open {
            self.queue(state, |control| frame::window_update(control, id, count as u32));
        }
    }

    /// The client broke the rules: the writer says so and ends.
    pub(crate) fn fail(&self) {
        self.lock().failed = true;
        self.waiting.notify_one();
    }

    /// Waits until there are control frames to send.
    pub(crate) async fn waiting(&self) {
        self.waiting.notified().await;
    }

    /// Waits until not too many control frames wait, so that a client which does not read what it causes is not read either.
    pub(crate) async fn room(&self) {
        while self.lock().control.len() > MAX_WAITING {
            self.taken.notified().await;
        }
    }

    /// The control frames that wait, and whether the connection has failed.
    pub(crate) fn take(&self) -> (BytesMut, bool) {
        let mut state = self.lock();
        let taken = (std::mem::take(&mut state.control), state.failed);
        drop(state);
        self.taken.notify_one();
        taken
    }

    /// The last stream that the client opened.
    pub(crate) fn last_stream(&self) -> u32 {
        self.lock().last_stream
    }

    fn queue(&self, mut state: MutexGuard<'_, State>, encode: impl FnOnce(&mut BytesMut)) {
        encode(&mut state.control);
        self.waiting.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server's are even.
fn next_ping(state: &mut State) -> u32 {
    let id = state.next_ping;
    state.next_ping = if id >= MAX_31 - 1 { 2 } else { id + 2 };
    id
}
