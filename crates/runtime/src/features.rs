//! What this runtime can do (runtime-spec, features.md), whatever the host it runs on can.

use serde_json::{Value, json};

/// The features document.
pub fn features() -> Value {
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::record::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": crate::mounts::options::NAMES,
        "annotations": {
            "dev.pintle.version": version,
            // Where engines look whether a checkpoint can be asked for.
            "org.opencontainers.runc.checkpoint.enabled": "true",
        },
        // No annotation changes what a container is: they are kept for `state` and for hooks.
        "potentiallyUnsafeConfigAnnotations": [],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true},
            "seccomp": seccomp(),
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY",
                    "MPOL_WEIGHTED_INTERLEAVE",
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
    })
}

fn seccomp() -> Value {
    if seccomp::Architecture::native().is_none() {
        return json!({"enabled": false});
    }
    let flags = [
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    json!({
        "enabled": true,
        "actions": [
            "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
        ],
        "operators": [
            "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        "archs": seccomp::Architecture::RECOGNIZED,
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}

/// The names that a configuration may use: all that the kernel numbers.
fn capabilities() -> Vec<String> {
    use oci_spec::runtime::Capability;
    (0..64)
        .filter_map(crate::capabilities::of_number)
        .filter_map(|capability: Capability| {
            serde_json::to_value(capability).ok()?.as_str().map(String::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_one_of_the_specification() {
        let features: oci_spec::runtime::Features = serde_json::from_value(features()).unwrap();
        let linux = features.linux().as_ref().unwrap();
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 8);
        assert_eq!(linux.capabilities().as_ref().unwrap().len(), 41);
        // Every name parses, or this would have failed.
        let archs = linux.seccomp().as_ref().unwrap().archs().as_ref().unwrap();
        assert_eq!(archs.len(), seccomp::Architecture::RECOGNIZED.len());
    }
}
