//! The kubelet with other settings: its feature gates on and off, and what it is told wrong.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::super::kubelet::{PATIENCE, encoded};
use super::super::manifests::simple;
use super::super::node::{Node, until};
use super::super::table::{Check, Group};

pub(super) const GROUP: Group = Group { name: "settings", checks: CHECKS };

const CHECKS: &[Check] = &[
    Check {
        name: "the gates EventedPLEG, CRIListStreaming, ExtendWebSocketsToKubelet, PodAndContainerStatsFromCRI off",
        pods: |_| vec![],
        shown: |node| with_gates(node, "gates-off", false),
    },
    Check { name: "and on", pods: |_| vec![], shown: |node| with_gates(node, "gates-on", true) },
    Check {
        name: "a wrong socket is named",
        pods: |_| vec![],
        shown: |node| {
            node.end_kubelet(Signal::TERM)?;
            let wrong = json!({ "containerRuntimeEndpoint": "unix:///run/pintle/no-such.sock" });
            let Err(error) = node.start_kubelet(&wrong) else { bail!("the kubelet started") };
            let error = format!("{error:#}");
            ensure!(error.contains("/run/pintle/no-such.sock"), "the kubelet says: {error}");
            node.start_kubelet(&json!({}))
        },
    },
];

/// A pod's life with these gates: it is made, seen, streamed from, measured, and it ends.
fn with_gates(node: &Node, name: &str, on: bool) -> Result<()> {
    node.end_kubelet(Signal::TERM)?;
    let gates =
        ["EventedPLEG", "CRIListStreaming", "ExtendWebSocketsToKubelet", "PodAndContainerStatsFromCRI"];
    let gates: Value = gates.map(|gate| (gate.to_owned(), on)).into_iter().collect();
    node.start_kubelet(&json!({ "featureGates": gates }))?;
    node.apply(&simple(name, "echo up; until [ -e /tmp/end ]; do sleep 0.1; done; exit 5"))?;
    node.ready(name)?;
    node.says(name, "c", &["up"])?;
    for transport in ["spdy", "websocket"] {
        let path = format!(
            "/exec/default/{}/c?output=1&error=1&command=echo&command={}",
            node.full(name),
            encoded("a b")
        );
        let done = node.agent(&["exec", transport, &node.url(&path)], b"")?;
        ensure!(done.stdout == b"a b\n", "exec over {transport}: {done:?}");
    }
    until("the pod's memory in /stats/summary", PATIENCE, || {
        let stats = node.summary(name).unwrap_or_default();
        let used = stats.pointer("/containers/0/memory/workingSetBytes").and_then(Value::as_u64);
        Ok(used.filter(|bytes| *bytes > 0))
    })?;
    node.run(name, "c", "touch /tmp/end")?;
    let again = "/status/containerStatuses/0/restartCount";
    let pod = node.when(name, "started again", |pod| pod.pointer(again) == Some(&json!(1)))?;
    let code = pod.pointer("/status/containerStatuses/0/lastState/terminated/exitCode");
    ensure!(code == Some(&json!(5)), "it ended with {code:?}");
    node.delete(name);
    node.gone(name)?;
    relists(node)?;
    node.end_kubelet(Signal::TERM)?;
    node.start_kubelet(&json!({}))
}

/// The kubelet's own measure of how long it takes to list what is there stays below 100 ms for most relists.
fn relists(node: &Node) -> Result<()> {
    let metrics = node.get("/metrics")?;
    let count = |part: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with("kubelet_pleg_relist_duration_seconds") && line.contains(part));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let (fast, all) = (count("le=\"0.1\""), count("_count"));
    ensure!(
        all > 0.0 && fast / all > 0.5,
        "of {all} relists {fast} took less than {:?}",
        Duration::from_millis(100)
    );
    Ok(())
}
