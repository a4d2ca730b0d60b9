//! Pods as manifests: the few forms that the checks are made of.

use serde_json::{Value, json};

use super::images::BOX;
use super::kubelet::put_over;
use super::node::Node;

/// A container that runs a script.
pub(super) fn shell(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": BOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script] })
}

/// The same, with more of its fields.
pub(super) fn with(mut one: Value, more: Value) -> Value {
    put_over(&mut one, &more);
    one
}

/// A pod, which is given a second to end unless it says otherwise.
pub(super) fn pod(name: &str, spec: Value) -> Value {
    let spec =
        with(json!({ "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false }), spec);
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" }, "spec": spec })
}

/// A pod of one container `c` that runs a script.
pub(super) fn simple(name: &str, script: &str) -> Value {
    pod(name, json!({ "containers": [shell("c", script)] }))
}

/// The same, run once.
pub(super) fn once(name: &str, script: &str) -> Value {
    pod(name, json!({ "restartPolicy": "Never", "containers": [shell("c", script)] }))
}

/// The folder that all pods of a node and the checks share, as the volume `shared`.
pub(super) fn shared(node: &Node) -> Value {
    json!({ "name": "shared", "hostPath": { "path": node.shared_folder(), "type": "Directory" } })
}

/// The mount that goes with it.
pub(super) fn at_shared() -> Value {
    json!({ "name": "shared", "mountPath": "/shared" })
}
