//! What every List and Status call reads: one immutable picture of the node, replaced whole, so that reading waits for nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use model::id::{ContainerId, PodId};

use crate::events::{Audience, EventKind, Events, Subject};
use crate::record::{ContainerRecord, PodRecord};

/// All pods and containers at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub pods: BTreeMap<PodId, Arc<PodRecord>>,
    pub containers: BTreeMap<ContainerId, Arc<ContainerRecord>>,
}

/// Why a text names no single pod or container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("there is no {what} {given:?}")]
    Absent { what: &'static str, given: String },
    #[error("{given:?} is the beginning of {matches} {what} ids: give more digits")]
    Ambiguous { what: &'static str, given: String, matches: usize },
}

impl Snapshot {
    /// The pod with this id, or the only one whose id begins so.
    pub fn pod(&self, given: &str) -> Result<&Arc<PodRecord>, LookupError> {
        if let Some(found) = PodId::parse(given).ok().and_then(|id| self.pods.get(&id)) {
            return Ok(found);
        }
        by_prefix("pod", given, &self.pods, PodId::as_str)
    }

    /// The container with this id, or the only one whose id begins so.
    pub fn container(&self, given: &str) -> Result<&Arc<ContainerRecord>, LookupError> {
        if let Some(found) = ContainerId::parse(given).ok().and_then(|id| self.containers.get(&id)) {
            return Ok(found);
        }
        by_prefix("container", given, &self.containers, ContainerId::as_str)
    }

    /// The containers of a pod, in the order of their ids.
    pub fn containers_of<'a>(&'a self, pod: &'a PodId) -> impl Iterator<Item = &'a Arc<ContainerRecord>> {
        self.containers.values().filter(move |container| container.pod == *pod)
    }
}

fn by_prefix<'a, Id: Ord, T>(
    what: &'static str,
    given: &str,
    all: &'a BTreeMap<Id, T>,
    text: impl Fn(&Id) -> &str,
) -> Result<&'a T, LookupError> {
    let quoted = || given.chars().take(model::id::ID_DIGITS).collect::<String>();
    if given.is_empty() || given.len() > model::id::ID_DIGITS {
        return Err(LookupError::Absent { what, given: quoted() });
    }
    let mut matching = all.iter().filter(|(id, _)| text(id).starts_with(given));
    match (matching.next(), matching.count()) {
        (None, _) => Err(LookupError::Absent { what, given: quoted() }),
        (Some((_, found)), 0) => Ok(found),
        (Some(_), more) => Err(LookupError::Ambiguous { what, given: quoted(), matches: more + 1 }),
    }
}

/// The present [`Snapshot`], and whom to tell of what changes in it. Readers load it without a lock; the pods' actors replace it.
#[derive(Debug, Default)]
pub(crate) struct Published {
    now: ArcSwap<Snapshot>,
    /// Held while the snapshot is replaced, so that events are in the order of the snapshots.
    audience: Mutex<Audience>,
}

impl Published {
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.now.load_full()
    }

    pub(crate) fn subscribe(&self) -> Events {
        self.audience().subscribe()
    }

    pub(crate) fn close(&self) {
        self.audience().close();
    }

    /// Shows a pod, and tells what has happened to it.
    pub(crate) fn put_pod(&self, record: &Arc<PodRecord>, steps: &[EventKind]) {
        self.change(record, steps, Subject::Pod(record.id.clone()), |snapshot| {
            snapshot.pods.insert(record.id.clone(), record.clone());
        });
    }

    /// Shows a container of `pod`, and tells what has happened to it.
    pub(crate) fn put_container(
        &self,
        pod: &Arc<PodRecord>,
        record: &Arc<ContainerRecord>,
        steps: &[EventKind],
    ) {
        self.change(pod, steps, Subject::Container(record.id.clone()), |snapshot| {
            snapshot.containers.insert(record.id.clone(), record.clone());
        });
    }

    /// Shows a container no more.
    pub(crate) fn remove_container(&self, pod: &Arc<PodRecord>, id: &ContainerId) {
        self.change(pod, &[EventKind::Deleted], Subject::Container(id.clone()), |snapshot| {
            snapshot.containers.remove(id);
        });
    }

    /// Shows a pod no more.
    pub(crate) fn remove_pod(&self, pod: &Arc<PodRecord>) {
        self.change(pod, &[EventKind::Deleted], Subject::Pod(pod.id.clone()), |snapshot| {
            snapshot.pods.remove(&pod.id);
            snapshot.containers.retain(|_, container| container.pod != pod.id);
        });
    }

    fn change(
        &self,
        pod: &Arc<PodRecord>,
        steps: &[EventKind],
        subject: Subject,
        change: impl FnOnce(&mut Snapshot),
    ) {
        let mut audience = self.audience();
        let mut next = Snapshot::clone(&self.now.load());
        change(&mut next);
        let next = Arc::new(next);
        self.now.store(next.clone());
        for step in steps {
            audience.tell(*step, subject.clone(), &next, pod);
        }
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
