//! What happens to pods and containers, told to whoever subscribes: in the order of the records, and without waiting for a slow reader.
//!
//! An event is made within the step that publishes the change it tells of, so that the order of events is that of what lists show, and what
//! an event carries is of that very moment. Each subscriber has a queue of its own. One that does not read its queue is ended when the
//! queue is full, with an error after the events that were in it, and has to list anew: that costs nobody else anything, and nothing is
//! left out unsaid. While nobody subscribes, the latest events are kept for whoever comes next: the exits that a new daemon finds at its
//! start happen before a client can have subscribed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use model::container::Container;
use model::id::{ContainerId, PodId};
use model::time::Timestamp;
use tokio::sync::mpsc;

use crate::record::{ContainerRecord, PodRecord};
use crate::snapshot::Snapshot;

/// How many events a reader may be behind before it is ended, and how many are kept while there is none. A full node starts and stops
/// with a quarter of it.
pub const QUEUE: usize = 4096;

/// How old events may be that the first subscriber gets.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// One step in the life of a pod or a container.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: EventKind,
    pub subject: Subject,
    pub at: Timestamp,
    /// The pod as it was after this step; of a removed one, as it was last.
    pub pod: Arc<PodRecord>,
    /// All containers that the pod had after this step.
    pub containers: Vec<Arc<ContainerRecord>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Created,
    Started,
    /// It ended; told again where more has become known of its end.
    Stopped,
    Deleted,
}

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Pod(PodId),
    Container(ContainerId),
}

impl Subject {
    pub fn as_str(&self) -> &str {
        match self {
            Subject::Pod(id) => id.as_str(),
            Subject::Container(id) => id.as_str(),
        }
    }
}

/// What is told of a container whose life went on from `before` to `now`.
///
/// One that ended before anybody heard that it had started is said to have done both.
pub(crate) fn steps(before: &Container, now: &Container) -> &'static [EventKind] {
    use EventKind::{Started, Stopped};
    match (before, now) {
        _ if before == now => &[],
        (Container::Created { .. }, Container::Exited { started_at, .. })
            if *started_at > Timestamp::NEVER =>
        {
            &[Started, Stopped]
        }
        (_, Container::Running { .. }) => &[Started],
        (_, Container::Exited { .. }) => &[Stopped],
        (_, Container::Created { .. } | Container::Unreadable { .. }) => &[],
    }
}

/// A subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Events {
    queue: mpsc::Receiver<Arc<Event>>,
    lagged: Arc<AtomicBool>,
}

/// The reader was too slow, and what happened since is not in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this reader of events was {QUEUE} events behind and has missed the next: list anew, and subscribe again"
)]
pub struct Lagged;

impl Events {
    /// The next event; `None` when the daemon ends, or behind the error that is the last.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Arc<Event>, Lagged>>> {
        self.queue.poll_recv(context).map(|next| match next {
            Some(event) => Some(Ok(event)),
            None => self.lagged.swap(false, Ordering::AcqRel).then_some(Err(Lagged)),
        })
    }

    /// As [`Events::poll_next`].
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, Lagged>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }
}

/// Everybody who is told.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    subscribers: Vec<Subscriber>,
    /// For the first subscriber; the oldest in front.
    kept: VecDeque<Arc<Event>>,
    last: Timestamp,
    closed: bool,
}

#[derive(Debug)]
struct Subscriber {
    queue: mpsc::Sender<Arc<Event>>,
    lagged: Arc<AtomicBool>,
}

impl Audience {
    pub(crate) fn subscribe(&mut self) -> Events {
        let (queue, events) = mpsc::channel(QUEUE);
        let lagged = Arc::new(AtomicBool::new(false));
        if !self.closed {
            let oldest =
                crate::clock::now().nanoseconds().saturating_sub_unsigned(KEPT_FOR.as_nanos() as u64);
            for event in self.kept.drain(..).filter(|event| event.at.nanoseconds() >= oldest) {
                // As many are kept as the queue holds.
                let _ = queue.try_send(event);
            }
            self.subscribers.push(Subscriber { queue, lagged: lagged.clone() });
        }
        Events { queue: events, lagged }
    }

    /// Ends every subscription, and those that are still to come.
    pub(crate) fn close(&mut self) {
        *self = Audience { closed: true, ..Audience::default() };
    }

    /// Tells of a step. `pod` is the pod's record where the snapshot after the step has it no more.
    pub(crate) fn tell(&mut self, kind: EventKind, subject: Subject, after: &Snapshot, pod: &Arc<PodRecord>) {
        if self.closed {
            return;
        }
        // The clock may be set back; the order of events is not.
        self.last = self.last.max(crate::clock::now());
        let event = Arc::new(Event {
            kind,
            subject,
            at: self.last,
            containers: after.containers_of(&pod.id).cloned().collect(),
            pod: after.pods.get(&pod.id).unwrap_or(pod).clone(),
        });
        self.subscribers.retain(|subscriber| match subscriber.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                subscriber.lagged.store(true, Ordering::Release);
                tracing::warn!(behind = QUEUE, "a reader of events is too slow and is ended");
                false
            }
        });
        if self.subscribers.is_empty() {
            if self.kept.len() == QUEUE {
                self.kept.pop_front();
            }
            self.kept.push_back(event);
        }
    }
}

#[cfg(test)]
mod tests;
