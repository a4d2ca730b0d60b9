//! What fails under a kubelet: daemon, kubelet, shim, network. Nothing gets stuck, and no container runs twice.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::super::images::{PINNED, UNUSED};
use super::super::kubelet::{PATIENCE, is, part};
use super::super::manifests::{at_shared, pod, shared, shell, simple, with};
use super::super::node::{Node, until};
use super::super::table::{Check, Group};

pub(super) const GROUP: Group = Group { name: "faults", checks: CHECKS };

const STATUS: &str = "/status/containerStatuses/0";

const CHECKS: &[Check] = &[
    Check {
        name: "the daemon killed and started again: the same containers, none twice",
        pods: |node| vec![counted(node, "steady")],
        shown: |node| {
            let before = now(node, "steady")?;
            node.end_daemon(Signal::KILL)?;
            node.start_daemon()?;
            goes_on(node, "steady", &before)
        },
    },
    Check {
        name: "a container that ends while no daemon is there: its exit code, and it is started again",
        pods: |node| {
            let script = "until [ -e /shared/go ]; do sleep 0.1; done; [ -e /shared/gone ] && sleep 1000; touch /shared/gone; exit 9";
            let container = with(shell("c", script), json!({ "volumeMounts": [at_shared()] }));
            vec![pod("ends-alone", json!({ "containers": [container], "volumes": [shared(node)] }))]
        },
        shown: |node| {
            // Its first start may have fallen into the kill of the check before.
            let starts = |pod: &Value| pod.pointer(&format!("{STATUS}/restartCount")).and_then(Value::as_i64);
            let before = starts(&node.ready("ends-alone")?);
            node.end_daemon(Signal::KILL)?;
            fs::write(node.shared("go"), "")?;
            until("its end", PATIENCE, || Ok(node.shared("gone").exists().then_some(())))?;
            node.start_daemon()?;
            let pod = node.when("ends-alone", "started again", |pod| {
                starts(pod) > before && pod["status"]["containerStatuses"][0]["ready"] == true
            })?;
            is(&pod, &format!("{STATUS}/lastState/terminated/exitCode"), 9)
        },
    },
    Check {
        name: "pods made and deleted while the daemon is killed again and again",
        pods: |_| vec![],
        shown: |node| {
            let names: Vec<String> = (0..12).map(|number| format!("churn-{number}")).collect();
            for name in &names {
                node.apply(&simple(name, "echo up; sleep 1000"))?;
            }
            for _ in 0..3 {
                std::thread::sleep(Duration::from_millis(700));
                node.end_daemon(Signal::KILL)?;
                node.start_daemon()?;
            }
            for name in &names {
                let pod = node.ready(name)?;
                ensure!(part(&pod, "/status/podIP")?.is_string(), "{name} has no address");
            }
            let pods = node.pintle(&["ps", "--format", "json"]).unwrap_or_default();
            for name in &names {
                node.delete(name);
            }
            node.end_daemon(Signal::KILL)?;
            std::thread::sleep(Duration::from_millis(300));
            node.start_daemon()?;
            for name in &names {
                node.gone(name).with_context(|| format!("before the end there were {pods}"))?;
            }
            Ok(())
        },
    },
    Check {
        name: "the kubelet killed and started again: the same containers",
        pods: |node| vec![counted(node, "under-kubelet")],
        shown: |node| {
            let before = now(node, "under-kubelet")?;
            node.end_kubelet(Signal::KILL)?;
            node.start_kubelet(&json!({}))?;
            goes_on(node, "under-kubelet", &before)
        },
    },
    Check {
        name: "a shim killed: its pod comes again, and only its pod",
        pods: |node| vec![counted(node, "bereft"), counted(node, "neighbour")],
        shown: |node| {
            let (before, _, runs_before) = now(node, "bereft")?;
            let neighbour = now(node, "neighbour")?;
            let shim = shim_of(node, &before)?;
            kill_process(Pid::from_raw(shim).context("a pid")?, Signal::KILL)?;
            node.when("bereft", "another container", |pod| id(pod).is_ok_and(|now| now != before))?;
            node.ready("bereft")?;
            until("the marks of the new one", PATIENCE, || {
                Ok((runs(node, "bereft")? > runs_before).then_some(()))
            })?;
            goes_on(node, "neighbour", &neighbour)
        },
    },
    Check {
        name: "no network: said, not ready, and good again by itself",
        pods: |_| vec![],
        shown: |node| {
            node.take_network()?;
            until("the node's condition", PATIENCE, || {
                let log = node.kubelet_log();
                let line =
                    log.lines().rev().find(|line| line.contains("Container runtime network not ready"));
                Ok(line.filter(|line| line.contains("NetworkReady=false")).map(drop))
            })?;
            node.apply(&simple("unconnected", "echo connected; sleep 1000"))?;
            let line = node.event("unconnected", &["NetworkNotReady"])?;
            ensure!(line.contains("pintle network init"), "the event does not say what to do: {line}");
            node.give_network()?;
            node.ready("unconnected")?;
            node.delete("unconnected");
            node.gone("unconnected")
        },
    },
    Check {
        name: "garbage collection takes what nobody needs, and no pinned image",
        pods: |_| vec![],
        shown: |node| {
            node.pintle(&["pull", PINNED])?;
            node.pintle(&["pull", UNUSED])?;
            node.end_kubelet(Signal::TERM)?;
            // The node is nearly full now, it thinks.
            let full = json!({ "evictionHard": { "imagefs.available": "99.9%", "nodefs.available": "1%" }, "evictionPressureTransitionPeriod": "1s" });
            node.start_kubelet(&full)?;
            until("the unused image's end", PATIENCE, || {
                Ok((!node.pintle(&["images"])?.contains("cluster/unused")).then_some(()))
            })?;
            let images = node.pintle(&["images"])?;
            ensure!(images.contains("cluster/pinned"), "the pinned image is gone:\n{images}");
            node.end_kubelet(Signal::TERM)?;
            node.start_kubelet(&json!({}))
        },
    },
];

