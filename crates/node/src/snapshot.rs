//! What every List and Status call reads: one immutable picture of the node, replaced whole, so that reading waits for nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use model::id::{ContainerId, PodId};

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

/// The present [`Snapshot`]. Readers load it without a lock; the pods' actors replace it.
#[derive(Debug, Default)]
pub(crate) struct Published(ArcSwap<Snapshot>);

impl Published {
    pub(crate) fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub(crate) fn change(&self, change: impl Fn(&mut Snapshot)) {
        self.0.rcu(|now| {
            let mut next = Snapshot::clone(now);
            change(&mut next);
            next
        });
    }

    pub(crate) fn put_pod(&self, record: Arc<PodRecord>) {
        self.change(|snapshot| {
            snapshot.pods.insert(record.id.clone(), record.clone());
        });
    }

    pub(crate) fn put_container(&self, record: Arc<ContainerRecord>) {
        self.change(|snapshot| {
            snapshot.containers.insert(record.id.clone(), record.clone());
        });
    }
}
