//! Carrying a request to the plugins that want it, one after the other in the order of their indices.

use std::sync::Arc;

use tokio::sync::OwnedRwLockReadGuard;
use tracing::warn;

use crate::adjustment::Adjusting;
use crate::api::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, CreateContainerRequest,
    CreateContainerResponse, Event, LinuxResources, PluginInstance, PodSandbox, PostCreateContainerRequest,
    PostStartContainerRequest, PostUpdateContainerRequest, PostUpdatePodSandboxRequest,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopContainerRequest, StopContainerResponse, StopPodSandboxRequest, UpdateContainerRequest,
    UpdateContainerResponse, UpdatePodSandboxRequest, ValidateContainerAdjustmentRequest,
    ValidateContainerAdjustmentResponse,
};
use crate::changes::{Changes, merge_resources};
use crate::error::Refusal;
use crate::owners::Owners;
use crate::plugin::{Plugin, bit};

/// The right to change what there is on the node, and the plugins that are told of it. While somebody holds one, no plugin is brought up
/// to date, so that a plugin learns of each thing exactly once: by what it is given then, or by an event.
///
/// A holder must not wait for another one: a plugin that waits to be let in stands between them.
#[derive(Debug)]
pub struct Pass {
    pub(crate) plugins: Arc<Vec<Arc<Plugin>>>,
    /// None where NRI is off.
    pub(crate) _barrier: Option<OwnedRwLockReadGuard<()>>,
}

/// What plugins want of a container that is being created, and of others on that occasion.
#[derive(Debug, Default)]
pub struct Creation {
    pub adjust: ContainerAdjustment,
    pub updates: Vec<ContainerUpdate>,
    pub evictions: Vec<ContainerEviction>,
}

/// What plugins want of containers that exist.
#[derive(Debug, Default)]
pub struct Wishes {
    pub updates: Vec<ContainerUpdate>,
    pub evictions: Vec<ContainerEviction>,
}

impl Pass {
    /// Whether anybody wants to hear of `event`; where nobody does, no message needs to be made.
    pub fn wants(&self, event: Event) -> bool {
        self.plugins.iter().any(|plugin| plugin.wants(event))
    }

    /// A pod is about to be shown to the world.
    ///
    /// # Errors
    /// A plugin refuses it.
    pub async fn run_pod(&self, pod: &PodSandbox) -> Result<(), Refusal> {
        let request = RunPodSandboxRequest { pod: Some(pod.clone()) };
        for plugin in self.plugins.iter() {
            plugin.tell(Event::RunPodSandbox, &request, pod, None).await?;
        }
        Ok(())
    }

    /// A pod's resources are about to change.
    ///
    /// # Errors
    /// A plugin refuses it.
    pub async fn update_pod(
        &self,
        pod: &PodSandbox,
        overhead: LinuxResources,
        resources: LinuxResources,
    ) -> Result<(), Refusal> {
        let request = UpdatePodSandboxRequest {
            pod: Some(pod.clone()),
            overhead_linux_resources: Some(overhead),
            linux_resources: Some(resources),
        };
        for plugin in self.plugins.iter() {
            plugin.ask::<_, crate::api::UpdatePodSandboxResponse>(Event::UpdatePodSandbox, &request).await?;
        }
        Ok(())
    }

    /// A pod's resources have changed.
    pub async fn post_update_pod(&self, pod: &PodSandbox) {
        let request = PostUpdatePodSandboxRequest { pod: Some(pod.clone()) };
        self.tell_all(Event::PostUpdatePodSandbox, &request, pod, None).await;
    }

    /// A pod's containers have ended and the rest of it is about to.
    pub async fn stop_pod(&self, pod: &PodSandbox) {
        let request = StopPodSandboxRequest { pod: Some(pod.clone()) };
        self.tell_all(Event::StopPodSandbox, &request, pod, None).await;
    }

    /// A pod is gone.
    pub async fn remove_pod(&self, pod: &PodSandbox) {
        let request = RemovePodSandboxRequest { pod: Some(pod.clone()) };
        self.tell_all(Event::RemovePodSandbox, &request, pod, None).await;
    }

