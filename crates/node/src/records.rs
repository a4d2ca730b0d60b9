//! The rows of pods and containers in the store. A commit here survives the death of the daemon; a power cut ends the pods anyway.

use std::collections::HashSet;
use std::sync::Arc;

use model::id::{ContainerId, PodId};
use model::time::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use store::rusqlite::{self, params};
use store::{Durability, Store, StoreError};

use crate::record::{ContainerFacts, ContainerRecord, ContainerState, PodRecord, PodState};

/// Everything the store knows of pods, as read at start.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) pods: Vec<PodRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
    /// Pods that were being made.
    pub(crate) unfinished_pods: Vec<PodId>,
    /// Containers that were being made.
    pub(crate) unfinished_containers: Vec<(PodId, ContainerId)>,
    /// Rows that could not be read, each with the reason. They stay where they are.
    pub(crate) unreadable: Vec<String>,
}

/// The pod and container tables.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    store: Arc<Store>,
}

impl Records {
    pub(crate) fn new(store: Arc<Store>) -> Records {
        Records { store }
    }

    /// Records that a pod is about to be made. Its name is taken from here on.
    pub(crate) async fn intend_pod(
        &self,
        id: &PodId,
        request: &model::request::PodRequest,
        created_at: Timestamp,
    ) -> Result<(), StoreError> {
        let (id, name, request) = (id.clone(), request.name.clone(), json(request));
        self.write(move |db| {
            // Of one whose making failed while not even that could be recorded.
            db.prepare_cached(
                "DELETE FROM pods WHERE namespace = ?1 AND name = ?2 AND uid = ?3 AND attempt = ?4 AND state IS NULL",
            )?
            .execute(params![name.namespace, name.name, name.uid, name.attempt])?;
            db.prepare_cached(
                "INSERT INTO pods (id, namespace, name, uid, attempt, created_at, request) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                id.as_str(),
                name.namespace,
                name.name,
                name.uid,
                name.attempt,
                created_at.nanoseconds(),
                request
            ])
            .map(drop)
        })
        .await
    }

    /// Settles a pod's state, the first time or again.
    pub(crate) async fn settle_pod(&self, id: &PodId, state: &PodState) -> Result<(), StoreError> {
        let (id, state) = (id.clone(), json(state));
        self.let_go(move |db| {
            db.prepare_cached("UPDATE pods SET state = ?2 WHERE id = ?1")?
                .execute(params![id.as_str(), state])
                .map(drop)
        })
        .await
    }

    /// Forgets a pod and its containers.
    pub(crate) async fn forget_pod(&self, id: &PodId) -> Result<(), StoreError> {
        let id = id.clone();
        self.let_go(move |db| {
            db.prepare_cached("DELETE FROM pods WHERE id = ?1")?.execute(params![id.as_str()]).map(drop)
        })
        .await
    }

    /// Records that a container is about to be made.
    pub(crate) async fn intend_container(
        &self,
        id: &ContainerId,
        pod: &PodId,
        request: &model::request::ContainerRequest,
        created_at: Timestamp,
    ) -> Result<(), StoreError> {
        let (id, pod) = (id.clone(), pod.clone());
        let (name, attempt, request) = (request.name.clone(), request.attempt, json(request));
        self.write(move |db| {
            db.prepare_cached(
                "DELETE FROM containers WHERE pod = ?1 AND name = ?2 AND attempt = ?3 AND state IS NULL",
            )?
            .execute(params![pod.as_str(), name, attempt])?;
            db.prepare_cached(
                "INSERT INTO containers (id, pod, name, attempt, created_at, request) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![id.as_str(), pod.as_str(), name, attempt, created_at.nanoseconds(), request])
            .map(drop)
        })
        .await
    }

    /// Settles what a container is, once it is made.
    pub(crate) async fn settle_container(&self, record: &ContainerRecord) -> Result<(), StoreError> {
        let (id, facts, state) = (record.id.clone(), json(&*record.facts), json(&record.state));
        self.write(move |db| {
            db.prepare_cached("UPDATE containers SET facts = ?2, state = ?3 WHERE id = ?1")?
                .execute(params![id.as_str(), facts, state])
                .map(drop)
        })
        .await
    }

    /// Records a container's next state.
    pub(crate) async fn advance_container(
        &self,
        id: &ContainerId,
        state: &ContainerState,
    ) -> Result<(), StoreError> {
        let (id, state) = (id.clone(), json(state));
        self.let_go(move |db| {
            db.prepare_cached("UPDATE containers SET state = ?2 WHERE id = ?1")?
                .execute(params![id.as_str(), state])
                .map(drop)
        })
        .await
    }

    /// Forgets a container.
    pub(crate) async fn forget_container(&self, id: &ContainerId) -> Result<(), StoreError> {
        let id = id.clone();
        self.let_go(move |db| {
            db.prepare_cached("DELETE FROM containers WHERE id = ?1")?.execute(params![id.as_str()]).map(drop)
        })
        .await
    }

    /// The ids of all containers, also of those that are being made or taken down. It waits for the database.
    pub(crate) fn container_ids(&self) -> Result<HashSet<String>, StoreError> {
        self.store.read(|db| {
            db.prepare_cached("SELECT id FROM containers")?.query_map([], |row| row.get(0))?.collect()
        })
    }

    /// Reads everything; what cannot be read is reported, left in place, and keeps nothing else from being read.
    pub(crate) async fn load(&self) -> Result<Loaded, StoreError> {
        let store = self.store.clone();
        on_a_blocking_thread(move || {
            store.read(|db| {
                let mut loaded = Loaded::default();
                load_pods(db, &mut loaded)?;
                load_containers(db, &mut loaded)?;
                Ok(loaded)
            })
        })
        .await
    }

    async fn write(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let store = self.store.clone();
        on_a_blocking_thread(move || store.write(Durability::Process, |db| change(db))).await
    }

    /// As `write`, for what has to be recorded on a full disk too: the end of something.
    async fn let_go(
        &self,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), StoreError> {
        let store = self.store.clone();
        on_a_blocking_thread(move || store.let_go(Durability::Process, |db| change(db))).await
    }
}

