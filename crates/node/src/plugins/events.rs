//! What happens to pods and containers, told to plugins. Nothing is looked up or put together where nobody wants to hear of it.

use std::sync::Arc;

use nri::api::{Container, Event, PodSandbox};
use nri::{Creation, Pass, Refusal};
use oci_spec::runtime::Spec;

use super::{fulfil, messages};
use crate::context::{Context, blocking};
use crate::create_container::Order;
use crate::record::{ContainerRecord, PodRecord};

/// A container and its pod, as plugins are told of them.
pub(crate) struct About {
    pub(crate) pod: PodSandbox,
    pub(crate) container: Container,
}

impl About {
    /// A container that there is.
    pub(crate) async fn container(context: &Arc<Context>, record: &Arc<ContainerRecord>) -> About {
        let pod = context.published.load().pods.get(&record.pod).map(|pod| pod.message(context));
        let (context, record) = (context.clone(), record.clone());
        let pod = pod.unwrap_or_else(|| PodSandbox { id: record.pod.to_string(), ..PodSandbox::default() });
        About { pod, container: blocking(move || messages::read(&context, &record)).await }
    }

    /// One that is being created; plugins are asked what is to become of it.
    ///
    /// # Errors
    /// A plugin refuses it; all have been told that it will not be.
    pub(crate) async fn creating(
        context: &Context,
        pass: &Pass,
        order: &Order,
        image: (&str, &str),
        spec: &Spec,
    ) -> Result<(About, Creation), Refusal> {
        let container = messages::container_message(&order.id, &order.pod.id, &order.request, image, spec);
        let about = About { pod: order.pod.message(context), container };
        match pass.create_container(&about.pod, about.container.clone()).await {
            Ok(creation) => Ok((about, creation)),
            Err(refusal) => {
                about.undo(pass).await;
                Err(refusal)
            }
        }
    }

    /// Tells plugins that the container will not be.
    pub(crate) async fn undo(&self, pass: &Pass) {
        pass.undo_create(&self.pod, &self.container).await;
    }
}

/// A pod's containers have ended, and the rest of it is about to.
pub(crate) async fn pod_stopping(context: &Context, record: &PodRecord) {
    let pass = context.nri.enter().await;
    if pass.wants(Event::StopPodSandbox) {
        pass.stop_pod(&record.message(context)).await;
    }
}

/// A container has ended.
pub(crate) async fn container_ended(context: &Arc<Context>, record: &Arc<ContainerRecord>) {
    let pass = context.nri.enter().await;
    if !pass.wants(Event::StopContainer) {
        return;
    }
    let about = About::container(context, record).await;
    let wishes = pass.stop_container(&about.pod, &about.container).await;
    // What is wanted of others is done whoever comes in meanwhile.
    drop(pass);
    fulfil(context, wishes).await;
}
