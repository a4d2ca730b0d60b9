//! The node's door: each call finds the pod, hands its actor a command, and awaits the operation, which goes on without the caller.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::id::{ContainerId, PodId};
use model::pod::{self, Verdict};
use model::request::{ContainerRequest, PodName, PodRequest, Resources};
use tokio::sync::oneshot;
use tracing::warn;

use crate::actor::{Answer, Command, PodHandle, Reply};
use crate::confinement::Confinement;
use crate::context::{Context, NodeConfig};
use crate::error::*;
use crate::events::Events;
use crate::exec_sync::{self, ExecOutput};
use crate::handlers::{Features, Handlers};
use crate::join::Operation;
use crate::pod_shim::PodShim;
use crate::record::{ContainerRecord, PodLimits, PodRecord};
use crate::records::Records;
use crate::shim_client::ShimBinary;
use crate::snapshot::{LookupError, Published, Snapshot};
use crate::stats::{ContainerStats, LayerAge, Measurements, PodStats};
use crate::{checkpoint, pod_limits, recover, run_pod, stats, update};

/// The pods of this node and all that is done with them.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) context: Arc<Context>,
    making: Arc<Mutex<HashMap<PodName, Making>>>,
}

/// A pod on its way into being, which equal requests join.
#[derive(Debug)]
struct Making {
    request: Arc<PodRequest>,
    operation: Operation<Answer<PodId, RunPodError>>,
}

/// Why a node cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenNodeError {
    #[error("the state directory {path}: {source}", path = path.display())]
    StateDir { path: PathBuf, source: std::io::Error },
    #[error("cgroups: {0}")]
    Cgroups(cgroup::DetectError),
    #[error("what this host can do: {0}")]
    Host(std::io::Error),
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

/// What a node is made of.
pub struct Parts {
    pub config: NodeConfig,
    pub store: Arc<store::Store>,
    pub images: Arc<image::Images>,
    pub networks: Arc<network::Networks>,
    pub nri: nri::Nri,
    pub shim: ShimBinary,
}

impl Node {
    /// Opens the node and brings it to what is true: every pod that lives is adopted before this returns.
    pub async fn open(parts: Parts) -> Result<Node, OpenNodeError> {
        let Parts { config, store, images, networks, nri, shim } = parts;
        let pods = config.state_dir.join("pods");
        make_private(&pods).map_err(|source| OpenNodeError::StateDir { path: pods, source })?;
        let cgroups = cgroup::Host::detect().map_err(OpenNodeError::Cgroups)?;
        let confinement = Confinement::start(&config.security);
        confinement.label_layers(images.rootfs().folders());
        let context = Arc::new(Context {
            records: Records::new(store),
            published: Published::default(),
            images,
            networks,
            nri,
            devices: cdi::Registry::new(config.cdi_dirs.clone()),
            hooks: hooks::Folders::new(config.hooks_dirs.clone()),
            handlers: Handlers::new(config.default_handler.clone(), config.handlers.clone()),
            shim,
            host: crate::host::facts(&cgroups, &confinement).map_err(OpenNodeError::Host)?,
            confinement,
            actors: Mutex::default(),
            open_files: crate::open_files::raise(),
            samples: stats::Kept::default(),
            layers: stats::Layers::default(),
            criu: Default::default(),
            can_map_ids: Default::default(),
            cgroups,
            config,
        });
        if let Err(error) = checkpoint::sweep(&context.config.checkpoint.work_dir) {
            tracing::warn!(%error, "what is left of unfinished checkpoints could not be removed");
        }
        recover::run(&context).await?;
        let door = Arc::new(crate::plugins::Door(Arc::downgrade(&context)));
        if let Err(error) = context.nri.start(door).await {
            // Pods that need no plugin run all the same.
            warn!(%error, "NRI plugins cannot connect");
        }
        crate::disk::tend(&context);
        Ok(Node { context, making: Arc::default() })
    }

