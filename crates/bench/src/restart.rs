//! A daemon that is ended and started again while its pods run: how long until every call is answered right.

use crate::many;
use crate::peers::Peer;
use crate::pods::Plan;
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result, ensure};
use cri::runtime_v1 as v1;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(2);

/// Makes the pods, ends the daemon, and takes the time from its start until the lists are whole and a command runs in a container.
pub(crate) async fn measure(
    peer: &mut Peer,
    target: &mut Target,
    plan: &Plan,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    let section = format!("Restart with {count} pods");
    let pods = many::start_all(target, plan, count, 10, &section, report).await?;
    peer.end().await;
    let began = Instant::now();
    peer.begin()?;
    *target = loop {
        match answered(peer, count, &pods[0].container).await {
            Ok(target) => break target,
            Err(error) => {
                ensure!(began.elapsed() < PATIENCE, "{} does not come back: {error:#}", peer.given.name);
            }
        }
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    };
    let seconds = began.elapsed().as_secs_f64();
    report.add(&section, "until every call is answered right (s)", &target.name, seconds);
    many::remove_all(target, pods, 10).await
}

/// The runtime, if it knows all its pods and containers and reaches them.
async fn answered(peer: &Peer, count: usize, container: &str) -> Result<Target> {
    let target = Target::connect(&peer.given).await?;
    let mut runtime = target.runtime();
    let pods = runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner().items;
    let ready = pods.iter().filter(|pod| pod.state() == v1::PodSandboxState::SandboxReady).count();
    ensure!(ready == count, "{ready} of {count} pods are ready");
    let containers = runtime.list_containers(v1::ListContainersRequest::default()).await?.into_inner();
    let is_running = |one: &&v1::Container| one.state() == v1::ContainerState::ContainerRunning;
    let running = containers.containers.iter().filter(is_running).count();
    ensure!(running == count, "{running} of {count} containers run");
    let exec =
        v1::ExecSyncRequest { container_id: container.to_owned(), cmd: vec!["true".into()], timeout: 10 };
    let answer = runtime.exec_sync(exec).await.context("ExecSync")?.into_inner();
    ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
    Ok(target)
}
