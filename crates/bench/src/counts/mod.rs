//! What a pod costs in numbers that do not depend on the machine: processes, programs, syncs and system calls, counted by strace(1), against
//! bounds that stand in a file. One that has grown is a failure.

mod bounds;
mod trace;

use crate::images::Served;
use crate::peers;
use crate::pods::{Network, Plan, Program, Running};
use crate::target::Target;
use anyhow::{Context, Result, bail, ensure};
use bounds::Bounds;
use cri::runtime_v1 as v1;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use trace::{Counts, Trace};

/// Pods that are counted, after as many that warm everything up as make no difference any more. The least of all counts is taken: what comes
/// beside, such as a timer of the daemon, only adds.
const PODS: usize = 12;
const WARM: usize = 3;

/// How long what a call left to be done may take until the next one begins: it is counted with the call.
const SETTLING: Duration = Duration::from_millis(150);

/// How many calls more than its bound a number of calls may be. Which of two threads finds that there is nothing to read is chance.
const PLAY: u64 = 4;

const DOWN: &str = "pod down";

/// What is counted, and what becomes of it.
pub(crate) struct Wanted<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) bounds: &'a Path,
    /// Write the bounds instead of holding to them.
    pub(crate) bless: bool,
    pub(crate) cgroup_parent: &'a str,
}

/// A stretch of time in which one thing was done with a pod, in seconds since 1970.
struct Window {
    what: &'static str,
    from: f64,
    to: f64,
}

/// Counts and compares.
pub(crate) async fn run(wanted: &Wanted<'_>, images: &Served, scratch: &Path) -> Result<()> {
    let log = scratch.join("strace.log");
    let peer = peers::pintle::start_traced(wanted.binary, scratch, &log).await?;
    let measured = measure(wanted, images, scratch, &peer.given).await;
    peer.stop().await;
    crate::pods::remove_control_groups(wanted.cgroup_parent);
    let windows = measured?;
    until_written(&log).await?;
    let trace = Trace::parse(&std::fs::read_to_string(&log).context("what strace wrote")?);
    let found = counted(&trace, &windows)?;
    let host = host();
    let mut bounds = Bounds::read(wanted.bounds)?;
    print!("{}", bounds::table(&host, &found, bounds.of(&host)));
    if wanted.bless {
        bounds.set(&host, found);
        return bounds.write(wanted.bounds);
    }
    let Some(known) = bounds.of(&host) else {
        println!("there are no bounds for {host}; --bless writes them");
        return Ok(());
    };
    let grown = bounds::grown(&found, known, PLAY);
    if !grown.is_empty() {
        let place = wanted.bounds.display();
        bail!(
            "more than {place} allows:\n{}\nIf it is worth it, --bless writes new bounds",
            grown.join("\n")
        );
    }
    Ok(())
}

/// Waits until strace has written the last line: that the daemon, whose number stands in the first, has ended.
async fn until_written(log: &Path) -> Result<()> {
    for _ in 0..100 {
        let text = std::fs::read_to_string(log).context("what strace writes")?;
        let daemon = text.split_whitespace().next().unwrap_or_default();
        let is_end = |line: &str| line.starts_with(daemon) && line.contains(" +++ ");
        if !daemon.is_empty() && text.lines().rev().take(50).any(is_end) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("strace did not come to an end")
}

/// The least of every count over all windows of a kind.
fn counted(trace: &Trace, windows: &[Window]) -> Result<BTreeMap<String, u64>> {
    let mut least: BTreeMap<String, u64> = BTreeMap::new();
    for window in windows {
        let Counts { processes, programs, syncs, daemon, pod } = trace.between(window.from, window.to);
        ensure!(daemon > 0, "strace saw nothing of the daemon while `{}`", window.what);
        let counts = [
            ("processes", processes),
            ("programs", programs),
            ("syncs", syncs),
            ("calls of the daemon", daemon),
            ("calls of the pod's processes", pod),
        ];
        // What was removed goes off the disk behind the call's back, sooner or later.
        let is_chance = |name: &str| window.what == DOWN && name == "calls of the daemon";
        for (name, count) in counts.into_iter().filter(|(name, _)| !is_chance(name)) {
            let known = least.entry(format!("{}: {name}", window.what)).or_insert(u64::MAX);
            *known = count.min(*known);
        }
    }
    Ok(least)
}

/// How many calls a container takes depends on how many hierarchies of control groups it is in.
fn host() -> String {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of = |kind: &str| mounts.lines().filter(|line| line.contains(&format!(" - {kind} "))).count();
    match of("cgroup") {
        0 => "version 2".into(),
        count => format!("version 1, {count} hierarchies"),
    }
}

async fn measure(
    wanted: &Wanted<'_>,
    images: &Served,
    scratch: &Path,
    given: &crate::target::Given,
) -> Result<Vec<Window>> {
    let target = Target::connect(given).await?;
    let image = images.busybox().context("this machine has no static busybox (Debian: busybox-static)")?;
    let plan =
        Plan { image, cgroup_parent: wanted.cgroup_parent.to_owned(), directory: scratch.join("pods") };
    plan.prepare()?;
    target.pull_if_absent(&plan.image).await?;
    let mut windows = Vec::new();
    for number in 0..WARM + PODS {
        let made = one(&target, &plan).await.with_context(|| format!("pod {number}"));
        match made {
            Ok(more) if number >= WARM => windows.extend(more),
            Ok(_) => {}
            Err(error) => {
                let _ = target.remove_pods().await;
                return Err(error);
            }
        }
    }
    Ok(windows)
}

/// A pod's life, in windows.
async fn one(target: &Target, plan: &Plan) -> Result<Vec<Window>> {
    let mut runtime = target.runtime();
    let mut windows = Vec::new();
    let described = plan.describe(Network::Pod, Program::Sleep)?;
    let from = now();
    let running = Running::start(target, described).await?;
    windows.push(settled("pod up", from).await);
    let from = now();
    let container_id = running.container.clone();
    let exec = v1::ExecSyncRequest { container_id, cmd: vec!["true".into()], timeout: 10 };
    let answer = runtime.exec_sync(exec).await.context("ExecSync")?.into_inner();
    ensure!(answer.exit_code == 0, "true ended with {}", answer.exit_code);
    windows.push(settled("exec", from).await);
    let from = now();
    running.remove(target).await?;
    windows.push(settled(DOWN, from).await);
    Ok(windows)
}

async fn settled(what: &'static str, from: f64) -> Window {
    tokio::time::sleep(SETTLING).await;
    Window { what, from, to: now() }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Where the bounds stand in the source tree.
pub(crate) fn bounds_file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml")
}
