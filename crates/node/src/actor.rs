//! The one task that owns a pod: it decides what may begin, begins it, and is the only writer of the pod's and its containers' records.
//!
//! Work that takes time runs as an [`Operation`] beside it, so the actor always answers. What an operation finds out comes back as a
//! [`Fact`], which the actor records durably, then publishes, then lets the operation go on.

mod checkpointing;
mod command;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use model::container::{self, Container};
use model::exit::Exit;
use model::id::{ContainerId, PodId};
use model::pod::{self, Pod, Verdict};
use model::request::{ContainerRequest, PidNamespace};
use model::time::Timestamp;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tracing::{Instrument, info, warn};

use command::Told;
pub(crate) use command::{Command, Fact};

use crate::context::Context;
use crate::error::*;
use crate::events::{self, EventKind};
use crate::join::Operation;
use crate::pod_shim::PodShim;
use crate::record::{ContainerRecord, ContainerState, PodRecord, PodState};
use crate::slot::{Slot, exit_of};
use crate::stop_container::StopOrder;
use crate::{
    checkpoint, create_container, remove_container, remove_pod, start_container, stop_container, stop_pod,
};

/// A finished operation's answer: failures are shared by everybody who waits.
pub(crate) type Answer<T, E> = Result<T, Shared<E>>;
pub(crate) type Reply<T, E> = oneshot::Sender<Operation<Answer<T, E>>>;

/// How everybody else reaches an actor.
#[derive(Debug, Clone)]
pub(crate) struct PodHandle {
    commands: mpsc::Sender<Told<Command>>,
    pub(crate) facts: Facts,
    pub(crate) shim: watch::Receiver<Option<PodShim>>,
    /// Held by whoever changes limits of the pod or of its containers: the next change begins with what this one leaves.
    pub(crate) limits: Arc<Mutex<()>>,
}

impl PodHandle {
    /// Hands in a command; `None` where the pod is gone. What it begins belongs to the present span.
    pub(crate) async fn command(&self, command: Command) -> Option<()> {
        self.commands.send(Told::here(command)).await.ok()
    }
}

/// How the teller of a fact hears that it is recorded.
type Recorded = oneshot::Sender<Result<(), Arc<store::StoreError>>>;

/// Tells the actor what was found out.
#[derive(Debug, Clone)]
pub(crate) struct Facts(mpsc::Sender<Told<(Fact, Recorded)>>);

impl Facts {
    /// Has `fact` recorded and published.
    pub(crate) async fn tell(&self, fact: Fact) -> Result<(), Fault> {
        let (recorded, done) = oneshot::channel();
        self.0.send(Told::here((fact, recorded))).await.map_err(|_| Fault::Vanished)?;
        match done.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(Fault::Record(why)),
            Err(_) => Err(Fault::Vanished),
        }
    }
}

#[derive(Debug)]
struct Creating {
    request: Arc<ContainerRequest>,
    id: ContainerId,
    operation: Operation<Answer<ContainerId, CreateContainerError>>,
}

pub(crate) struct Actor {
    context: Arc<Context>,
    record: Arc<PodRecord>,
    facts: Facts,
    shim: watch::Sender<Option<PodShim>>,
    slots: HashMap<ContainerId, Slot>,
    creating: Vec<Creating>,
    checkpointing: Option<Operation<Answer<(), CheckpointError>>>,
    stopping: Option<Operation<Answer<(), StopPodError>>>,
    removing: Option<Operation<Answer<(), RemovePodError>>>,
    /// Plugins have been told that the pod stops.
    told: Arc<AtomicBool>,
}

/// How many commands wait at most before clients wait to hand theirs in.
const QUEUE: usize = 64;

enum Event {
    Command(Told<Command>),
    Fact(Told<(Fact, Recorded)>),
    Closed,
}