    /// A container is about to be created from what `container` says.
    ///
    /// # Errors
    /// A plugin refuses it, two contradict each other, or a validator rejects what they want together.
    pub async fn create_container(
        &self,
        pod: &PodSandbox,
        container: Container,
    ) -> Result<Creation, Refusal> {
        let validators: Vec<Arc<Plugin>> = self
            .plugins
            .iter()
            .filter(|plugin| plugin.wants(Event::ValidateContainerAdjustment))
            .cloned()
            .collect();
        let pristine = (!validators.is_empty()).then(|| container.clone());
        let mut request = CreateContainerRequest { pod: Some(pod.clone()), container: Some(container) };
        let (mut adjust, mut owners, mut changes) =
            (ContainerAdjustment::default(), Owners::default(), Changes::default());
        for plugin in self.plugins.iter() {
            let answer: Option<CreateContainerResponse> =
                plugin.ask(Event::CreateContainer, &request).await?;
            let (Some(answer), Some(container)) = (answer, request.container.as_mut()) else { continue };
            let plugin = plugin.name.as_str();
            if let Some(update) = answer.update.iter().find(|update| update.container_id == container.id) {
                let (plugin, container) = (plugin.into(), update.container_id.clone());
                return Err(Refusal::UpdateOfNew { plugin, container });
            }
            changes.add(answer.update, plugin, &mut owners)?;
            changes.evict(answer.evict);
            let wanted = answer.adjust.unwrap_or_default();
            Adjusting { container, adjust: &mut adjust, owners: &mut owners, plugin }.take(wanted)?;
        }
        if let Some(pristine) = pristine {
            let consulted = self.plugins.iter().filter(|plugin| !plugin.connection.is_closed());
            let request = ValidateContainerAdjustmentRequest {
                pod: Some(pod.clone()),
                container: Some(pristine),
                adjust: Some(adjust.clone()),
                update: changes.updates(),
                owners: Some(owners.message()),
                plugins: consulted
                    .map(|plugin| PluginInstance { name: plugin.base.clone(), index: plugin.index.clone() })
                    .collect(),
            };
            validate(validators, request).await?;
        }
        let (updates, evictions) = changes.into_parts();
        Ok(Creation { adjust, updates, evictions })
    }

    /// A container that plugins were asked about will not be.
    pub async fn undo_create(&self, pod: &PodSandbox, container: &Container) {
        self.stop_container(pod, container).await;
        self.remove_container(pod, container).await;
    }

    /// A container has been created.
    pub async fn post_create(&self, pod: &PodSandbox, container: &Container) {
        let request =
            PostCreateContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        self.tell_all(Event::PostCreateContainer, &request, pod, Some(container)).await;
    }

    /// A container is about to be started.
    ///
    /// # Errors
    /// A plugin refuses it.
    pub async fn start_container(&self, pod: &PodSandbox, container: &Container) -> Result<(), Refusal> {
        let request = StartContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        for plugin in self.plugins.iter() {
            plugin.tell(Event::StartContainer, &request, pod, Some(container)).await?;
        }
        Ok(())
    }

    /// A container runs.
    pub async fn post_start(&self, pod: &PodSandbox, container: &Container) {
        let request =
            PostStartContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        self.tell_all(Event::PostStartContainer, &request, pod, Some(container)).await;
    }

    /// A container's resources are about to become `resources`. Returns what they are to become after all, and what else is wanted.
    ///
    /// # Errors
    /// A plugin refuses it, or two contradict each other.
    pub async fn update_container(
        &self,
        pod: &PodSandbox,
        container: &Container,
        resources: LinuxResources,
    ) -> Result<(LinuxResources, Wishes), Refusal> {
        let mut request = UpdateContainerRequest {
            pod: Some(pod.clone()),
            container: Some(container.clone()),
            linux_resources: Some(resources.clone()),
        };
        let (mut owners, mut changes) = (Owners::default(), Changes::default());
        for plugin in self.plugins.iter() {
            let answer: Option<UpdateContainerResponse> =
                plugin.ask(Event::UpdateContainer, &request).await?;
            let Some(answer) = answer else { continue };
            changes.add(answer.update, &plugin.name, &mut owners)?;
            changes.evict(answer.evict);
            request.linux_resources = Some(overlaid(&resources, changes.of(&container.id)));
        }
        let own = changes.take(&container.id);
        let (updates, evictions) = changes.into_parts();
        Ok((overlaid(&resources, own.as_ref()), Wishes { updates, evictions }))
    }