/// A pod whose runs write their marks into one file, over and over: two at the same time would be seen there.
fn counted(node: &Node, name: &str) -> Value {
    let script = format!(
        "me=$(cat /proc/sys/kernel/random/uuid); while :; do echo $me >>/shared/{name}-marks; sleep 0.1; done"
    );
    let container = with(shell("c", &script), json!({ "volumeMounts": [at_shared()] }));
    pod(name, json!({ "containers": [container], "volumes": [shared(node)] }))
}

/// How many runs there were, one after the other; an error where two were at the same time.
fn runs(node: &Node, name: &str) -> Result<usize> {
    let marks = fs::read_to_string(node.shared(&format!("{name}-marks")))?;
    let mut runs: Vec<&str> = marks.lines().collect();
    runs.dedup();
    let distinct: std::collections::BTreeSet<&&str> = runs.iter().collect();
    ensure!(distinct.len() == runs.len(), "{name} ran twice at the same time: {runs:?}");
    Ok(runs.len())
}

fn id(pod: &Value) -> Result<String> {
    Ok(part(pod, &format!("{STATUS}/containerID"))?
        .as_str()
        .unwrap_or_default()
        .trim_start_matches("pintle://")
        .to_owned())
}

/// What of a pod has to stay: the container, and how often it was started.
fn now(node: &Node, name: &str) -> Result<(String, Value, usize)> {
    let pod = node.ready(name)?;
    until("its first mark", PATIENCE, || Ok(runs(node, name).ok()))?;
    Ok((id(&pod)?, part(&pod, &format!("{STATUS}/restartCount"))?.clone(), runs(node, name)?))
}

/// It is the same container after two of the kubelet's rounds, and it does what it is told.
fn goes_on(node: &Node, name: &str, before: &(String, Value, usize)) -> Result<()> {
    std::thread::sleep(Duration::from_secs(3));
    let after = now(node, name)?;
    ensure!(after == *before, "{name} was {before:?} and is {after:?}");
    node.run(name, "c", "true").map(drop)
}

/// The process that the container's first process is a child of.
fn shim_of(node: &Node, container: &str) -> Result<i32> {
    let inspected: Value = serde_json::from_str(&node.pintle(&["inspect", container])?)?;
    let pid = find(&inspected, "pid").with_context(|| format!("no pid in {inspected}"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("a parent")?;
    Ok(parent.trim().parse()?)
}

fn find(value: &Value, key: &str) -> Option<i64> {
    match value {
        Value::Object(fields) => {
            fields.get(key).and_then(Value::as_i64).or_else(|| fields.values().find_map(|one| find(one, key)))
        }
        Value::Array(list) => list.iter().find_map(|one| find(one, key)),
        _ => None,
    }
}
