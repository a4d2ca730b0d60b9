//! Running the checks, which are data, and saying how each went.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::checks;
use super::node::{Node, until};
use super::plane::Cluster;
use super::programs::Release;
use super::sandbox::Place;

/// One thing that is shown.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// The pods that it looks at. Those of a whole group are begun at once.
    pub(super) pods: fn(&Node) -> Vec<Value>,
    /// Looks, and says what is not as it should be.
    pub(super) shown: fn(&Node) -> Result<()>,
}

/// Checks whose pods live at the same time.
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) checks: &'static [Check],
}

/// One thing that is shown of a cluster; it makes its objects itself, and removes them.
pub(super) struct Shown {
    pub(super) name: &'static str,
    pub(super) shown: fn(&Cluster) -> Result<()>,
}

/// How many went how.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    fn note(&mut self, name: &str, begun: Instant, result: Result<()>) {
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok     {seconds:5.1} s  {name}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED {seconds:5.1} s  {name}: {error:#}");
            }
        }
    }

    fn end(self) -> Result<()> {
        println!("{} passed, {} failed", self.passed, self.failed);
        match (self.passed, self.failed) {
            (0, _) => bail!("no check has a name like that"),
            (_, 0) => Ok(()),
            _ => bail!("not all checks passed"),
        }
    }
}

/// The kubelet alone: every group of checks, and at the end a look at what is left.
pub(super) fn one_node(place: &Place, focus: Option<&str>) -> Result<()> {
    let node = Node::make(place, 1)?;
    node.start_daemon()?;
    node.start_kubelet(&json!({}))?;
    let mut tally = Tally::default();
    for group in checks::groups(place.release) {
        run(&node, group, |check| chosen(place, focus, group, check), &mut tally);
    }
    let begun = Instant::now();
    tally.note("nothing is left", begun, nothing_left(&node));
    node.end_kubelet(Signal::TERM)?;
    node.end_daemon(Signal::TERM)?;
    tally.end()
}

/// Three nodes under a control plane.
pub(super) fn cluster(place: &Place, focus: Option<&str>) -> Result<()> {
    let begun = Instant::now();
    let cluster = Cluster::begin(place, 3)?;
    println!("the cluster is up after {:.1} s", begun.elapsed().as_secs_f64());
    let mut tally = Tally::default();
    for check in checks::WORKLOADS
        .iter()
        .chain(checks::STORMS)
        .filter(|check| focus.is_none_or(|focus| check.name.contains(focus)))
    {
        let begun = Instant::now();
        tally.note(check.name, begun, (check.shown)(&cluster));
    }
    let begun = Instant::now();
    for node in &cluster.nodes {
        tally.note(&format!("nothing is left on {}", node.name), begun, nothing_left(node));
    }
    cluster.all_run()?;
    tally.end()
}

/// Whether a check is of this run.
fn chosen(place: &Place, focus: Option<&str>, group: &Group, check: &Check) -> bool {
    let later = place.release == Release::Last22 && checks::LATER.contains(&check.name);
    !later && focus.is_none_or(|focus| check.name.contains(focus) || group.name == focus)
}

fn run(node: &Node, group: &Group, chosen: impl Fn(&Check) -> bool, tally: &mut Tally) {
    let chosen: Vec<&Check> = group.checks.iter().filter(|check| chosen(check)).collect();
    if chosen.is_empty() {
        return;
    }
    println!("-- {}", group.name);
    let pods: Vec<Value> = chosen.iter().flat_map(|check| (check.pods)(node)).collect();
    let mut begun = Instant::now();
    for pod in &pods {
        if let Err(error) = node.apply(pod) {
            tally.note("a manifest is written", begun, Err(error));
        }
    }
    for check in chosen {
        tally.note(check.name, begun, (check.shown)(node));
        begun = Instant::now();
    }
    for name in pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()) {
        node.delete(name);
    }
    begun = Instant::now();
    let ended = until("the end of the group's pods", Duration::from_secs(90), || {
        let running: Value = serde_json::from_str(&node.get("/runningpods/")?)?;
        Ok(running["items"].as_array().is_none_or(Vec::is_empty).then_some(()))
    });
    tally.note("and its pods end", begun, ended);
}

/// Without manifests: no pod, no container, no shim, no control group of a pod, no address, no mount of one.
fn nothing_left(node: &Node) -> Result<()> {
    let mut left = Vec::new();
    let empty = until("an empty node", Duration::from_secs(150), || {
        left = checks::leftovers(node)?;
        Ok(left.is_empty().then_some(()))
    });
    match empty {
        Ok(()) => Ok(()),
        Err(error) => bail!("{error:#}; left: {}", left.join("; ")),
    }
}

/// A node that stays until it is ended from outside.
pub(super) fn stay(place: &Place) -> Result<()> {
    let node = Node::make(place, 1)?;
    node.start_daemon()?;
    node.start_kubelet(&json!({ "readOnlyPort": 10255 }))?;
    println!("node {} runs; its files are in {}", node.name, node.folder.display());
    println!("  a pod's manifest goes into {}", node.folder.join("manifests").display());
    println!("  what is on it: curl -sk {} (in the node's network)", node.url("/pods"));
    println!("  end it by Ctrl-C, or by `cargo xtask cluster down` in another terminal");
    loop {
        std::thread::sleep(Duration::from_secs(1));
        if let Some(status) = node.kubelet_ended()? {
            bail!("the kubelet ended with {status}:\n{}", node.last_words());
        }
    }
}

/// Three nodes that stay until they are ended from outside.
pub(super) fn stay_as_cluster(place: &Place) -> Result<()> {
    let cluster = Cluster::begin(place, 3)?;
    println!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?);
    println!("in its network, from another terminal:");
    println!(
        "  nsenter -t $(pgrep -f 'etcd --data-dir {}') -n -m {}",
        place.folder.display(),
        cluster.kubectl_line()
    );
    println!("end it by Ctrl-C, or by `cargo xtask cluster down` in another terminal");
    loop {
        std::thread::sleep(Duration::from_secs(1));
        cluster.all_run()?;
    }
}