    /// A container's resources have changed.
    pub async fn post_update(&self, pod: &PodSandbox, container: &Container) {
        let request =
            PostUpdateContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        self.tell_all(Event::PostUpdateContainer, &request, pod, Some(container)).await;
    }

    /// A container has ended. Returns what plugins want of others now.
    pub async fn stop_container(&self, pod: &PodSandbox, container: &Container) -> Wishes {
        let request = StopContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        let (mut owners, mut changes) = (Owners::default(), Changes::default());
        for plugin in self.plugins.iter() {
            let answer = plugin.ask::<_, StopContainerResponse>(Event::StopContainer, &request).await;
            let taken = answer.and_then(|answer| match answer {
                Some(answer) => changes.add(answer.update, &plugin.name, &mut owners),
                None => Ok(()),
            });
            if let Err(refusal) = taken {
                warn!(container = container.id, %refusal, "a container has ended, whatever an NRI plugin says");
            }
        }
        let (updates, evictions) = changes.into_parts();
        Wishes { updates, evictions }
    }

    /// A container is gone.
    pub async fn remove_container(&self, pod: &PodSandbox, container: &Container) {
        let request = RemoveContainerRequest { pod: Some(pod.clone()), container: Some(container.clone()) };
        self.tell_all(Event::RemoveContainer, &request, pod, Some(container)).await;
    }

    /// Tells everybody of what has happened. Nobody can refuse that any more.
    async fn tell_all<Q: prost::Message>(
        &self,
        event: Event,
        request: &Q,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) {
        for plugin in self.plugins.iter() {
            if let Err(refusal) = plugin.tell(event, request, pod, container).await {
                let container = container.map(|container| container.id.as_str());
                warn!(pod = pod.id, container, %refusal, "an NRI plugin did not accept what has happened");
            }
        }
    }
}

/// `base` with what `over` sets put over it.
fn overlaid(base: &LinuxResources, over: Option<&LinuxResources>) -> LinuxResources {
    let mut resources = base.clone();
    // Nobody claims anything here, so nothing is refused.
    let _ = over.map(|over| merge_resources(over, &mut [&mut resources], |_, _| Ok(())));
    resources
}

/// Asks every validator at the same time. One that fails has not agreed.
async fn validate(
    validators: Vec<Arc<Plugin>>,
    request: ValidateContainerAdjustmentRequest,
) -> Result<(), Refusal> {
    let request = Arc::new(request);
    let mut asked = tokio::task::JoinSet::new();
    for plugin in validators {
        let request = request.clone();
        asked.spawn(async move { validated(&plugin, &request).await });
    }
    let mut verdict = Ok(());
    while let Some(one) = asked.join_next().await {
        match one {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => verdict = Err(refusal),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    verdict
}

async fn validated(plugin: &Plugin, request: &ValidateContainerAdjustmentRequest) -> Result<(), Refusal> {
    debug_assert!(plugin.events & bit(Event::ValidateContainerAdjustment) != 0);
    let (event, container) = (Event::ValidateContainerAdjustment, request.container.as_ref());
    let rejected = |why: String| Refusal::Rejected {
        plugin: plugin.name.clone(),
        container: container.map(|container| container.id.clone()).unwrap_or_default(),
        why,
    };
    let _turn = plugin.turn.lock().await;
    let answer = plugin
        .connection
        .call::<_, ValidateContainerAdjustmentResponse>(
            crate::plugin::method(event),
            request,
            plugin.patience,
        )
        .await;
    match answer {
        Ok(answer) if answer.reject => Err(rejected(answer.reason)),
        Ok(_) => Ok(()),
        Err(error) => {
            if !matches!(error, crate::connection::CallError::Refused { .. }) {
                plugin.drop_for(event, &error);
            }
            Err(rejected(error.to_string()))
        }
    }
}
