//! Bad input: what the pod's event says, which is what `kubectl describe` shows.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::super::images::{ELSEWHERE, PRIVATE};
use super::super::kubelet::PATIENCE;
use super::super::manifests::{pod, shell, simple, with};
use super::super::node::{Node, until};
use super::super::table::{Check, Group};

pub(super) const GROUP: Group = Group { name: "bad input", checks: CHECKS };

const CHECKS: &[Check] = &[
    Check {
        name: "an image that does not exist",
        pods: |_| vec![image("no-image", "registry.test/cluster/nothing:1")],
        shown: |node| {
            node.event("no-image", &["Failed", "registry.test/cluster/nothing:1", "does not exist"])?;
            waits(node, "no-image", &["ErrImagePull", "ImagePullBackOff"])
        },
    },
    Check {
        name: "a private image without credentials",
        pods: |_| vec![image("private", PRIVATE)],
        shown: |node| node.event("private", &["Failed", "private.test", "credentials"]).map(drop),
    },
    Check {
        name: "a registry that cannot be reached",
        pods: |_| vec![image("nowhere", "172.30.0.250:81/x:1")],
        shown: |node| {
            node.event("nowhere", &["Failed", "172.30.0.250:81"])?;
            waits(node, "nowhere", &["RegistryUnavailable", "ErrImagePull", "ImagePullBackOff"])
        },
    },
    Check {
        name: "an image for another platform",
        pods: |_| vec![image("elsewhere", ELSEWHERE)],
        shown: |node| {
            let (own, other) = if cfg!(target_arch = "x86_64") {
                ("linux/amd64", "linux/arm64")
            } else {
                ("linux/arm64", "linux/amd64")
            };
            node.event("elsewhere", &["Failed", own, other]).map(drop)
        },
    },
    Check {
        name: "a command that does not exist",
        pods: |_| {
            vec![pod(
                "no-command",
                json!({ "containers": [with(shell("c", ""), json!({ "command": ["/no/such/program"] }))] }),
            )]
        },
        shown: |node| {
            node.event("no-command", &["Failed", "/no/such/program"])?;
            waits(node, "no-command", &["RunContainerError", "CrashLoopBackOff"])
        },
    },
    Check {
        name: "a file that is no program",
        pods: |_| {
            vec![pod(
                "no-program",
                json!({ "containers": [with(shell("c", ""), json!({ "command": ["/etc/passwd"] }))] }),
            )]
        },
        shown: |node| node.event("no-program", &["Failed", "/etc/passwd"]).map(drop),
    },
    Check {
        name: "a hostPath that is not there",
        pods: |_| {
            let mount = json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
            vec![pod(
                "no-path",
                json!({ "containers": [with(shell("c", "sleep 9"), mount)], "volumes": [{ "name": "v", "hostPath": { "path": "/no/such/path", "type": "Directory" } }] }),
            )]
        },
        shown: |node| node.event("no-path", &["/no/such/path"]).map(drop),
    },
    Check {
        name: "a seccomp profile that is not there",
        pods: |_| {
            let context =
                json!({ "seccompProfile": { "type": "Localhost", "localhostProfile": "no-such.json" } });
            vec![with(simple("no-profile", "sleep 9"), json!({ "spec": { "securityContext": context } }))]
        },
        shown: |node| node.event("no-profile", &["no-such.json"]).map(drop),
    },
    Check {
        name: "a sysctl with a value that the kernel refuses",
        pods: |_| {
            let context = json!({ "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "nonsense" }] });
            vec![with(simple("bad-sysctl", "sleep 9"), json!({ "spec": { "securityContext": context } }))]
        },
        shown: |node| node.event("bad-sysctl", &["shm_rmid_forced", "nonsense"]).map(drop),
    },
];

fn image(name: &str, image: &str) -> Value {
    pod(name, json!({ "containers": [with(shell("c", "sleep 1000"), json!({ "image": image }))] }))
}

/// The container waits for one of these reasons.
fn waits(node: &Node, name: &str, reasons: &[&str]) -> Result<()> {
    let mut last = Value::Null;
    until(&format!("{name} waits for {reasons:?}"), PATIENCE, || {
        last = node.pod(name)?.unwrap_or_default()["status"]["containerStatuses"][0]["state"].clone();
        let reason = last["waiting"]["reason"].as_str().unwrap_or_default();
        Ok(reasons.contains(&reason).then_some(()))
    })?;
    ensure!(last.is_object(), "no state");
    Ok(())
}
