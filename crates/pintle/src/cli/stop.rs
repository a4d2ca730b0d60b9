//! `pintle stop`: stops containers and pods, each with time to end by itself.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::inventory::{Inventory, Target};
use super::output::write_out;
use super::several::Several;
use super::view;
use cri::runtime_v1 as cri_v1;

/// Seconds between the stop signal and the kill when nobody says otherwise.
pub(crate) const GRACE_SECS: i64 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds between the stop signal and the kill
    #[arg(short, long, default_value_t = GRACE_SECS, value_parser = clap::value_parser!(i64).range(0..), value_name = "SECONDS")]
    time: i64,
    /// Containers and pods by name, id or the beginning of an id
    #[arg(required = true)]
    targets: Vec<String>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let inventory = Inventory::load(client).await?;
    let mut several = Several::default();
    for given in &args.targets {
        let stopped = match inventory.target(given) {
            Ok(Target::Container(container)) => stop_container(client, &container.id, args.time).await,
            Ok(Target::Pod(pod)) => stop_pod(client, &inventory, &pod.id, args.time).await,
            Err(failure) => Err(failure),
        };
        several.record(stopped.and_then(|()| write_out(&format!("{given}\n"))));
    }
    several.finish()
}

/// Stops one container by its full id: its stop signal, `grace_secs`, then a kill.
pub(crate) async fn stop_container(client: &Client, id: &str, grace_secs: i64) -> Result<(), Failure> {
    let request = cri_v1::StopContainerRequest { container_id: id.to_owned(), timeout: grace_secs };
    client.runtime().stop_container(request).await.explain(|| format!("stopping the container {id}"))?;
    Ok(())
}

/// Stops the running containers of a pod, all at once, then the pod. CRI's own StopPodSandbox kills them without grace.
pub(crate) async fn stop_pod(
    client: &Client,
    inventory: &Inventory,
    id: &str,
    grace_secs: i64,
) -> Result<(), Failure> {
    let mut stops = tokio::task::JoinSet::new();
    for container in inventory.of_pod(id).filter(|c| view::container_state(c.state) == "running") {
        let (client, container) = (client.clone(), container.id.clone());
        stops.spawn(async move { stop_container(&client, &container, grace_secs).await });
    }
    // A container that does not stop is no reason to leave the pod: StopPodSandbox kills it.
    while stops.join_next().await.is_some() {}
    let request = cri_v1::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
    client.runtime().stop_pod_sandbox(request).await.explain(|| format!("stopping the pod {id}"))?;
    Ok(())
}
