//! Faults under load in a cluster: what breaks while many pods come and go, and that nothing stays broken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::super::manifests::shell;
use super::super::node::until;
use super::super::plane::Cluster;
use super::super::sandbox::ip;
use super::super::table::Shown;

/// How long all of many pods may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

pub(in crate::cluster) const TABLE: &[Shown] = &[
    Shown {
        name: "200 pods at once while every daemon is killed and started again: all Ready, all gone",
        shown: storm,
    },
    Shown { name: "100 pods on each node: the kubelet's relists stay below 100 ms", shown: relists },
    Shown { name: "kubelets killed and started again under 60 pods: the same containers", shown: kubelets },
    Shown {
        name: "a node's network cut for a minute: NotReady, Ready again, the same containers",
        shown: cut,
    },
];

fn crowd(cluster: &Cluster, replicas: usize) -> Result<()> {
    let template = json!({ "metadata": { "labels": { "app": "storm" } }, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [shell("c", "sleep 10000")],
        // A node that is away for a minute keeps its pods.
        "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }] } });
    cluster.apply(&json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "storm" },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "app": "storm" } }, "template": template } }))
}

fn pods(cluster: &Cluster) -> Result<Vec<Value>> {
    Ok(cluster.get(&["pods", "-l", "app=storm"])?["items"].as_array().cloned().unwrap_or_default())
}

fn ready(cluster: &Cluster) -> Result<()> {
    let patience = format!("--timeout={}s", PATIENCE.as_secs());
    cluster.kubectl(&["rollout", "status", "deployment/storm", &patience]).map(drop)
}

fn gone(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["delete", "deployment", "storm", "--timeout=120s"])?;
    until("the end of all", PATIENCE, || Ok(pods(cluster)?.is_empty().then_some(())))
}

/// Each pod's container, and how often it was started again.
fn containers(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let of = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        (pod["metadata"]["name"].to_string(), json!([status["containerID"], status["restartCount"]]))
    };
    Ok(pods(cluster)?.iter().map(of).collect())
}

fn storm(cluster: &Cluster) -> Result<()> {
    let begun = Instant::now();
    crowd(cluster, 200)?;
    for _ in 0..2 {
        for node in &cluster.nodes {
            std::thread::sleep(Duration::from_secs(1));
            node.end_daemon(Signal::KILL)?;
            node.start_daemon()?;
        }
    }
    ready(cluster)?;
    let made = begun.elapsed();
    let addresses: std::collections::BTreeSet<String> =
        pods(cluster)?.iter().map(|pod| pod["status"]["podIP"].to_string()).collect();
    ensure!(addresses.len() == 200, "200 pods have {} addresses", addresses.len());
    let begun = Instant::now();
    cluster.kubectl(&["delete", "deployment", "storm", "--wait=false"])?;
    for node in &cluster.nodes {
        node.end_daemon(Signal::KILL)?;
        node.start_daemon()?;
    }
    until("the end of all", PATIENCE, || Ok(pods(cluster)?.is_empty().then_some(())))?;
    println!(
        "                200 pods: Ready after {:.1} s, gone after {:.1} s",
        made.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

fn relists(cluster: &Cluster) -> Result<()> {
    crowd(cluster, 300)?;
    ready(cluster)?;
    // How many there were, and how many of them were fast, of all nodes together.
    let counted = || -> Result<(f64, f64)> {
        let mut counted = (0.0, 0.0);
        for node in &cluster.nodes {
            let metrics =
                cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{}/proxy/metrics", node.name)])?;
            let value = |part: &str| {
                let of = |line: &&str| {
                    line.starts_with("kubelet_pleg_relist_duration_seconds") && line.contains(part)
                };
                metrics
                    .lines()
                    .find(of)
                    .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                    .unwrap_or(0.0)
            };
            counted = (counted.0 + value("_count"), counted.1 + value("le=\"0.1\""));
        }
        Ok(counted)
    };
    let before = counted()?;
    let after =
        until("60 relists", PATIENCE, || Ok(Some(counted()?).filter(|now| now.0 >= before.0 + 60.0)))?;
    let (all, fast) = (after.0 - before.0, after.1 - before.1);
    println!("                of {all} relists with 100 pods on each node, {fast} took less than 100 ms");
    gone(cluster)?;
    // A machine that is busy otherwise holds up one or another.
    ensure!(fast >= 0.9 * all, "of {all} relists only {fast} took less than 100 ms");
    Ok(())
}

fn kubelets(cluster: &Cluster) -> Result<()> {
    crowd(cluster, 60)?;
    ready(cluster)?;
    let before = containers(cluster)?;
    for node in &cluster.nodes {
        node.end_kubelet(Signal::KILL)?;
        cluster.start_kubelet(node)?;
    }
    std::thread::sleep(Duration::from_secs(5));
    ready(cluster)?;
    ensure!(containers(cluster)? == before, "other containers run than before");
    gone(cluster)
}

fn cut(cluster: &Cluster) -> Result<()> {
    crowd(cluster, 12)?;
    ready(cluster)?;
    let before = containers(cluster)?;
    let node = cluster.nodes.last().context("a node")?;
    let cable = format!("veth{}", cluster.nodes.len());
    let is = |wanted: &str| -> Result<Option<()>> {
        let object = cluster.get(&["node", &node.name])?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        Ok(ready.filter(|condition| condition["status"] == wanted).map(drop))
    };
    ip(&format!("link set {cable} down"))?;
    let away = until("the node's absence is noticed", PATIENCE, || is("Unknown"));
    // Whatever was noticed, the cable goes back.
    ip(&format!("link set {cable} up"))?;
    away?;
    until("the node is back", PATIENCE, || is("True"))?;
    ready(cluster)?;
    ensure!(containers(cluster)? == before, "other containers run than before");
    gone(cluster)
}