    /// Says goodbye to those who are told of what happens here. Pods and containers go on.
    pub async fn close(&self) {
        self.context.nri.close().await;
    }

    /// Everything there is, at this moment. Waits for nothing.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.context.published.load()
    }

    pub fn config(&self) -> &NodeConfig {
        &self.context.config
    }
    /// The images, for whoever outlives a borrow of this.
    pub fn shared_images(&self) -> Arc<image::Images> {
        Arc::clone(&self.context.images)
    }

    pub fn images(&self) -> &Arc<image::Images> {
        &self.context.images
    }

    pub fn networks(&self) -> &Arc<network::Networks> {
        &self.context.networks
    }

    /// The runtime handlers that a pod may ask for, the empty one first, and what each can do. Programs are asked where they have not been.
    pub async fn handlers(&self) -> Vec<(String, Features)> {
        let builtin = self.builtin_features().await;
        let context = self.context.clone();
        crate::context::blocking(move || {
            let names = context.handlers.names().into_iter();
            names
                .map(|(name, handler)| (name, handler.map_or(builtin, |handler| handler.features(builtin))))
                .collect()
        })
        .await
    }

    async fn builtin_features(&self) -> Features {
        crate::users::builtin_features(&self.context).await
    }

    /// Tells all networks which addresses are this node's pods'.
    ///
    /// # Errors
    /// They are no addresses, or cannot be kept.
    pub fn pod_cidr(&self, text: &str) -> Result<(), network::PodCidrError> {
        let of_handlers = self.context.handlers.networks();
        std::iter::once(self.networks()).chain(of_handlers).try_for_each(|networks| networks.pod_cidr(text))
    }

    /// Whether pods of this node can have users of their own.
    pub async fn has_user_namespaces(&self) -> bool {
        crate::users::possible(&self.context).await
    }

    /// Runs a pod. The same request while one is under way joins it; after that it gets the pod that there is.
    pub async fn run_pod(&self, request: PodRequest) -> Answer<PodId, RunPodError> {
        let name = request.name.clone();
        let vanished =
            RunPodError::Failed { name: name.clone(), stage: "running it", fault: Fault::Vanished };
        let operation = self.begin_pod(request)?;
        operation.result().await.unwrap_or_else(|| Err(Arc::new(vanished)))
    }

    /// Runs a pod whose name nobody has yet.
    pub(crate) async fn run_new_pod(&self, request: PodRequest) -> Answer<PodId, RunPodError> {
        let name = request.name.clone();
        let vanished =
            RunPodError::Failed { name: name.clone(), stage: "running it", fault: Fault::Vanished };
        let operation = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            making.retain(|_, making| !making.operation.is_finished());
            if making.contains_key(&name) {
                return Err(Arc::new(RunPodError::NameInUse { name }));
            }
            if let Some(pod) = self.snapshot().pods.values().find(|pod| pod.request.name == name) {
                return Err(Arc::new(RunPodError::NameTaken { name, id: pod.id.clone() }));
            }
            let request = Arc::new(request);
            let operation = Operation::begin(run_pod::run(self.context.clone(), request.clone()));
            making.insert(name, Making { request, operation: operation.clone() });
            operation
        };
        operation.result().await.unwrap_or_else(|| Err(Arc::new(vanished)))
    }

    fn begin_pod(&self, request: PodRequest) -> Answer<Operation<Answer<PodId, RunPodError>>, RunPodError> {
        let name = request.name.clone();
        let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        making.retain(|_, making| !making.operation.is_finished());
        if let Some(under_way) = making.get(&name) {
            if *under_way.request == request {
                return Ok(under_way.operation.clone());
            }
            return Err(Arc::new(RunPodError::NameInUse { name }));
        }
        if let Some(existing) = self.snapshot().pods.values().find(|pod| pod.request.name == name) {
            let id = existing.id.clone();
            return match pod::run_again(&existing.state.pod, &existing.request, &request) {
                Verdict::Go | Verdict::AlreadyDone => Ok(Operation::finished(Ok(id))),
                Verdict::Refuse(pod::RunRefusal::Different) => {
                    Err(Arc::new(RunPodError::NameTaken { name, id }))
                }
                Verdict::Refuse(pod::RunRefusal::Stopped) => Err(Arc::new(RunPodError::Stopped { name, id })),
            };
        }
        let request = Arc::new(request);
        let operation = Operation::begin(run_pod::run(self.context.clone(), request.clone()));
        making.insert(name, Making { request, operation: operation.clone() });
        Ok(operation)
    }

    /// Stops a pod. One that is not there is stopped.
    pub async fn stop_pod(&self, given: &str) -> Answer<(), StopPodError> {
        let Some(pod) = present(self.snapshot().pod(given).map(|pod| pod.id.clone()))? else { return Ok(()) };
        let lost = || StopPodError::Failed { pod: pod.clone(), stage: "stopping it", fault: Fault::Vanished };
        let done = self.ask(&pod, |reply| Command::StopPod { reply }).await;
        done.unwrap_or_else(|| self.gone(&pod).ok_or_else(|| Arc::new(lost())))
    }

    /// Removes a pod and its containers, stopping them where needed. One that is not there is removed.
    pub async fn remove_pod(&self, given: &str) -> Answer<(), RemovePodError> {
        let found = present::<_, StopPodError>(self.snapshot().pod(given).map(|pod| pod.id.clone()));
        let Some(pod) = found.map_err(|why| Arc::new(RemovePodError::Stop(why)))? else { return Ok(()) };
        let lost =
            || RemovePodError::Failed { pod: pod.clone(), stage: "removing it", fault: Fault::Vanished };
        let done = self.ask(&pod, |reply| Command::RemovePod { reply }).await;
        done.unwrap_or_else(|| self.gone(&pod).ok_or_else(|| Arc::new(lost())))
    }

    /// Creates a container in a running pod; the same request again gets the same container.
    pub async fn create_container(
        &self,
        pod: &str,
        request: ContainerRequest,
    ) -> Answer<ContainerId, CreateContainerError> {
        let pod = self.snapshot().pod(pod).map(|pod| pod.id.clone()).map_err(|why| Arc::new(why.into()))?;
        self.make_container(pod, request, None).await
    }

    /// Makes a container of what was saved of one.
    pub(crate) async fn restore_container(
        &self,
        pod: &PodId,
        request: ContainerRequest,
        from: checkpoint::RestoreFrom,
    ) -> Answer<ContainerId, CreateContainerError> {
        self.make_container(pod.clone(), request, Some(Box::new(from))).await
    }

    async fn make_container(
        &self,
        pod: PodId,
        request: ContainerRequest,
        restore: Option<Box<checkpoint::RestoreFrom>>,
    ) -> Answer<ContainerId, CreateContainerError> {
        let name = request.name.clone();
        let lost = || CreateContainerError::Failed { name, stage: "creating it", fault: Fault::Vanished };
        let request = Box::new(request);
        let done = self.ask(&pod, |reply| Command::CreateContainer { request, restore, reply }).await;
        done.unwrap_or_else(|| {
            let gone = self.gone(&pod).map(|()| LookupError::Absent { what: "pod", given: pod.to_string() });
            Err(Arc::new(gone.map_or_else(lost, Into::into)))
        })
    }

    /// Starts a created container.
    pub async fn start_container(&self, given: &str) -> Answer<(), StartContainerError> {
        let found = self.container(given).map_err(|why| Arc::new(why.into()))?;
        let (pod, id) = (found.pod.clone(), found.id.clone());
        let lost = || StartContainerError::Failed { id: found.id.clone(), fault: Fault::Vanished };
        let done = self.ask(&pod, |reply| Command::StartContainer { id, reply }).await;
        done.unwrap_or_else(|| {
            let given = found.id.to_string();
            let gone = self.gone(&pod).map(|()| LookupError::Absent { what: "container", given });
            Err(Arc::new(gone.map_or_else(lost, Into::into)))
        })
    }

    /// Stops a container: its stop signal, and after `timeout` SIGKILL. One that is not there is stopped. A later call with a shorter
    /// timeout shortens the grace of one under way.
    pub async fn stop_container(&self, given: &str, timeout: Duration) -> Answer<(), StopContainerError> {
        let Some(found) = present(self.container(given))? else { return Ok(()) };
        let (pod, id) = (found.pod.clone(), found.id.clone());
        let lost = || StopContainerError::Failed { id: found.id.clone(), fault: Fault::Vanished };
        let done = self.ask(&pod, |reply| Command::StopContainer { id, timeout, reply }).await;
        done.unwrap_or_else(|| self.gone(&pod).ok_or_else(|| Arc::new(lost())))
    }

    /// Removes a container, killing it where it runs. One that is not there is removed.
    pub async fn remove_container(&self, given: &str) -> Answer<(), RemoveContainerError> {
        let Some(found) = present(self.container(given))? else { return Ok(()) };
        let (pod, id) = (found.pod.clone(), found.id.clone());
        let lost = || RemoveContainerError::Failed {
            id: found.id.clone(),
            stage: "removing it",
            fault: Fault::Vanished,
        };
        let done = self.ask(&pod, |reply| Command::RemoveContainer { id, reply }).await;
        done.unwrap_or_else(|| self.gone(&pod).ok_or_else(|| Arc::new(lost())))
    }

    /// Runs a command in a running container and returns what it printed. No `timeout`: as long as it takes.
    pub async fn exec_sync(
        &self,
        given: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Answer<ExecOutput, ExecError> {
        let record = self.container(given).map_err(|why| Arc::new(why.into()))?;
        let Some(shim) = self.shim_of(&record.pod) else {
            let state = exec_sync::state_name(&record.state.container);
            return Err(Arc::new(ExecError::NotRunning { id: record.id.clone(), state }));
        };
        let id = record.id.clone();
        // On a task of its own: a client that leaves must not leave a command behind that nobody waits for.
        let run = exec_sync::run(self.context.clone(), record, shim, command, timeout);
        let operation = Operation::begin(async move { run.await.map_err(Arc::new) });
        operation
            .result()
            .await
            .unwrap_or_else(|| Err(Arc::new(ExecError::Failed { id, fault: Fault::Vanished })))
    }

    /// Changes a container's limits; zero and empty fields stay as they are. All or nothing.
    pub async fn update_container(&self, given: &str, change: Resources) -> Answer<(), UpdateError> {
        let record = self.container(given).map_err(|why| Arc::new(why.into()))?;
        let id = record.id.clone();
        let Some(handle) = self.context.handle(&record.pod) else {
            return Err(Arc::new(UpdateError::Failed { id, fault: Fault::Vanished }));
        };
        let run = update::run(self.context.clone(), record, change, handle);
        let operation = Operation::begin(async move { run.await.map_err(Arc::new) });
        operation
            .result()
            .await
            .unwrap_or_else(|| Err(Arc::new(UpdateError::Failed { id, fault: Fault::Vanished })))
    }

    /// Saves a running container, which goes on, as an archive at `location`. No `timeout`: as long as is usual.
    pub async fn checkpoint_container(
        &self,
        given: &str,
        location: PathBuf,
        timeout: Option<Duration>,
    ) -> Answer<(), CheckpointError> {
        let found = self.container(given).map_err(|why| Arc::new(why.into()))?;
        let (pod, containers) = (found.pod.clone(), vec![found.id.clone()]);
        let deadline = Instant::now() + timeout.unwrap_or(checkpoint::USUAL_TIME);
        self.checkpoint(&pod, containers, checkpoint::Target::Archive(location), deadline).await
    }

    /// Saves running containers of a pod at one moment into the empty folder `path`. They go on.
    pub async fn checkpoint_pod(
        &self,
        given: &str,
        containers: &[String],
        path: PathBuf,
        deadline: Instant,
    ) -> Answer<(), CheckpointError> {
        let snapshot = self.snapshot();
        let pod = snapshot.pod(given).map_err(|why| Arc::new(why.into()))?.id.clone();
        let mut ids: Vec<ContainerId> = Vec::new();
        for given in containers {
            let found = snapshot.container(given).map_err(|why| Arc::new(why.into()))?;
            if found.pod != pod {
                let why = format!("container_ids: container {} is not in pod {pod}", found.id);
                return Err(Arc::new(CheckpointError::Invalid { why }));
            }
            if ids.contains(&found.id) {
                let why = format!("container_ids: container {} is listed twice", found.id);
                return Err(Arc::new(CheckpointError::Invalid { why }));
            }
            ids.push(found.id.clone());
        }
        self.checkpoint(&pod, ids, checkpoint::Target::Folder(path), deadline).await
    }

    async fn checkpoint(
        &self,
        pod: &PodId,
        containers: Vec<ContainerId>,
        target: checkpoint::Target,
        deadline: Instant,
    ) -> Answer<(), CheckpointError> {
        let lost = || CheckpointError::Failed {
            pod: pod.clone(),
            stage: "checkpointing it",
            fault: Fault::Vanished,
        };
        let done = self.ask(pod, |reply| Command::Checkpoint { containers, target, deadline, reply }).await;
        done.unwrap_or_else(|| Err(Arc::new(lost())))
    }

    /// Makes a pod of a checkpoint. Its containers are created and wait to be started: of each its name and its id.
    pub async fn restore_pod(
        &self,
        path: PathBuf,
        pod: PodRequest,
        containers: Vec<ContainerRequest>,
        deadline: Instant,
    ) -> Answer<(PodId, Vec<(String, ContainerId)>), RestorePodError> {
        let name = pod.name.clone();
        let restoring =
            checkpoint::restore_pod(self.clone(), self.context.clone(), path, pod, containers, deadline);
        // On a task of its own: a client that leaves must not leave half a pod behind.
        let operation = Operation::begin(async move { restoring.await.map_err(Arc::new) });
        let lost = || RestorePodError::Failed { name, stage: "restoring it", fault: Fault::Vanished };
        operation.result().await.unwrap_or_else(|| Err(Arc::new(lost())))
    }

    /// Has the shim open the container's log anew, after a rotation.
    pub async fn reopen_log(&self, given: &str) -> Result<(), ReopenLogError> {
        let record = self.container(given)?;
        let id = record.id.clone();
        let running = matches!(record.state.container, model::container::Container::Running { .. });
        let Some(shim) = self.shim_of(&record.pod).filter(|_| running) else {
            return Err(ReopenLogError::NotRunning { id });
        };
        shim.client
            .reopen_log(id.as_str())
            .await
            .map_err(|error| ReopenLogError::Failed { id, fault: error.into() })
    }

    /// Changes what a pod as a whole may use; what is not given stays as it is.
    pub async fn update_pod(&self, given: &str, change: PodLimits) -> Answer<(), UpdatePodError> {
        let record = self.snapshot().pod(given).cloned().map_err(|why| Arc::new(why.into()))?;
        let id = record.id.clone();
        let Some(handle) = self.context.handle(&id) else {
            return Err(Arc::new(UpdatePodError::Failed { id, fault: Fault::Vanished }));
        };
        let run = pod_limits::update(self.context.clone(), id.clone(), change, handle);
        let operation = Operation::begin(async move { run.await.map_err(Arc::new) });
        operation
            .result()
            .await
            .unwrap_or_else(|| Err(Arc::new(UpdatePodError::Failed { id, fault: Fault::Vanished })))
    }

    /// What a container uses now.
    pub async fn container_stats(&self, given: &str) -> Result<ContainerStats, StatsError> {
        let record = self.container(given)?;
        Ok(stats::of_containers(&self.context, vec![record], LayerAge::Fresh).await.remove(0))
    }

    /// What the running containers that `wanted` picks use now.
    pub async fn list_container_stats(
        &self,
        wanted: impl Fn(&ContainerRecord) -> bool,
    ) -> Vec<ContainerStats> {
        let wanted = |record: &&Arc<ContainerRecord>| stats::is_alive(record) && wanted(record);
        let records = self.snapshot().containers.values().filter(wanted).cloned().collect();
        stats::of_containers(&self.context, records, LayerAge::Any).await
    }

    /// What a pod and its containers use now.
    pub async fn pod_stats(&self, given: &str) -> Result<PodStats, StatsError> {
        let record = self.snapshot().pod(given)?.clone();
        Ok(stats::of_pods(&self.context, vec![record]).await.remove(0))
    }

    /// What the running pods that `wanted` picks use now.
    pub async fn list_pod_stats(&self, wanted: impl Fn(&PodRecord) -> bool) -> Vec<PodStats> {
        let wanted = |record: &&Arc<PodRecord>| record.state.pod == pod::Pod::Ready && wanted(record);
        let records = self.snapshot().pods.values().filter(wanted).cloned().collect();
        stats::of_pods(&self.context, records).await
    }

    /// What all writable layers take together, in bytes and inodes. It waits for those to be measured whose size is out of date.
    pub async fn writable_layers(&self) -> (u64, u64) {
        stats::of_layers(&self.context).await
    }

    /// The control groups of this host.
    pub fn cgroups(&self) -> &cgroup::Host {
        &self.context.cgroups
    }

    /// Everything that can be measured of the pods that run.
    pub async fn measure(&self) -> Measurements {
        stats::measure(&self.context).await
    }

    /// What happens from now on. Where nobody has subscribed for a while, it begins with what happened meanwhile.
    pub fn events(&self) -> Events {
        self.context.published.subscribe()
    }

    /// Ends all subscriptions, and those to come: the daemon is about to end, and they would not.
    pub fn end_events(&self) {
        self.context.published.close();
    }

    /// The network namespace of a running pod, as a path that CNI plugins can open.
    pub fn shim_of_pod(&self, pod: &PodRecord) -> Option<i32> {
        self.shim_of(&pod.id).map(|shim| shim.pid())
    }

    /// The container that `given` names, by id or by the beginning of one.
    pub fn container(&self, given: &str) -> Result<Arc<ContainerRecord>, LookupError> {
        self.snapshot().container(given).cloned()
    }

    /// The OCI bundle of a container, with its `config.json`.
    pub fn bundle(&self, record: &ContainerRecord) -> PathBuf {
        self.context.bundle(&record.pod, &record.id)
    }

    pub(crate) fn shim_of(&self, pod: &PodId) -> Option<PodShim> {
        self.context.handle(pod).and_then(|handle: PodHandle| handle.shim.borrow().clone())
    }

    /// Whether the pod was removed: why nobody answered who asked for something of it at that moment.
    fn gone(&self, pod: &PodId) -> Option<()> {
        self.context.handle(pod).is_none().then_some(())
    }

    /// Hands a pod's actor a command and awaits what it began; `None` where the pod went away meanwhile.
    async fn ask<T: Clone + Send + Sync + 'static, E: Send + Sync + 'static>(
        &self,
        pod: &PodId,
        command: impl FnOnce(Reply<T, E>) -> Command,
    ) -> Option<Answer<T, E>> {
        let handle = self.context.handle(pod)?;
        let (reply, begun) = oneshot::channel();
        handle.command(command(reply)).await?;
        begun.await.ok()?.result().await
    }
}

/// For calls that are done where there is nothing: an absent object is no error, an ambiguous prefix is.
fn present<T, E: From<LookupError>>(found: Result<T, LookupError>) -> Answer<Option<T>, E> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(LookupError::Absent { .. }) => Ok(None),
        Err(ambiguous @ LookupError::Ambiguous { .. }) => Err(Arc::new(ambiguous.into())),
    }
}

/// Makes a folder that only root can enter, whatever the umask.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}
