//! Many pods at once: how fast they come and go, what calls cost while they are there, and what they cost the machine.

use crate::images::ToPull;
use crate::memory;
use crate::pods::{Network, Plan, Program, Running};
use crate::pulls;
use crate::report::Report;
use crate::target::Target;
use anyhow::{Context, Result, anyhow};
use cri::runtime_v1 as v1;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How often each call is made while the pods are there.
const CALLS: usize = 20;

/// How often lists are asked for while an image is pulled, and how long nothing is asked in between.
const LISTS: usize = 100;
const BETWEEN_LISTS: Duration = Duration::from_millis(20);

/// How many pods, and how.
pub(crate) struct Crowd<'a> {
    /// Pods that are there at the same time.
    pub(crate) count: usize,
    /// How many are made and removed at the same time.
    pub(crate) concurrency: usize,
    /// Over how many seconds idle processor use is taken.
    pub(crate) idle_secs: u64,
    /// What the runtime has used of the processors so far, in seconds, where that can be told.
    pub(crate) cpu: Option<&'a dyn Fn() -> f64>,
    /// What is pulled over and over while lists are asked for, if anything is.
    pub(crate) pull: Option<&'a ToPull>,
}

/// Makes the pods, measures, and removes them the same way.
pub(crate) async fn measure(
    target: &Target,
    plan: &Plan,
    crowd: &Crowd<'_>,
    report: &mut Report,
) -> Result<()> {
    let &Crowd { count, concurrency, idle_secs, cpu, pull } = crowd;
    let used = || cpu.map(|used| used());
    let section = format!("{count} pods, {concurrency} at a time");
    let before = memory::available_bytes();
    let (began, cpu_before) = (Instant::now(), used());
    let pods = start_all(target, plan, count, concurrency, &section, report).await?;
    report.add(&section, "all running (s)", &target.name, began.elapsed().as_secs_f64());
    if let Some((before, now)) = cpu_before.zip(used()) {
        report.add(&section, "processor time until all run (s)", &target.name, now - before);
    }
    calls(target, &pods, &format!("Calls with {count} pods present (ms)"), report).await?;
    if let Some(image) = pull {
        let section = format!("Calls with {count} pods present while {} are pulled (ms)", image.what);
        lists_while_pulling(target, image, &section, report).await?;
    }
    memory::with_pods(target, count, before, report);
    memory::idle_cpu(target, count, idle_secs, report).await;
    let began = Instant::now();
    remove_all(target, pods, concurrency).await?;
    report.add(&section, "all removed (s)", &target.name, began.elapsed().as_secs_f64());
    Ok(())
}

/// Removes the pods, `concurrency` at a time.
pub(crate) async fn remove_all(target: &Target, pods: Vec<Running>, concurrency: usize) -> Result<()> {
    let name = target.name.clone();
    let removed = in_parallel(pods, concurrency, |running| {
        let target = target.clone();
        async move { running.remove(&target).await }
    });
    removed.await.map(drop).with_context(|| format!("{name}: removing the pods"))
}

/// Makes `count` pods that run, `concurrency` at a time.
pub(crate) async fn start_all(
    target: &Target,
    plan: &Plan,
    count: usize,
    concurrency: usize,
    section: &str,
    report: &mut Report,
) -> Result<Vec<Running>> {
    let described =
        (0..count).map(|_| plan.describe(Network::Pod, Program::Sleep)).collect::<Result<Vec<_>>>()?;
    let started = in_parallel(described, concurrency, |described| {
        let target = target.clone();
        async move {
            let began = Instant::now();
            let running = Running::start(&target, described).await?;
            Ok((running, began.elapsed().as_secs_f64() * 1000.0))
        }
    })
    .await
    .with_context(|| format!("{}: starting the pods", target.name))?;
    let mut pods = Vec::with_capacity(count);
    for (running, millis) in started {
        report.add(section, "one pod to running (ms)", &target.name, millis);
        pods.push(running);
    }
    Ok(pods)
}

async fn calls(target: &Target, pods: &[Running], section: &str, report: &mut Report) -> Result<()> {
    let mut runtime = target.runtime();
    for running in pods.iter().cycle().take(CALLS) {
        let mut note = |name: &str, began: Instant| {
            report.add(section, name, &target.name, began.elapsed().as_secs_f64() * 1000.0);
        };
        let began = Instant::now();
        runtime.list_containers(v1::ListContainersRequest::default()).await.context("ListContainers")?;
        note("ListContainers", began);
        let began = Instant::now();
        runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.context("ListPodSandbox")?;
        note("ListPodSandbox", began);
        let request = v1::ContainerStatusRequest { container_id: running.container.clone(), verbose: false };
        let began = Instant::now();
        runtime.container_status(request).await.context("ContainerStatus")?;
        note("ContainerStatus", began);
        let began = Instant::now();
        runtime
            .list_container_stats(v1::ListContainerStatsRequest::default())
            .await
            .context("ListContainerStats")?;
        note("ListContainerStats", began);
    }
    Ok(())
}

/// Lists while the network, the processors and the disk are busy with an image.
async fn lists_while_pulling(
    target: &Target,
    image: &ToPull,
    section: &str,
    report: &mut Report,
) -> Result<()> {
    let pulling = async {
        loop {
            pulls::remove(target, image).await?;
            pulls::pull(target, image).await?;
        }
    };
    let listing = async {
        let mut runtime = target.runtime();
        for _ in 0..LISTS {
            tokio::time::sleep(BETWEEN_LISTS).await;
            let began = Instant::now();
            let listed = runtime.list_containers(v1::ListContainersRequest::default()).await;
            report.add(section, "ListContainers", &target.name, began.elapsed().as_secs_f64() * 1000.0);
            listed.context("ListContainers")?;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        failed = pulling => failed,
        listed = listing => listed,
    }?;
    // The last pull may go on without its client.
    pulls::pull(target, image).await?;
    pulls::remove(target, image).await
}

/// Does something to each item, `concurrency` at a time; the first error ends it.
pub(crate) async fn in_parallel<T, R, F>(
    items: Vec<T>,
    concurrency: usize,
    action: impl Fn(T) -> F,
) -> Result<Vec<R>>
where
    F: Future<Output = Result<R>> + Send + 'static,
    R: Send + 'static,
{
    let turns = Arc::new(Semaphore::new(concurrency.max(1)));
    let mut tasks = JoinSet::new();
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let turn = turns.clone().acquire_owned().await.map_err(|error| anyhow!(error))?;
        let work = action(item);
        tasks.spawn(async move {
            let result = work.await;
            drop(turn);
            result
        });
        while let Some(done) = tasks.try_join_next() {
            results.push(done??);
        }
    }
    while let Some(done) = tasks.join_next().await {
        results.push(done??);
    }
    Ok(results)
}
