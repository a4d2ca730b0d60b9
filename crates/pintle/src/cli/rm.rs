//! `pintle rm`: removes containers and pods.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::inventory::{Inventory, RUN_LABEL, Target, container_name, pod_name};
use super::output::write_out;
use super::run::log_directory;
use super::several::Several;
use super::stop::{stop_container, stop_pod};
use super::view;
use cri::runtime_v1 as cri_v1;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill what is still running
    #[arg(short, long)]
    force: bool,
    /// Remove all pods that are not ready and all containers that have ended
    #[arg(long, conflicts_with = "targets")]
    stopped: bool,
    /// Containers and pods by name, id or the beginning of an id
    #[arg(required_unless_present = "stopped")]
    targets: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let inventory = Inventory::load(client).await?;
    let mut several = Several::default();
    if args.stopped {
        for (name, target) in all_stopped(&inventory) {
            several.record(
                remove(client, &inventory, target, false)
                    .await
                    .and_then(|()| write_out(&format!("{name}\n"))),
            );
        }
    }
    for given in &args.targets {
        let removed = match inventory.target(given) {
            Ok(target) => remove(client, &inventory, target, args.force).await,
            Err(failure) => Err(failure),
        };
        several.record(removed.and_then(|()| write_out(&format!("{given}\n"))));
    }
    several.finish()
}

/// Removes one object; something that runs is only removed with `force`.
pub(crate) async fn remove(
    client: &Client,
    inventory: &Inventory,
    target: Target<'_>,
    force: bool,
) -> Result<(), Failure> {
    match target {
        Target::Container(container) => {
            if is_running(container) {
                let name = container_name(container).to_owned();
                if !force {
                    return Err(Failure::Running { what: "the container", name });
                }
                stop_container(client, &container.id, 0).await?;
            }
            let request = cri_v1::RemoveContainerRequest { container_id: container.id.clone() };
            let answer = client.runtime().remove_container(request).await;
            answer.explain(|| format!("removing the container {}", container.id))?;
            Ok(())
        }
        Target::Pod(pod) => {
            if !force && inventory.of_pod(&pod.id).any(is_running) {
                return Err(Failure::Running {
                    what: "a container of the pod",
                    name: pod_name(pod).to_owned(),
                });
            }
            remove_pod(client, inventory, pod).await
        }
    }
}

/// Stops and removes a pod with its containers, and the logs when `pintle run` made it.
pub(crate) async fn remove_pod(
    client: &Client,
    inventory: &Inventory,
    pod: &cri_v1::PodSandbox,
) -> Result<(), Failure> {
    stop_pod(client, inventory, &pod.id, 0).await?;
    let request = cri_v1::RemovePodSandboxRequest { pod_sandbox_id: pod.id.clone() };
    client.runtime().remove_pod_sandbox(request).await.explain(|| format!("removing the pod {}", pod.id))?;
    match pod.labels.contains_key(RUN_LABEL) {
        true => log_directory::remove(pod),
        false => Ok(()),
    }
}

fn is_running(container: &cri_v1::Container) -> bool {
    view::container_state(container.state) == "running"
}

/// Pods that are not ready, and the ended containers of pods that are (of `run`'s pods, the pod).
fn all_stopped(inventory: &Inventory) -> Vec<(String, Target<'_>)> {
    let mut stopped = Vec::new();
    for pod in &inventory.pods {
        let ready = view::pod_state(pod.state) == "ready";
        let ended = |container: &&cri_v1::Container| view::container_state(container.state) == "exited";
        let all_ended = inventory.of_pod(&pod.id).all(|container| ended(&container));
        let has_containers = inventory.of_pod(&pod.id).next().is_some();
        if !ready || (pod.labels.contains_key(RUN_LABEL) && all_ended && has_containers) {
            stopped.push((pod_name(pod).to_owned(), Target::Pod(pod)));
        } else {
            let ended = inventory.of_pod(&pod.id).filter(ended);
            stopped.extend(
                ended.map(|c| (format!("{}/{}", pod_name(pod), container_name(c)), Target::Container(c))),
            );
        }
    }
    stopped
}
