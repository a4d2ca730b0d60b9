//! What stays when much has come and gone: pods without end, one pod with many containers, and commands by the thousand. What a daemon holds
//! before and after stands side by side.

use crate::many;
use crate::pods::{Network, Plan, Program};
use crate::processes;
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result, ensure};
use cri::runtime_v1 as v1;
use std::time::{Duration, Instant};

/// How much, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How long pods come and go.
    pub(crate) churn: Duration,
    pub(crate) containers: usize,
    pub(crate) commands: usize,
}

const AT_ONCE: usize = 4;

/// How long the daemon may take to let go of what it needs no more.
const SETTLING: Duration = Duration::from_secs(15);

/// Measures all three, one after the other.
pub(crate) async fn measure(target: &Target, plan: &Plan, load: Load, report: &mut Report) -> Result<()> {
    churn(target, plan, load.churn, report).await?;
    containers(target, plan, load.containers, report).await?;
    commands(target, plan, load.commands, report).await
}

async fn churn(target: &Target, plan: &Plan, time: Duration, report: &mut Report) -> Result<()> {
    // What the first pods make for all that follow is no growth.
    let few = many::start_all(target, plan, AT_ONCE, AT_ONCE, "", &mut Report::nothing()).await?;
    many::remove_all(target, few, AT_ONCE).await?;
    tokio::time::sleep(SETTLING).await;
    let section = format!("Pods that come and go for {} s, {AT_ONCE} at a time", time.as_secs());
    note(target, &section, "before", report);
    let (began, mut count) = (Instant::now(), 0);
    while began.elapsed() < time {
        let pods = many::start_all(target, plan, AT_ONCE * 5, AT_ONCE, "", &mut Report::nothing()).await?;
        count += pods.len();
        many::remove_all(target, pods, AT_ONCE).await?;
    }
    report.add(&section, "pods", &target.name, count as f64);
    tokio::time::sleep(SETTLING).await;
    note(target, &section, "after", report);
    Ok(())
}

async fn containers(target: &Target, plan: &Plan, count: usize, report: &mut Report) -> Result<()> {
    let section = format!("One pod with {count} containers");
    let mut runtime = target.runtime();
    let described = plan.describe(Network::Pod, Program::Sleep)?;
    let run = v1::RunPodSandboxRequest { config: Some(described.pod.clone()), ..Default::default() };
    let pod = runtime.run_pod_sandbox(run).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
    for number in 0..count {
        let mut config = described.container.clone();
        config.metadata = Some(v1::ContainerMetadata { name: format!("c{number}"), attempt: 0 });
        config.log_path = format!("c{number}.log");
        let began = Instant::now();
        let create = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(config),
            sandbox_config: Some(described.pod.clone()),
        };
        let answer = runtime.create_container(create).await.context("CreateContainer")?.into_inner();
        let start = v1::StartContainerRequest { container_id: answer.container_id };
        runtime.start_container(start).await.context("StartContainer")?;
        let which = match number {
            0..10 => "one of the first ten to running (ms)",
            _ if number + 10 >= count => "one of the last ten to running (ms)",
            _ => continue,
        };
        report.add(&section, which, &target.name, began.elapsed().as_secs_f64() * 1e3);
    }
    let began = Instant::now();
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
    runtime.stop_pod_sandbox(stop).await.context("StopPodSandbox")?;
    runtime
        .remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod })
        .await
        .context("RemovePodSandbox")?;
    report.add(&section, "stopped and removed (ms)", &target.name, began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

async fn commands(target: &Target, plan: &Plan, count: usize, report: &mut Report) -> Result<()> {
    let section = format!("{count} commands in one container, {AT_ONCE} at a time");
    let pods = many::start_all(target, plan, 1, 1, "", &mut Report::nothing()).await?;
    let container_id = pods.first().context("no pod")?.container.clone();
    note(target, &section, "before", report);
    let began = Instant::now();
    let done = many::in_parallel((0..count).collect(), AT_ONCE, |_| {
        let (target, container_id) = (target.clone(), container_id.clone());
        async move {
            let exec = v1::ExecSyncRequest { container_id, cmd: vec!["true".into()], timeout: 10 };
            let answer = target.runtime().exec_sync(exec).await.context("ExecSync")?.into_inner();
            ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
            Ok(())
        }
    });
    done.await?;
    let per_command = began.elapsed().as_secs_f64() * 1e3 / count.max(1) as f64;
    report.add(&section, "one in (ms), all together", &target.name, per_command);
    tokio::time::sleep(SETTLING).await;
    note(target, &section, "after", report);
    many::remove_all(target, pods, 1).await
}

/// What the daemon holds, and what the machine has for it.
fn note(target: &Target, section: &str, when: &str, report: &mut Report) {
    let Some(daemon) = target.daemon_pid else { return };
    let lines = |file: &str| std::fs::read_to_string(file).unwrap_or_default().lines().count() as f64;
    let held = [
        ("PSS of the daemon (MiB)", processes::memory(daemon).map_or(0.0, |usage| usage.pss_kib / 1024.0)),
        ("threads of the daemon", processes::threads(daemon) as f64),
        ("descriptors of the daemon", processes::descriptors(daemon) as f64),
        ("mounts", lines("/proc/self/mountinfo")),
        ("helpers", processes::helpers(daemon, &report.cgroup_parent).len() as f64),
    ];
    for (what, value) in held {
        report.add(section, &format!("{what}, {when}"), &target.name, value);
    }
}
