//! Takes everything away, in order, also when the demonstration was interrupted half-way. A step that fails is told and does not stop the next.

use super::leftovers::{children, control_groups, mounts_below, reap};
use super::scratch::Scratch;
use super::story::Story;
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::inventory::Inventory;
use crate::cli::rm::remove_pod;
use network::{NetworkConfig, Networks};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Signal, kill_process};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long removing all pods may take; what is left then goes with the daemon.
const PATIENCE: Duration = Duration::from_secs(20);

/// Switches that a pod network turns on, with their values before.
pub(super) struct Switches(Vec<(PathBuf, String)>);

impl Switches {
    /// Notes how they stand.
    pub(super) fn note() -> Switches {
        let names = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/route_localnet"];
        let paths = names.iter().map(|name| Path::new("/proc/sys/net").join(name));
        Switches(
            paths.filter_map(|path| Some((path.clone(), std::fs::read_to_string(&path).ok()?))).collect(),
        )
    }

    /// Turns back the ones that differ.
    fn restore(&self, problems: &mut Vec<String>) {
        for (path, before) in &self.0 {
            if std::fs::read_to_string(path).is_ok_and(|now| now != *before)
                && let Err(error) = std::fs::write(path, before)
            {
                problems.push(format!("setting {} back to {}: {error}", path.display(), before.trim()));
            }
        }
    }
}

/// Removes all of it; returns what did not go well.
pub(super) async fn clean(story: &mut Story, switches: &Switches) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(daemon) = &mut story.daemon {
        match tokio::time::timeout(PATIENCE, remove_pods(&story.scratch)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => problems.push(failure.to_string()),
            Err(_) => problems.push(format!("the pods were not gone after {} seconds", PATIENCE.as_secs())),
        }
        problems.extend(daemon.stop().await.err());
        story.daemon = None;
    }
    end_processes(&mut problems).await;
    remove_network(&story.scratch, &mut problems);
    unmount_all(&story.scratch, &mut problems);
    remove_control_groups(&story.scratch, &mut problems).await;
    switches.restore(&mut problems);
    remove_directory(&story.scratch, &mut problems);
    problems
}

/// All the daemon has, whatever the story knew of it: a request that was interrupted may have succeeded.
async fn remove_pods(scratch: &Scratch) -> Result<(), Failure> {
    let client = match Client::connect(&scratch.socket().into()).await {
        Ok(client) => client,
        // It never came up, so there is nothing to remove.
        Err(Failure::NoRuntime { .. } | Failure::Deserted { .. }) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let inventory = Inventory::load(&client).await?;
    for pod in &inventory.pods {
        remove_pod(&client, &inventory, pod).await?;
    }
    Ok(())
}

/// Shims whose daemon ended are children of this process, which made itself their reaper; they end by themselves when their pod is gone.
async fn end_processes(problems: &mut Vec<String>) {
    let began = Instant::now();
    loop {
        reap();
        let left = children();
        if left.is_empty() {
            return;
        }
        if began.elapsed() > Duration::from_secs(2) {
            for (pid, name) in left {
                problems.push(format!("the process {} ({name}) had to be killed", pid.as_raw_nonzero()));
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if began.elapsed() > Duration::from_secs(5) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn remove_network(scratch: &Scratch, problems: &mut Vec<String>) {
    let state_dir = scratch.state().join("network");
    if !state_dir.exists() {
        return;
    }
    let config = NetworkConfig {
        conf_dir: scratch.cni_directory(),
        root_dir: scratch.root().join("network"),
        state_dir,
        ..NetworkConfig::default()
    };
    let removed = Networks::new(config)
        .map_err(|error| error.to_string())
        .and_then(|networks| networks.remove_network(&scratch.tag).map_err(|error| error.to_string()));
    problems.extend(removed.err().map(|error| format!("removing the network: {error}")));
}

fn unmount_all(scratch: &Scratch, problems: &mut Vec<String>) {
    // The newest first: one may lie on another.
    for place in mounts_below(scratch.directory()).into_iter().rev() {
        problems.push(format!("the mount {} was left and had to be taken away", place.display()));
        let _ = unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

async fn remove_control_groups(scratch: &Scratch, problems: &mut Vec<String>) {
    for group in control_groups(&scratch.tag) {
        // A process that has just been killed may still be leaving.
        let began = Instant::now();
        while let Err(error) = remove_tree(&group) {
            if began.elapsed() > Duration::from_secs(2) {
                problems.push(format!("removing the control group {}: {error}", group.display()));
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Control groups go by rmdir alone, from the innermost out; their files cannot be removed and need not be.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

fn remove_directory(scratch: &Scratch, problems: &mut Vec<String>) {
    let directory = scratch.directory();
    // Removing the files below a mount that would not go might remove somebody else's.
    if let Some(place) = mounts_below(directory).first() {
        problems.push(format!(
            "{} is not removed: {} is still mounted",
            directory.display(),
            place.display()
        ));
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(directory) {
        problems.push(format!("removing {}: {error}", directory.display()));
    }
}
