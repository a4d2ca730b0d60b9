//! What is shown of a kubelet on Pintle: a table of checks in groups.

mod faults;
mod input;
mod inside;
mod life;
mod settings;
mod storms;
mod streams;
mod workloads;

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::node::Node;
use super::programs::Release;
use super::table::Group;

pub(in crate::cluster) use storms::TABLE as STORMS;
pub(in crate::cluster) use workloads::TABLE as WORKLOADS;

/// The groups, in the order in which they are run.
pub(super) fn groups(release: Release) -> &'static [&'static Group] {
    match release {
        Release::Newest => {
            &[&life::GROUP, &inside::GROUP, &streams::GROUP, &input::GROUP, &faults::GROUP, &settings::GROUP]
        }
        Release::Last22 => &[&life::GROUP, &inside::GROUP, &streams::GROUP, &input::GROUP, &faults::GROUP],
    }
}

/// What a kubelet of 1.22 does not have.
pub(super) const LATER: &[&str] = &[
    "a sidecar begins before and ends after the others",
    "liveness and readiness by gRPC",
    "an image as a volume",
    "users of the pod's own",
    // One whose manifest went while no runtime answered is ended once, in vain, and forgotten by that kubelet.
    "pods made and deleted while the daemon is killed again and again",
    // Its `logs -f` ends with the file that it began with (kubernetes#115701).
    "logs -f across rotations: every line, once, in order",
    // It knows no pinned images.
    "garbage collection takes what nobody needs, and no pinned image",
    // It takes those of the network from its cAdvisor, which knows no pod without a pause container.
    "statistics of pods, containers, network and images",
];

/// What is still there of pods, when none is wanted any more.
pub(super) fn leftovers(node: &Node) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (what, args) in [("pod", ["pods", "-q"]), ("container", ["ps", "-aq"])] {
        left.extend(node.pintle(&args)?.lines().map(|line| format!("{what} {line}")));
    }
    let mounts = fs::read_to_string(node.seen("/proc/self/mountinfo")).unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let of_pods =
        places.filter(|place| place.contains("/var/lib/kubelet/pods/") || place.contains("/run/pintle/"));
    left.extend(of_pods.map(|place| format!("mount {place}")));
    for hierarchy in fs::read_dir("/sys/fs/cgroup")?.flatten() {
        // Kubelets before 1.24 do not know this tree beside those of version 1: there, the pod's empty group that Pintle made on the way to
        // a container's own stays, and nobody takes it away.
        if node.release == Release::Last22 && hierarchy.file_name() == "unified" {
            continue;
        }
        groups_of_pods(&hierarchy.path().join(&node.group).join("kubepods"), &mut left);
    }
    Ok(left)
}

fn groups_of_pods(group: &Path, left: &mut Vec<String>) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("pod") {
                left.push(format!("control group {}", entry.path().display()));
            } else {
                groups_of_pods(&entry.path(), left);
            }
        }
    }
}
