//! How containers begin, are probed, end and begin again.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::kubelet::{PATIENCE, is, part};
use super::super::manifests::{at_shared, once, pod, shared, shell, simple, with};
use super::super::node::{Node, until};
use super::super::programs;
use super::super::table::{Check, Group};

pub(super) const GROUP: Group = Group { name: "life", checks: CHECKS };

const STATUS: &str = "/status/containerStatuses/0";

const CHECKS: &[Check] = &[
    Check {
        name: "the runtime's name and version",
        pods: |_| vec![],
        shown: |node| {
            let log = node.kubelet_log();
            let line = log.lines().find(|line| line.contains("Container runtime initialized"));
            let line = line.unwrap_or_default();
            ensure!(line.contains("containerRuntime=\"pintle\""), "the kubelet says {line:?}");
            ensure!(line.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "it says {line:?}");
            Ok(())
        },
    },
    Check {
        name: "a static pod with an address of the node's range",
        pods: |_| vec![simple("static", "echo up; sleep 1000")],
        shown: |node| {
            let pod = node.ready("static")?;
            let address = part(&pod, "/status/podIP")?.as_str().unwrap_or_default();
            ensure!(address.starts_with("10.240.1."), "its address is {address}");
            node.says("static", "c", &["up"]).map(drop)
        },
    },
    Check {
        name: "init containers, one after the other",
        pods: |_| {
            let mount = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
            let of = |name, script| with(shell(name, script), mount.clone());
            let spec = json!({
                "initContainers": [of("a", "sleep 0.5; echo a >/v/f"), of("b", "cat /v/f && echo b >>/v/f")],
                "containers": [of("c", "cat /v/f; sleep 1000")],
                "volumes": [{ "name": "v", "emptyDir": {} }]
            });
            vec![pod("init", spec)]
        },
        shown: |node| {
            node.says("init", "c", &["a\n", "b\n"])?;
            let pod = node.ready("init")?;
            for number in 0..2 {
                is(&pod, &format!("/status/initContainerStatuses/{number}/state/terminated/exitCode"), 0)?;
            }
            Ok(())
        },
    },
    Check {
        name: "an init container that fails is tried again",
        pods: |_| {
            let spec =
                json!({ "initContainers": [shell("a", "exit 4")], "containers": [shell("c", "echo never")] });
            vec![pod("init-fails", spec)]
        },
        shown: |node| {
            let again = "/status/initContainerStatuses/0/restartCount";
            let pod = node.when("init-fails", "init again", |pod| {
                pod.pointer(again).is_some_and(|n| n.as_i64() >= Some(1))
            })?;
            is(&pod, "/status/initContainerStatuses/0/lastState/terminated/exitCode", 4)?;
            is(&pod, "/status/phase", "Pending")
        },
    },
    Check {
        name: "a sidecar begins before and ends after the others",
        pods: |node| {
            let mount = json!({ "volumeMounts": [at_shared()] });
            let side =
                "trap 'echo side >>/shared/sidecar; exit 0' TERM; touch /tmp/up; while :; do sleep 0.1; done";
            let side = with(
                shell("side", side),
                json!({
                    "restartPolicy": "Always", "startupProbe": { "exec": { "command": ["ls", "/tmp/up"] }, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 10 }
                }),
            );
            let spec = json!({
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 10, "volumes": [shared(node)],
                "initContainers": [with(side, mount.clone())],
                "containers": [with(shell("c", "sleep 1; echo main >>/shared/sidecar"), mount)]
            });
            vec![pod("sidecar", spec)]
        },
        shown: |node| {
            let pod = node.when("sidecar", "Succeeded", |pod| pod["status"]["phase"] == "Succeeded")?;
            is(&pod, "/status/initContainerStatuses/0/started", false)?;
            is(&pod, "/status/initContainerStatuses/0/state/terminated/exitCode", 0)?;
            let told = fs::read_to_string(node.shared("sidecar"))?;
            ensure!(told == "main\nside\n", "in this order: {told:?}");
            Ok(())
        },
    },
    Check {
        name: "liveness by exec, HTTP and TCP: what fails is started again",
        pods: |_| {
            let live = |name: &str, script: &str, probe: Value| {
                let probe =
                    with(probe, json!({ "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10 }));
                pod(
                    name,
                    json!({ "containers": [with(shell("c", script), json!({ "livenessProbe": probe }))] }),
                )
            };
            let serve = "mkdir -p /w; echo y >/w/p; httpd -h /w -p 80; sleep 3; ";
            vec![
                live(
                    "live-exec",
                    "touch /tmp/ok; sleep 3; rm /tmp/ok; sleep 1000",
                    json!({ "exec": { "command": ["ls", "/tmp/ok"] }, "initialDelaySeconds": 1 }),
                ),
                live(
                    "live-http",
                    &format!("{serve} rm /w/p; sleep 1000"),
                    json!({ "httpGet": { "path": "/p", "port": 80 }, "initialDelaySeconds": 1 }),
                ),
                live(
                    "live-tcp",
                    &format!("{serve} killall httpd; sleep 1000"),
                    json!({ "tcpSocket": { "port": 80 }, "initialDelaySeconds": 1 }),
                ),
            ]
        },
        shown: |node| {
            ["live-exec", "live-http", "live-tcp"].iter().try_for_each(|name| started_again(node, name))
        },
    },
    Check {
        name: "readiness by exec, HTTP and TCP: ready when it is said, and not before",
        pods: |_| {
            let when = |name: &str, script: &str, probe: Value| {
                let probe = with(probe, json!({ "periodSeconds": 1 }));
                pod(
                    name,
                    json!({ "containers": [with(shell("c", script), json!({ "readinessProbe": probe }))] }),
                )
            };
            let serve = "mkdir -p /w; echo y >/w/p; httpd -f -h /w -p 80";
            vec![
                when(
                    "ready-exec",
                    "sleep 1; touch /tmp/ok; sleep 1000",
                    json!({ "exec": { "command": ["ls", "/tmp/ok"] } }),
                ),
                when("ready-http", serve, json!({ "httpGet": { "path": "/p", "port": 80 } })),
                when("ready-tcp", serve, json!({ "tcpSocket": { "port": 80 } })),
                when("ready-never", "sleep 1000", json!({ "tcpSocket": { "port": 80 } })),
            ]
        },
        shown: |node| {
            for name in ["ready-exec", "ready-http", "ready-tcp"] {
                node.ready(name)?;
            }
            node.event("ready-never", &["Unhealthy", "Readiness probe failed"])?;
            let pod = node.when("ready-never", "running", |pod| pod["status"]["phase"] == "Running")?;
            is(&pod, &format!("{STATUS}/ready"), false)?;
            is(&pod, &format!("{STATUS}/restartCount"), 0)
        },
    },
    Check {
        name: "liveness and readiness by gRPC",
        pods: |_| {
            vec![grpc("live-grpc", "4", "livenessProbe"), grpc("ready-grpc", "100000", "readinessProbe")]
        },
        shown: |node| {
            node.ready("ready-grpc")?;
            started_again(node, "live-grpc")
        },
    },
    Check {
        name: "a startup probe holds the others back",
        pods: |_| {
            let more = json!({
                "startupProbe": { "exec": { "command": ["ls", "/tmp/ok"] }, "periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 10 },
                "livenessProbe": { "exec": { "command": ["ls", "/tmp/ok"] }, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 10 }
            });
            let script = "sleep 3; touch /tmp/ok; sleep 1000";
            vec![pod("startup", json!({ "containers": [with(shell("c", script), more)] }))]
        },
        shown: |node| {
            let pod = node.ready("startup")?;
            is(&pod, &format!("{STATUS}/started"), true)?;
            is(&pod, &format!("{STATUS}/restartCount"), 0)
        },
    },
    Check {
        name: "postStart and preStop",
        pods: |node| {
            let hooks = json!({
                "lifecycle": {
                    "postStart": { "exec": { "command": ["sh", "-c", "echo post >>/shared/hooks"] } },
                    "preStop": { "exec": { "command": ["sh", "-c", "sleep 1; echo pre >>/shared/hooks"] } }
                },
                "volumeMounts": [at_shared()]
            });
            let script = "trap 'echo term >>/shared/hooks; exit 0' TERM; while :; do sleep 0.1; done";
            let spec = json!({ "terminationGracePeriodSeconds": 20, "containers": [with(shell("c", script), hooks)], "volumes": [shared(node)] });
            vec![pod("hooks", spec)]
        },
        shown: |node| {
            node.ready("hooks")?;
            node.delete("hooks");
            node.gone("hooks")?;
            let told = fs::read_to_string(node.shared("hooks"))?;
            ensure!(told == "post\npre\nterm\n", "in this order: {told:?}");
            Ok(())
        },
    },
    Check {
        name: "termination within the grace period, and SIGKILL after it",
        pods: |node| {
            let of = |name: &str, script: &str, grace: i64| {
                let container = with(shell("c", script), json!({ "volumeMounts": [at_shared()] }));
                pod(
                    name,
                    json!({ "terminationGracePeriodSeconds": grace, "containers": [container], "volumes": [shared(node)] }),
                )
            };
            vec![
                of(
                    "in-time",
                    "trap 'sleep 1; echo bye >/shared/in-time; exit 0' TERM; while :; do sleep 0.1; done",
                    30,
                ),
                of("late", "trap '' TERM; while :; do date +%s >>/shared/late; sleep 0.1; done", 3),
            ]
        },
        shown: |node| {
            node.ready("in-time")?;
            node.ready("late")?;
            let seconds = || {
                let told = fs::read_to_string(node.shared("late")).unwrap_or_default();
                told.lines().last().and_then(|line| line.parse::<i64>().ok()).unwrap_or(0)
            };
            let asked =
                until("the time of the late one", PATIENCE, || Ok(Some(seconds()).filter(|now| *now > 0)))?;
            node.delete("in-time");
            node.delete("late");
            node.gone("in-time")?;
            node.gone("late")?;
            ensure!(fs::read_to_string(node.shared("in-time"))? == "bye\n", "it was not let end by itself");
            let lived = seconds() - asked;
            ensure!((2..20).contains(&lived), "it lived {lived} s on, and the grace period was 3 s");
            Ok(())
        },
    },
    Check {
        name: "what ends is started again: exit code, restart count, CrashLoopBackOff",
        pods: |_| vec![simple("crash", "echo crashing; sleep 0.3; exit 3")],
        shown: |node| {
            let waiting = format!("{STATUS}/state/waiting/reason");
            let pod = node.when("crash", "CrashLoopBackOff", |pod| {
                pod.pointer(&waiting).is_some_and(|why| why == "CrashLoopBackOff")
                    && pod.pointer(&format!("{STATUS}/restartCount")).is_some_and(|n| n.as_i64() >= Some(1))
            })?;
            is(&pod, &format!("{STATUS}/lastState/terminated/exitCode"), 3)?;
            is(&pod, &format!("{STATUS}/lastState/terminated/reason"), "Error")?;
            let path = format!("/containerLogs/default/{}/c?previous=true", node.full("crash"));
            ensure!(node.get(&path)?.contains("crashing"), "the log of the run before is gone");
            Ok(())
        },
    },
    Check {
        name: "termination messages, from the file and from the log",
        pods: |_| {
            let log = with(
                shell("c", "echo from the log; exit 1"),
                json!({ "terminationMessagePolicy": "FallbackToLogsOnError" }),
            );
            vec![
                once("message", "echo from the file >/dev/termination-log"),
                pod("message-log", json!({ "restartPolicy": "Never", "containers": [log] })),
            ]
        },
        shown: |node| {
            let pod = node.when("message", "Succeeded", |pod| pod["status"]["phase"] == "Succeeded")?;
            is(&pod, &format!("{STATUS}/state/terminated/message"), "from the file\n")?;
            is(&pod, &format!("{STATUS}/state/terminated/reason"), "Completed")?;
            let pod = node.when("message-log", "Failed", |pod| pod["status"]["phase"] == "Failed")?;
            is(&pod, &format!("{STATUS}/state/terminated/message"), "from the log\n")
        },
    },
    Check {
        name: "OOMKilled is said",
        pods: |_| {
            let limits = json!({ "resources": { "limits": { "memory": "20Mi" } } });
            let container = with(shell("c", "tail /dev/zero"), limits);
            vec![pod("oom", json!({ "restartPolicy": "Never", "containers": [container] }))]
        },
        shown: |node| {
            let pod = node.when("oom", "Failed", |pod| pod["status"]["phase"] == "Failed")?;
            is(&pod, &format!("{STATUS}/state/terminated/reason"), "OOMKilled")?;
            is(&pod, &format!("{STATUS}/state/terminated/exitCode"), 137)
        },
    },
    Check {
        name: "a deadline for the whole pod",
        pods: |_| {
            vec![with(simple("deadline", "sleep 1000"), json!({ "spec": { "activeDeadlineSeconds": 3 } }))]
        },
        shown: |node| {
            let pod = node.when("deadline", "Failed", |pod| pod["status"]["phase"] == "Failed")?;
            is(&pod, "/status/reason", "DeadlineExceeded")
        },
    },
];

/// Its liveness failed, and it was ended and started again.
fn started_again(node: &Node, name: &str) -> Result<()> {
    let again =
        |pod: &Value| pod.pointer(&format!("{STATUS}/restartCount")).is_some_and(|n| n.as_i64() >= Some(1));
    let pod = node.when(name, "started again", again)?;
    // A shell that is process 1 does not end on SIGTERM.
    let code = part(&pod, &format!("{STATUS}/lastState/terminated/exitCode"))?;
    ensure!([137, 143, 2].contains(&code.as_i64().unwrap_or(0)), "{name} ended with {code}");
    node.event(name, &["Unhealthy", "Liveness probe failed"]).map(drop)
}

/// A pod that serves gRPC health checking for so many seconds, and the probe that asks.
fn grpc(name: &str, seconds: &str, probe: &str) -> Value {
    let agent = programs::agent().unwrap_or_default();
    let more = json!({
        "command": ["/agent", "health", ":9000", seconds],
        "volumeMounts": [{ "name": "agent", "mountPath": "/agent", "readOnly": true }],
        probe: { "grpc": { "port": 9000 }, "periodSeconds": 1, "failureThreshold": 1, "initialDelaySeconds": 1, "timeoutSeconds": 10 }
    });
    let volume = json!([{ "name": "agent", "hostPath": { "path": agent, "type": "File" } }]);
    pod(name, json!({ "containers": [with(shell("c", ""), more)], "volumes": volume }))
}