impl Actor {
    /// Begins the actor of a pod that stands (or stood): just made, or read from the store. The record is published already.
    pub(crate) fn begin(
        context: Arc<Context>,
        record: Arc<PodRecord>,
        containers: Vec<Arc<ContainerRecord>>,
        shim: Option<PodShim>,
    ) -> PodHandle {
        let (commands, commanded) = mpsc::channel(QUEUE);
        let (telling, told) = mpsc::channel(QUEUE);
        let (shim_sender, shim_receiver) = watch::channel(shim);
        let slots = containers.into_iter().map(|record| (record.id.clone(), Slot::new(record))).collect();
        let over = matches!(record.state.pod, Pod::Stopped { .. }) && !record.state.network_owed;
        let actor = Actor {
            context,
            record,
            facts: Facts(telling),
            shim: shim_sender,
            slots,
            creating: Vec::new(),
            checkpointing: None,
            stopping: None,
            removing: None,
            told: Arc::new(AtomicBool::new(over)),
        };
        let handle =
            PodHandle { commands, facts: actor.facts.clone(), shim: shim_receiver, limits: Arc::default() };
        tokio::spawn(actor.run(commanded, told));
        handle
    }

    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Told<Command>>,
        mut facts: mpsc::Receiver<Told<(Fact, Recorded)>>,
    ) {
        loop {
            let event = tokio::select! {
                // Facts first: a command should be judged by what is known already.
                biased;
                told = facts.recv() => told.map_or(Event::Closed, Event::Fact),
                told = commands.recv() => told.map_or(Event::Closed, Event::Command),
            };
            match event {
                Event::Command(Told { what, span }) => span.in_scope(|| self.command(what)),
                Event::Fact(Told { what: (Fact::PodGone, recorded), span }) => {
                    let result = self.end().instrument(span).await;
                    let gone = result.is_ok();
                    let _ = recorded.send(result.map_err(Arc::new));
                    if gone {
                        return;
                    }
                }
                Event::Fact(Told { what: (fact, recorded), span }) => {
                    let result = self.learn(fact).instrument(span).await;
                    let _ = recorded.send(result.map_err(Arc::new));
                }
                Event::Closed => return,
            }
        }
    }

    /// Takes the pod out of the records and of everything that is read.
    async fn end(&self) -> Result<(), store::StoreError> {
        self.context.records.forget_pod(&self.record.id).await?;
        self.context.forget(&self.record);
        info!(pod = %self.record.id, name = %self.record.request.name, "pod removed");
        Ok(())
    }

    fn command(&mut self, command: Command) {
        // A reply that nobody waits for any more is no failure: the operation goes on.
        match command {
            Command::CreateContainer { request, restore, reply } => {
                drop(reply.send(self.create(*request, restore)));
            }
            Command::Checkpoint { containers, target, deadline, reply } => {
                drop(reply.send(self.checkpoint(&containers, target, deadline)));
            }
            Command::StartContainer { id, reply } => drop(reply.send(self.start(&id))),
            Command::StopContainer { id, timeout, reply } => drop(reply.send(self.stop(&id, timeout))),
            Command::RemoveContainer { id, reply } => drop(reply.send(self.remove(&id))),
            Command::Ended { id, reply } => {
                drop(reply.send(self.slots.get(&id).map(|slot| slot.ended.subscribe())));
            }
            Command::StopPod { reply } => drop(reply.send(self.stop_pod())),
            Command::RemovePod { reply } => drop(reply.send(self.remove_pod())),
        }
    }

    fn create(
        &mut self,
        request: ContainerRequest,
        restore: Option<Box<checkpoint::RestoreFrom>>,
    ) -> Operation<Answer<ContainerId, CreateContainerError>> {
        self.creating.retain(|creating| !creating.operation.is_finished());
        let same_name =
            |other: &ContainerRequest| other.name == request.name && other.attempt == request.attempt;
        let taken = |id: &ContainerId| CreateContainerError::NameTaken {
            pod: self.record.id.clone(),
            name: request.name.clone(),
            attempt: request.attempt,
            id: id.clone(),
        };
        if let Some(running) = self.creating.iter().find(|creating| same_name(&creating.request)) {
            if *running.request == request {
                return running.operation.clone();
            }
            return failed(taken(&running.id));
        }
        if let Some(slot) = self.slots.values().find(|slot| same_name(&slot.record.request)) {
            let record = &slot.record;
            match container::create_again(&record.state.container, &record.request, &request) {
                Verdict::AlreadyDone | Verdict::Go => return done(record.id.clone()),
                Verdict::Refuse(container::CreateRefusal::Different) => return failed(taken(&record.id)),
                Verdict::Refuse(container::CreateRefusal::Exited) => {
                    return failed(CreateContainerError::Ended {
                        pod: self.record.id.clone(),
                        name: request.name.clone(),
                        attempt: request.attempt,
                        id: record.id.clone(),
                    });
                }
            }
        }
        let refused = |why| CreateContainerError::PodNotReady { pod: self.record.id.clone(), why };
        let shim = self.shim.borrow().clone();
        let (Verdict::Go, None, Some(shim)) =
            (pod::create_container(&self.record.state.pod), &self.stopping, shim)
        else {
            let why = match &self.record.state.pod {
                Pod::Stopped { why } => why.clone(),
                Pod::Ready => Some("it is being stopped".into()),
            };
            return failed(refused(why));
        };
        let id = self.context.new_container_id();
        let request = Arc::new(request);
        let operation = Operation::begin(create_container::run(
            self.context.clone(),
            create_container::Order {
                id: id.clone(),
                pod: self.record.clone(),
                request: request.clone(),
                shim,
                facts: self.facts.clone(),
                siblings: self.slots.values().map(|slot| slot.record.clone()).collect(),
                restore,
            },
        ));
        self.creating.push(Creating { request, id, operation: operation.clone() });
        operation
    }

    fn start(&mut self, id: &ContainerId) -> Operation<Answer<(), StartContainerError>> {
        if let Some(target) = self.ended_target(id) {
            return failed(StartContainerError::TargetEnded { id: id.clone(), target });
        }
        let Some(slot) = self.slots.get_mut(id) else { return failed(absent(id).into()) };
        if let Some(running) = slot.starting.as_ref().filter(|starting| !starting.is_finished()) {
            return running.clone();
        }
        let refuse = |state| failed(StartContainerError::NotCreated { id: id.clone(), state });
        if slot.removing.as_ref().is_some_and(|removing| !removing.is_finished()) {
            return refuse("being removed");
        }
        match container::start(&slot.record.state.container) {
            Verdict::Go | Verdict::AlreadyDone => {}
            Verdict::Refuse(container::StartRefusal::AlreadyRunning) => return refuse("running"),
            Verdict::Refuse(container::StartRefusal::AlreadyExited) => return refuse("exited"),
            Verdict::Refuse(container::StartRefusal::Unreadable(_)) => {
                return refuse("in an unreadable state");
            }
        }
        let Some(shim) = self.shim.borrow().clone() else { return refuse("without its pod's shim") };
        let operation = Operation::begin(start_container::run(
            self.context.clone(),
            slot.record.clone(),
            shim,
            self.facts.clone(),
        ));
        slot.starting = Some(operation.clone());
        operation
    }

    /// The container whose processes this one is to see, if that has ended: the kernel ended this one with it.
    fn ended_target(&self, id: &ContainerId) -> Option<String> {
        let PidNamespace::Target(target) = &self.slots.get(id)?.record.request.security.namespaces.pid else {
            return None;
        };
        let lives = self.slots.values().any(|slot| {
            slot.record.id.as_str() == target
                && matches!(slot.record.state.container, Container::Running { .. })
        });
        (!lives).then(|| target.clone())
    }

    fn stop(
        &mut self,
        id: &ContainerId,
        timeout: std::time::Duration,
    ) -> Operation<Answer<(), StopContainerError>> {
        let Some(slot) = self.slots.get_mut(id) else { return done(()) };
        if let Some((order, running)) = slot.stopping.as_ref().filter(|(_, stopping)| !stopping.is_finished())
        {
            order.shorten(timeout);
            return running.clone();
        }
        match container::stop(&slot.record.state.container) {
            Verdict::AlreadyDone if *slot.told.borrow() => return done(()),
            Verdict::AlreadyDone => return Operation::begin(slot.end_is_told()),
            Verdict::Go => {}
            Verdict::Refuse(never) => match never {},
        }
        let order = Arc::new(StopOrder::new(timeout));
        let stop = stop_container::run(
            slot.record.clone(),
            self.shim.borrow().clone(),
            slot.ended.subscribe(),
            order.clone(),
        );
        let told = slot.end_is_told();
        let operation = Operation::begin(async move {
            stop.await?;
            told.await
        });
        slot.stopping = Some((order, operation.clone()));
        operation
    }

    fn remove(&mut self, id: &ContainerId) -> Operation<Answer<(), RemoveContainerError>> {
        if !self.slots.contains_key(id) {
            return done(());
        }
        let stopped = self.stop(id, std::time::Duration::ZERO);
        let Some(slot) = self.slots.get_mut(id) else { return done(()) };
        if let Some(running) = slot.removing.as_ref().filter(|removing| !removing.is_finished()) {
            return running.clone();
        }
        let operation = Operation::begin(remove_container::run(
            self.context.clone(),
            slot.record.clone(),
            self.shim.borrow().clone(),
            stopped,
            self.facts.clone(),
        ));
        slot.removing = Some(operation.clone());
        operation
    }

    fn stop_pod(&mut self) -> Operation<Answer<(), StopPodError>> {
        if let Some(running) = self.stopping.as_ref().filter(|stopping| !stopping.is_finished()) {
            return running.clone();
        }
        match pod::stop(&self.record.state.pod, self.record.state.network_owed) {
            Verdict::AlreadyDone => return done(()),
            Verdict::Go => {}
            Verdict::Refuse(never) => match never {},
        }
        let ids: Vec<ContainerId> = self.slots.keys().cloned().collect();
        let containers =
            ids.into_iter().map(|id| (id.clone(), self.stop(&id, std::time::Duration::ZERO))).collect();
        let operation = Operation::begin(stop_pod::run(
            self.context.clone(),
            stop_pod::Order {
                record: self.record.clone(),
                shim: self.shim.borrow().clone(),
                containers,
                facts: self.facts.clone(),
                told: self.told.clone(),
            },
        ));
        self.stopping = Some(operation.clone());
        operation
    }

    fn remove_pod(&mut self) -> Operation<Answer<(), RemovePodError>> {
        if let Some(running) = self.removing.as_ref().filter(|removing| !removing.is_finished()) {
            return running.clone();
        }
        let stopped = self.stop_pod();
        let ids: Vec<ContainerId> = self.slots.keys().cloned().collect();
        let containers = ids.iter().map(|id| self.remove(id)).collect();
        let operation = Operation::begin(remove_pod::run(
            self.context.clone(),
            remove_pod::Order {
                record: self.record.clone(),
                stopped,
                containers,
                creating: self.creating.iter().map(|creating| creating.operation.clone()).collect(),
                facts: self.facts.clone(),
                told: self.told.clone(),
            },
        ));
        self.removing = Some(operation.clone());
        operation
    }

    /// Records a fact, then publishes it.
    async fn learn(&mut self, fact: Fact) -> Result<(), store::StoreError> {
        match fact {
            Fact::Made(record) => {
                self.context.records.settle_container(&record).await?;
                info!(pod = %record.pod, container = %record.id, name = record.request.name, "container created");
                let record = Arc::new(*record);
                let id = record.id.clone();
                self.context.published.put_container(&self.record, &record, &[EventKind::Created]);
                self.slots.insert(id.clone(), Slot::new(record));
                if matches!(self.record.state.pod, Pod::Stopped { .. }) {
                    self.lose(&id, "its pod was stopped while it was being created").await?;
                }
            }
            Fact::Container(id, container) => self.advance(&id, container).await?,
            Fact::Limits(id, resources) => {
                if let Some(now) = self.slots.get(&id).map(|slot| slot.record.clone()) {
                    let state = ContainerState { resources: *resources, ..now.state.clone() };
                    self.put_container(&now, state).await?;
                }
            }
            Fact::ContainerGone(id) => {
                self.context.records.forget_container(&id).await?;
                self.context.published.remove_container(&self.record, &id);
                self.slots.remove(&id);
                info!(pod = %self.record.id, container = %id, "container removed");
            }
            Fact::Pod(state) => {
                // Who tells of the pod's life does not know of limits that were changed meanwhile.
                let limits = self.record.state.limits.clone();
                self.put_pod(PodState { limits, ..*state }).await?;
            }
            Fact::PodLimits(limits) => {
                self.put_pod(PodState { limits: *limits, ..self.record.state.clone() }).await?;
            }
            Fact::ShimLost { why, exits } => self.shim_lost(why, exits).await?,
            // Taken by the loop, which ends with it.
            Fact::PodGone => {}
        }
        Ok(())
    }

    /// A container's life goes one way: what arrives late does not turn it back.
    async fn advance(&mut self, id: &ContainerId, next: Container) -> Result<(), store::StoreError> {
        let Some(now) = self.slots.get(id).map(|slot| slot.record.clone()) else { return Ok(()) };
        // The init of a command that cannot be executed ends too; why it never ran is what there is to know of it.
        let never_ran = matches!(next, Container::Exited { exit: Exit::NotStarted { .. }, .. });
        if matches!(now.state.container, Container::Exited { .. }) && !never_ran {
            return Ok(());
        }
        match &next {
            Container::Running { pid, .. } => {
                info!(pod = %now.pod, container = %id, pid, "container running")
            }
            Container::Exited { exit, .. } => {
                info!(pod = %now.pod, container = %id, code = exit.code(), reason = exit.reason(), "container exited");
            }
            Container::Created { .. } => {}
            Container::Unreadable { why } => {
                warn!(pod = %now.pod, container = %id, why, "container unreadable")
            }
        }
        let ended = exit_of(&next);
        let state = ContainerState { container: next, ..now.state.clone() };
        if let Err(error) = self.put_container(&now, state.clone()).await {
            // It is true whether or not there is room to write it down: the shim knows it too, and tells the next daemon.
            warn!(pod = %now.pod, container = %id, %error, "its state could not be recorded");
            self.show_container(&now, state);
        }
        if ended.is_some()
            && let Some(slot) = self.slots.get(id)
        {
            slot.ended.send_replace(ended);
            // The end is learned once; a command that never ran is a better reason for it.
            if !matches!(now.state.container, Container::Exited { .. }) {
                slot.tell_of_end(&self.context);
            }
        }
        Ok(())
    }

    async fn put_container(
        &mut self,
        now: &ContainerRecord,
        state: ContainerState,
    ) -> Result<(), store::StoreError> {
        self.context.records.advance_container(&now.id, &state).await?;
        self.show_container(now, state);
        Ok(())
    }

    fn show_container(&mut self, now: &ContainerRecord, state: ContainerState) {
        let record = Arc::new(ContainerRecord { state, ..now.clone() });
        let steps = events::steps(&now.state.container, &record.state.container);
        self.context.published.put_container(&self.record, &record, steps);
        if let Some(slot) = self.slots.get_mut(&now.id) {
            slot.record = record;
        }
    }

    async fn put_pod(&mut self, state: PodState) -> Result<(), store::StoreError> {
        if let Err(error) = self.context.records.settle_pod(&self.record.id, &state).await {
            // The next daemon finds no shim, and knows it too.
            warn!(pod = %self.record.id, %error, "its state could not be recorded");
        }
        if matches!(state.pod, Pod::Stopped { .. }) {
            self.shim.send_replace(None);
        }
        let stopped = state.pod != self.record.state.pod;
        if stopped {
            info!(pod = %self.record.id, name = %self.record.request.name, "pod stopped");
        }
        self.record = Arc::new(PodRecord { state, ..PodRecord::clone(&self.record) });
        self.context.published.put_pod(&self.record, if stopped { &[EventKind::Stopped] } else { &[] });
        Ok(())
    }

    async fn shim_lost(
        &mut self,
        why: String,
        exits: Vec<(ContainerId, Container)>,
    ) -> Result<(), store::StoreError> {
        if self.shim.borrow().is_none() {
            return Ok(());
        }
        warn!(pod = %self.record.id, why, "the pod's shim is lost");
        for (id, container) in exits {
            self.advance(&id, container).await?;
        }
        let left: Vec<ContainerId> = self.slots.keys().cloned().collect();
        for id in left {
            self.lose(&id, &why).await?;
        }
        self.put_pod(PodState { pod: Pod::Stopped { why: Some(why) }, ..self.record.state.clone() }).await
    }

    /// Ends a container of which nobody saw the end.
    async fn lose(&mut self, id: &ContainerId, why: &str) -> Result<(), store::StoreError> {
        let lost = Container::Exited {
            exit: Exit::Lost { why: why.into() },
            started_at: self.slots.get(id).map_or(Timestamp::NEVER, |slot| slot.record.started_at()),
            finished_at: crate::clock::now(),
        };
        self.advance(id, lost).await
    }
}

fn absent(id: &ContainerId) -> crate::snapshot::LookupError {
    crate::snapshot::LookupError::Absent { what: "container", given: id.to_string() }
}

fn done<T: Clone + Send + Sync + 'static, E: Send + Sync + 'static>(value: T) -> Operation<Answer<T, E>> {
    Operation::finished(Ok(value))
}

fn failed<T: Clone + Send + Sync + 'static, E: Send + Sync + 'static>(error: E) -> Operation<Answer<T, E>> {
    Operation::finished(Err(Arc::new(error)))
}

/// Which pod an actor belongs to; for the node's table of actors.
pub(crate) type Actors = HashMap<PodId, PodHandle>;
