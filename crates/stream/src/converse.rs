//! How a connection lives: its reading, its writing and what it is for go on at the same time, and end together.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::channel::Out;

/// So long a client is listened to after all was said: closing while something of it is unread would make its system throw away what we
/// said last.
pub(crate) const LINGER: Duration = Duration::from_secs(10);

/// How long a connection may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    /// Until it is closed.
    pub(crate) idle: Duration,
    /// Until we send a ping.
    pub(crate) ping: Duration,
}

/// When something last moved on a connection.
pub(crate) struct Activity {
    start: Instant,
    /// In milliseconds after the start.
    last: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Activity {
        Activity { start: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(crate) fn touch(&self) {
        self.last.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends when nothing has moved for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            sleep_until(self.start + Duration::from_millis(last) + limit).await;
            if self.last.load(Ordering::Relaxed) == last {
                return;
            }
        }
    }
}

/// Runs a connection to its end. `reader` ends when the client is gone; `writer` ends well after [`Out::Goodbye`], which is said when
/// `session` has ended, and fails when there is nobody to write to: then the session is dropped.
pub(crate) async fn converse(
    reader: impl Future<Output = ()>,
    writer: impl Future<Output = io::Result<()>>,
    session: impl Future<Output = ()>,
    out: mpsc::Sender<Out>,
    activity: &Activity,
    idle: Duration,
) {
    let mut reader = pin!(reader);
    let session = async {
        session.await;
        let _gone = out.send(Out::Goodbye).await;
        Ok(())
    };
    let talk = async { tokio::try_join!(writer, session).map(|_| ()) };
    tokio::select! {
        _said = talk => {
            let _silent = timeout(LINGER, reader).await;
        }
        () = &mut reader => {}
        () = activity.idle(idle) => tracing::debug!("an idle streaming connection is closed"),
    }
}
