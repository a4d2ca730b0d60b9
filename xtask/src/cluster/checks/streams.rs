//! What is read and streamed through the kubelet: logs, exec, attach, port-forward, statistics.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::kubelet::{PATIENCE, encoded};
use super::super::manifests::{pod, shell, simple, with};
use super::super::node::{Node, until};
use super::super::table::{Check, Group};

pub(super) const GROUP: Group = Group { name: "streams", checks: CHECKS };

const CHECKS: &[Check] = &[
    Check {
        name: "logs -f across rotations: every line, once, in order",
        pods: |_| {
            vec![simple(
                "talker",
                "i=0; while [ $i -lt 6000 ]; do i=$((i+1)); echo line $i of a log that is turned over again and again; [ $((i % 200)) = 0 ] && sleep 0.4; done; echo the end; sleep 1000",
            )]
        },
        shown: |node| {
            node.when("talker", "running", |pod| pod["status"]["phase"] == "Running")?;
            followed(node)
        },
    },
    Check {
        name: "exec: output, errors, exit codes, a terminal, input to its end",
        pods: |_| vec![simple("shell", "sleep 1000")],
        shown: |node| ["spdy", "websocket"].iter().try_for_each(|transport| executed(node, transport)),
    },
    Check {
        name: "attach",
        pods: |_| {
            let script = "while read line; do echo got $line; done; echo end of input; sleep 1";
            let reader = |name: &str| {
                let more = json!({ "stdin": true, "stdinOnce": true });
                pod(name, json!({ "restartPolicy": "Never", "containers": [with(shell("c", script), more)] }))
            };
            vec![reader("attach-spdy"), reader("attach-websocket")]
        },
        shown: |node| {
            for transport in ["spdy", "websocket"] {
                let name = format!("attach-{transport}");
                node.ready(&name)?;
                let path = format!("/attach/default/{}/c?input=1&output=1&error=1", node.full(&name));
                let done = node.agent(&["exec", transport, &node.url(&path)], b"one\ntwo\n")?;
                let out = String::from_utf8_lossy(&done.stdout);
                ensure!(out.contains("got one\ngot two\nend of input\n"), "{transport}: {out:?} {done:?}");
            }
            Ok(())
        },
    },
    Check {
        name: "port-forward",
        pods: |_| vec![simple("web", "mkdir -p /w; echo the page >/w/i; httpd -f -h /w -p 80")],
        shown: |node| {
            node.ready("web")?;
            for transport in ["spdy", "websocket"] {
                let url = node.url(&format!("/portForward/default/{}?port=80", node.full("web")));
                let done = node.agent(&["forward", transport, &url, "80"], b"GET /i HTTP/1.0\r\n\r\n")?;
                let out = String::from_utf8_lossy(&done.stdout);
                ensure!(
                    out.ends_with("the page\n"),
                    "{transport}: {out:?} {}",
                    String::from_utf8_lossy(&done.stderr)
                );
            }
            Ok(())
        },
    },
    Check {
        name: "statistics of pods, containers, network and images",
        pods: |_| {
            vec![simple(
                "busy",
                "dd if=/dev/zero of=/big bs=1024 count=2000; while :; do :; done & sleep 1000",
            )]
        },
        shown: |node| {
            node.ready("busy")?;
            let mut last = Value::Null;
            let found = until("statistics of the pod", PATIENCE, || {
                last = node.summary("busy").unwrap_or_default();
                let more = |pointer: &str, than: u64| {
                    last.pointer(pointer).and_then(Value::as_u64).is_some_and(|n| n > than)
                };
                let all = more("/cpu/usageCoreNanoSeconds", 0)
                    && more("/memory/workingSetBytes", 0)
                    && more("/network/rxBytes", 0)
                    && more("/containers/0/cpu/usageNanoCores", 1_000_000)
                    && more("/containers/0/memory/workingSetBytes", 0)
                    && more("/containers/0/rootfs/usedBytes", 2_000_000)
                    && more("/process_stats/process_count", 1);
                Ok(all.then_some(()))
            });
            found.with_context(|| format!("it has {last}"))?;
            let summary: Value = serde_json::from_str(&node.get("/stats/summary")?)?;
            let images = summary.pointer("/node/runtime/imageFs/usedBytes").and_then(Value::as_u64);
            ensure!(
                images.is_some_and(|bytes| bytes > 500_000),
                "the images' file system: {}",
                summary["node"]["runtime"]
            );
            Ok(())
        },
    },
    Check {
        name: "metrics of cAdvisor's names",
        pods: |_| vec![simple("measured", "sleep 1000")],
        shown: |node| {
            node.ready("measured")?;
            until("container_memory_working_set_bytes of the container", PATIENCE, || {
                let metrics = node.get("/metrics/cadvisor")?;
                let of = |line: &str| {
                    line.starts_with("container_memory_working_set_bytes{")
                        && line.contains(&node.full("measured"))
                };
                Ok(metrics.lines().any(of).then_some(()))
            })
        },
    },
];

