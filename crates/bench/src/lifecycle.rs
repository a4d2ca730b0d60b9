//! The life of one pod after the other, call by call.

use crate::pods::{Network, Plan, Program, Running};
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result, ensure};
use cri::runtime_v1 as v1;
use std::time::Instant;

/// Seconds a container gets to end by itself.
const GRACE_SECS: i64 = 10;

/// Measures `count` pods after one that is not counted.
pub(crate) async fn measure(
    target: &Target,
    plan: &Plan,
    network: Network,
    count: usize,
    report: &mut Report,
) -> Result<()> {
    let section = format!("One pod at a time, {} network (ms)", network.word());
    for number in 0..=count {
        let mut clock = Clock { target, section: &section, report, counts: number > 0 };
        one(target, plan, network, &mut clock)
            .await
            .with_context(|| format!("{}: pod {number}", target.name))?;
    }
    Ok(())
}

/// Takes the times of calls.
struct Clock<'a> {
    target: &'a Target,
    section: &'a str,
    report: &'a mut Report,
    counts: bool,
}

impl Clock<'_> {
    /// Awaits a call, notes how long it took, and returns its answer.
    async fn time<T>(
        &mut self,
        name: &str,
        call: impl Future<Output = Result<T, tonic::Status>>,
    ) -> Result<T> {
        let began = Instant::now();
        let answer = call.await.with_context(|| name.to_owned())?;
        self.note(name, began);
        Ok(answer)
    }

    fn note(&mut self, name: &str, began: Instant) {
        if self.counts {
            self.report.add(self.section, name, &self.target.name, began.elapsed().as_secs_f64() * 1000.0);
        }
    }
}

async fn one(target: &Target, plan: &Plan, network: Network, clock: &mut Clock<'_>) -> Result<()> {
    let mut runtime = target.runtime();
    let began = Instant::now();
    let running = start(target, plan, network, clock).await?;
    clock.note("pod up (the three together)", began);
    let container_id = running.container.clone();
    let exec =
        v1::ExecSyncRequest { container_id: container_id.clone(), cmd: vec!["true".into()], timeout: 10 };
    let answer = clock.time("ExecSync true", runtime.exec_sync(exec)).await?.into_inner();
    ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
    let status = v1::ContainerStatusRequest { container_id: container_id.clone(), verbose: false };
    clock.time("ContainerStatus", runtime.container_status(status)).await?;
    clock.time("ListContainers", runtime.list_containers(v1::ListContainersRequest::default())).await?;
    clock.time("ListPodSandbox", runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default())).await?;
    clock
        .time("ListContainerStats", runtime.list_container_stats(v1::ListContainerStatsRequest::default()))
        .await?;
    let stop = v1::StopContainerRequest { container_id, timeout: GRACE_SECS };
    clock.time("StopContainer", runtime.stop_container(stop)).await?;
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: running.pod.clone() };
    clock.time("StopPodSandbox", runtime.stop_pod_sandbox(stop)).await?;
    let remove = v1::RemovePodSandboxRequest { pod_sandbox_id: running.pod };
    clock.time("RemovePodSandbox", runtime.remove_pod_sandbox(remove)).await?;
    Ok(())
}

async fn start(target: &Target, plan: &Plan, network: Network, clock: &mut Clock<'_>) -> Result<Running> {
    let mut runtime = target.runtime();
    let described = plan.describe(network, Program::Shell)?;
    let run = v1::RunPodSandboxRequest { config: Some(described.pod.clone()), ..Default::default() };
    let pod = clock.time("RunPodSandbox", runtime.run_pod_sandbox(run)).await?.into_inner().pod_sandbox_id;
    let create = v1::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(described.container),
        sandbox_config: Some(described.pod),
    };
    let container =
        clock.time("CreateContainer", runtime.create_container(create)).await?.into_inner().container_id;
    let request = v1::StartContainerRequest { container_id: container.clone() };
    clock.time("StartContainer", runtime.start_container(request)).await?;
    Ok(Running { pod, container })
}
