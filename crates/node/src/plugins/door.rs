//! What plugins ask of the node.

use std::sync::{Arc, Weak};

use model::container::Container;
use model::pod::Pod;
use nri::api::ContainerUpdate;
use nri::{Inventory, Later, Wishes};

use super::{messages, wishes};
use crate::context::{Context, blocking};

/// The node, for as long as there is one.
pub(crate) struct Door(pub(crate) Weak<Context>);

impl nri::Runtime for Door {
    /// The pods that are ready and the containers that have not ended: of the rest there is nothing to adjust.
    fn inventory(&self) -> Later<'_, Inventory> {
        Box::pin(async {
            let Some(context) = self.0.upgrade() else { return Inventory::default() };
            blocking(move || inventory(&context)).await
        })
    }

    fn change(&self, wanted: Wishes) -> Later<'_, Vec<ContainerUpdate>> {
        Box::pin(async {
            match self.0.upgrade() {
                Some(context) => wishes::fulfil(&context, wanted).await,
                None => wanted.updates,
            }
        })
    }
}

fn inventory(context: &Arc<Context>) -> Inventory {
    let snapshot = context.published.load();
    let ready = snapshot.pods.values().filter(|pod| matches!(pod.state.pod, Pod::Ready));
    let living = snapshot
        .containers
        .values()
        .filter(|container| !matches!(container.state.container, Container::Exited { .. }));
    Inventory {
        pods: ready.map(|pod| pod.message(context)).collect(),
        containers: living.map(|container| messages::read(context, container)).collect(),
    }
}