/// Reads the log of `talker` while the kubelet turns it over.
fn followed(node: &Node) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--insecure", "--no-buffer", "--max-time", "120"]);
    curl.arg(node.url(&format!("/containerLogs/default/{}/c?follow=true", node.full("talker"))));
    let mut child = curl.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().context("curl")?;
    let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
    let (mut expected, begun) = (1, Instant::now());
    let mut wrong = None;
    for line in lines {
        let line = line?;
        if line == "the end" {
            break;
        }
        if !line.starts_with(&format!("line {expected} of")) {
            wrong = Some(line);
            break;
        }
        expected += 1;
    }
    let _ = child.kill();
    child.wait()?;
    ensure!(wrong.is_none(), "line {expected} was to come, and {wrong:?} came");
    ensure!(expected == 6001, "the log ended before line {expected}, after {} s", begun.elapsed().as_secs());
    let folder = node.seen("/var/log/pods");
    let pods = std::fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    let own = pods
        .into_iter()
        .find(|path| path.to_string_lossy().contains(&node.full("talker")))
        .context("its logs")?;
    let turned = until("a log that was turned over", Duration::from_secs(30), || {
        let files = std::fs::read_dir(own.join("c"))?.count();
        Ok((files > 2).then_some(files))
    });
    turned.map(drop)
}

fn executed(node: &Node, transport: &str) -> Result<()> {
    node.ready("shell")?;
    let path = |how: &str, script: &str| {
        let words = ["sh", "-c", script].map(|word| format!("&command={}", encoded(word))).concat();
        node.url(&format!("/exec/default/{}/c?{how}{words}", node.full("shell")))
    };
    let done =
        node.agent(&["exec", transport, &path("output=1&error=1", "echo out; echo err >&2; exit 7")], b"")?;
    let same = done.stdout == b"out\n" && done.stderr.starts_with(b"err\n") && done.status.code() == Some(7);
    ensure!(same, "{transport}: {done:?}");
    let bytes: Vec<u8> = (0..4_000_000u32).flat_map(|number| number.to_le_bytes()).collect();
    let done = node.agent(&["exec", transport, &path("input=1&output=1&error=1", "cat")], &bytes)?;
    ensure!(
        done.stdout == bytes,
        "{transport}: of {} bytes to cat, {} came back the same way: {}",
        bytes.len(),
        done.stdout.len(),
        String::from_utf8_lossy(&done.stderr)
    );
    let done = node.agent(&["exec", transport, &path("output=1&tty=1", "tty"), "tty"], b"")?;
    ensure!(done.stdout.starts_with(b"/dev/pts/"), "{transport}: a terminal: {done:?}");
    let done = node.agent(&["exec", transport, &path("output=1&error=1", "no-such-program")], b"")?;
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.code() == Some(127) && text.contains("no-such-program"), "{transport}: {done:?}");
    Ok(())
}