/// SQLite may wait for the disk, so it never runs on a thread that others' calls need.
async fn on_a_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("records have only string keys")
}

fn load_pods(db: &rusqlite::Connection, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut query = db.prepare("SELECT id, created_at, request, state FROM pods")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, created_at): (String, i64) = (row.get(0)?, row.get(1)?);
        let (request, state): (String, Option<String>) = (row.get(2)?, row.get(3)?);
        let Ok(id) = PodId::parse(&id) else {
            loaded.unreadable.push(format!("pod row with the odd id {id:?}"));
            continue;
        };
        let Some(state) = state else {
            loaded.unfinished_pods.push(id);
            continue;
        };
        match (parse(&request), parse(&state)) {
            (Ok(request), Ok(state)) => loaded.pods.push(PodRecord {
                id,
                request: Arc::new(request),
                created_at: Timestamp(created_at),
                state,
            }),
            (Err(why), _) | (_, Err(why)) => loaded.unreadable.push(format!("pod {id}: {why}")),
        }
    }
    Ok(())
}

fn load_containers(db: &rusqlite::Connection, loaded: &mut Loaded) -> rusqlite::Result<()> {
    let mut query = db.prepare("SELECT id, pod, created_at, request, facts, state FROM containers")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, pod): (String, String) = (row.get(0)?, row.get(1)?);
        let created_at: i64 = row.get(2)?;
        let request: String = row.get(3)?;
        let (facts, state): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
        let (Ok(id), Ok(pod)) = (ContainerId::parse(&id), PodId::parse(&pod)) else {
            loaded.unreadable.push(format!("container row with the odd id {id:?}"));
            continue;
        };
        let (Some(facts), Some(state)) = (facts, state) else {
            loaded.unfinished_containers.push((pod, id));
            continue;
        };
        let read = || -> Result<ContainerRecord, serde_json::Error> {
            Ok(ContainerRecord {
                id: id.clone(),
                pod: pod.clone(),
                request: Arc::new(parse(&request)?),
                created_at: Timestamp(created_at),
                facts: Arc::new(parse::<ContainerFacts>(&facts)?),
                state: parse(&state)?,
            })
        };
        match read() {
            Ok(record) => loaded.containers.push(record),
            Err(why) => loaded.unreadable.push(format!("container {id}: {why}")),
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}
