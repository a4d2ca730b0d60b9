//! What a container finds inside: volumes, users, rights, limits, namespaces, names.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::images::SECOND;
use super::super::kubelet::{is, part};
use super::super::manifests::{at_shared, pod, shared, shell, simple, with};
use super::super::node::{Node, said};
use super::super::table::{Check, Group};

pub(super) const GROUP: Group = Group { name: "inside", checks: CHECKS };

const CHECKS: &[Check] = &[
    Check {
        name: "emptyDir, on disk and in memory",
        pods: |_| {
            let script = "grep -c ' /m tmpfs ' /proc/mounts; df -k /m | tail -n1 | awk '{print \"size\", $2}'; echo x >/d/f && cat /d/f; sleep 1000";
            let mounts = json!({ "volumeMounts": [{ "name": "m", "mountPath": "/m" }, { "name": "d", "mountPath": "/d" }] });
            vec![pod(
                "empty",
                json!({
                    "containers": [with(shell("c", script), mounts)],
                    "volumes": [{ "name": "m", "emptyDir": { "medium": "Memory", "sizeLimit": "3Mi" } }, { "name": "d", "emptyDir": {} }]
                }),
            )]
        },
        shown: |node| node.says("empty", "c", &["1\n", "size 3072\n", "x\n"]).map(drop),
    },
    Check {
        name: "hostPath, subPath and subPathExpr",
        pods: |node| {
            let _ = fs::create_dir_all(node.shared("sub/deep"));
            let _ = fs::write(node.shared("sub/deep/file"), "deep\n");
            let script =
                "cat /h/sub/deep/file /s/file /one /e/file; echo no >/h/x || echo read only; sleep 1000";
            let mounts = json!([
                { "name": "shared", "mountPath": "/h", "readOnly": true },
                { "name": "shared", "mountPath": "/s", "subPath": "sub/deep" },
                { "name": "shared", "mountPath": "/one", "subPath": "sub/deep/file" },
                { "name": "shared", "mountPath": "/e", "subPathExpr": "sub/$(WHERE)" },
            ]);
            let more = json!({ "volumeMounts": mounts, "env": [{ "name": "WHERE", "value": "deep" }] });
            vec![pod(
                "paths",
                json!({ "containers": [with(shell("c", script), more)], "volumes": [shared(node)] }),
            )]
        },
        shown: |node| node.says("paths", "c", &["deep\ndeep\ndeep\ndeep\n", "read only"]).map(drop),
    },
    Check {
        name: "an image as a volume",
        pods: |_| {
            let script = "cat /i/second; ls /i/bin/busybox; echo no >/i/x || echo read only; sleep 1000";
            let mounts = json!({ "volumeMounts": [{ "name": "i", "mountPath": "/i" }] });
            vec![pod(
                "image-volume",
                json!({
                    "containers": [with(shell("c", script), mounts)],
                    "volumes": [{ "name": "i", "image": { "reference": SECOND, "pullPolicy": "IfNotPresent" } }]
                }),
            )]
        },
        shown: |node| {
            node.says("image-volume", "c", &["second\n", "/i/bin/busybox\n", "read only"]).map(drop)
        },
    },
    Check {
        name: "downward API, as variables and as a volume",
        pods: |_| {
            let env = json!([
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "CPUS", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } }
            ]);
            let more = json!({
                "env": env, "resources": { "limits": { "cpu": "250m", "memory": "64Mi" } },
                "volumeMounts": [{ "name": "p", "mountPath": "/p" }]
            });
            // Not a projected one: a kubelet without API server cannot make those.
            let items = json!([{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }]);
            let volume = json!([{ "name": "p", "downwardAPI": { "items": items } }]);
            let script = "echo $IP $CPUS $(cat /p/name); sleep 1000";
            vec![pod(
                "downward",
                json!({ "containers": [with(shell("c", script), more)], "volumes": volume }),
            )]
        },
        shown: |node| {
            let pod = node.ready("downward")?;
            let address = part(&pod, "/status/podIP")?.as_str().unwrap_or_default().to_owned();
            node.says("downward", "c", &[&format!("{address} 250 downward-{}\n", node.name)]).map(drop)
        },
    },
    Check {
        name: "users and groups: runAsUser, runAsGroup, fsGroup, supplementalGroups",
        pods: |_| {
            let spec = json!({
                "securityContext": { "runAsUser": 1000, "runAsGroup": 2000, "fsGroup": 3000, "supplementalGroups": [4000] },
                "containers": [with(shell("c", "id -u; id -g; id -G; touch /d/f && stat -c %g /d/f; sleep 1000"), json!({ "volumeMounts": [{ "name": "d", "mountPath": "/d" }] }))],
                "volumes": [{ "name": "d", "emptyDir": {} }]
            });
            vec![pod("users", spec)]
        },
        shown: |node| {
            let log = node.says("users", "c", &["1000\n2000\n"])?;
            let groups = log.lines().nth(2).unwrap_or_default();
            for group in ["2000", "3000", "4000"] {
                ensure!(groups.split(' ').any(|one| one == group), "its groups are {groups}");
            }
            node.says("users", "c", &["\n3000\n"]).map(drop)
        },
    },
    Check {
        name: "rights: capabilities, no new privileges, read-only root, seccomp, privileged",
        pods: |_| {
            let script = "grep -E 'CapEff|NoNewPrivs|^Seccomp:' /proc/self/status; touch /x && echo writable || echo read only; sleep 1000";
            let of = |name: &str, context: Value| {
                pod(
                    name,
                    json!({ "containers": [with(shell("c", script), json!({ "securityContext": context }))] }),
                )
            };
            vec![
                of(
                    "rights-few",
                    json!({
                        "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }, "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true, "seccompProfile": { "type": "RuntimeDefault" }
                    }),
                ),
                of("rights-all", json!({ "privileged": true })),
                of("rights-plain", json!({ "seccompProfile": { "type": "Unconfined" } })),
            ]
        },
        shown: |node| {
            node.says(
                "rights-few",
                "c",
                &["CapEff:\t0000000000000400\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n", "read only"],
            )?;
            node.says(
                "rights-plain",
                "c",
                &["CapEff:\t00000000a80425fb\n", "NoNewPrivs:\t0\n", "Seccomp:\t0\n", "writable"],
            )?;
            let log = node.says("rights-all", "c", &["Seccomp:\t0\n", "writable"])?;
            let few = log.lines().any(|line| line == "CapEff:\t00000000a80425fb");
            ensure!(!few, "a privileged container has no more rights than others:\n{log}");
            Ok(())
        },
    },
    Check {
        name: "sysctls of the pod",
        pods: |_| {
            let context =
                json!({ "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "77" }] });
            let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; sleep 1000";
            vec![with(simple("sysctls", script), json!({ "spec": { "securityContext": context } }))]
        },
        shown: |node| node.says("sysctls", "c", &["77\n"]).map(drop),
    },
    Check {
        name: "runAsNonRoot refuses root, and says so",
        pods: |_| {
            vec![with(
                simple("non-root", "sleep 1000"),
                json!({ "spec": { "securityContext": { "runAsNonRoot": true } } }),
            )]
        },
        shown: |node| node.event("non-root", &["runAsNonRoot", "root"]).map(drop),
    },
    Check {
        name: "users of the pod's own",
        pods: |_| {
            let mounts = json!({ "volumeMounts": [{ "name": "d", "mountPath": "/d" }] });
            vec![pod(
                "userns",
                json!({
                    "hostUsers": false, "volumes": [{ "name": "d", "emptyDir": {} }],
                    "containers": [with(shell("c", "cat /proc/self/uid_map; touch /d/f && stat -c 'owner %u' /d/f; sleep 1000"), mounts)]
                }),
            )]
        },
        shown: |node| {
            let log = node.says("userns", "c", &["owner 0\n"])?;
            let map: Vec<u64> =
                log.split_whitespace().take(3).filter_map(|number| number.parse().ok()).collect();
            ensure!(
                map.len() == 3 && map[0] == 0 && map[1] >= 65536 && map[2] == 65536,
                "its map is {map:?}"
            );
            Ok(())
        },
    },
    Check {
        name: "limits, and each QoS class's control group in its place",
        pods: |_| {
            let of = |name: &str, resources: Value| {
                pod(
                    name,
                    json!({ "containers": [with(shell("c", "sleep 1000"), json!({ "resources": resources }))] }),
                )
            };
            vec![
                of("guaranteed", json!({ "limits": { "cpu": "100m", "memory": "64Mi" } })),
                of("burstable", json!({ "requests": { "cpu": "50m" }, "limits": { "memory": "32Mi" } })),
                of("best-effort", json!({})),
            ]
        },
        shown: |node| {
            limited(
                node,
                "guaranteed",
                "Guaranteed",
                "kubepods",
                &[
                    ("memory", "memory.limit_in_bytes", "67108864"),
                    ("cpu", "cpu.cfs_quota_us", "10000"),
                    ("cpu", "cpu.shares", "102"),
                ],
            )?;
            limited(
                node,
                "burstable",
                "Burstable",
                "kubepods/burstable",
                &[("memory", "memory.limit_in_bytes", "33554432"), ("cpu", "cpu.shares", "51")],
            )?;
            limited(node, "best-effort", "BestEffort", "kubepods/besteffort", &[("cpu", "cpu.shares", "2")])
        },
    },
    Check {
        name: "the host's network, and a host port",
        pods: |_| {
            let web = "mkdir -p /w; echo from the port >/w/i; httpd -f -h /w -p 80";
            let port = json!({ "ports": [{ "containerPort": 80, "hostPort": 8081 }] });
            vec![
                with(
                    simple("host-network", "ip -4 addr show eth0; sleep 1000"),
                    json!({ "spec": { "hostNetwork": true } }),
                ),
                pod("host-port", json!({ "containers": [with(shell("c", web), port)] })),
            ]
        },
        shown: |node| {
            node.says("host-network", "c", &[&node.address])?;
            node.ready("host-port")?;
            let page = said(
                std::process::Command::new("curl")
                    .args(["-s", "--max-time", "10", "--retry", "5", "--retry-connrefused"])
                    .arg(format!("http://{}:8081/i", node.address)),
            )?;
            ensure!(page == "from the port\n", "the port answers {page:?}");
            Ok(())
        },
    },
    Check {
        name: "the host's processes, and processes shared in the pod",
        pods: |_| {
            let host = "ps -o args | grep -c '[k]ubelet.json'; sleep 1000";
            let spec = json!({ "shareProcessNamespace": true, "containers": [
                shell("a", "sleep 1000"),
                shell("b", "until ps -o args | grep -q '[s]leep 1000'; do sleep 0.2; done; echo I see a; sleep 2000")
            ] });
            vec![
                with(simple("host-pid", host), json!({ "spec": { "hostPID": true } })),
                pod("share-pid", spec),
            ]
        },
        shown: |node| {
            node.says("host-pid", "c", &["1\n"])?;
            node.says("share-pid", "b", &["I see a\n"]).map(drop)
        },
    },
    Check {
        name: "DNS: the cluster's, the pod's own, and hostAliases",
        pods: |_| {
            let script = "cat /etc/resolv.conf /etc/hosts; sleep 1000";
            let own = json!({ "dnsPolicy": "None", "dnsConfig": {
                "nameservers": ["192.0.2.1"], "searches": ["one.test", "two.test"], "options": [{ "name": "ndots", "value": "3" }] } });
            let alias = json!({ "hostAliases": [{ "ip": "192.0.2.9", "hostnames": ["alias.test"] }], "hostname": "named", "subdomain": "sub" });
            vec![
                with(simple("dns-own", script), json!({ "spec": own })),
                with(simple("dns-cluster", script), json!({ "spec": alias })),
            ]
        },
        shown: |node| {
            node.says(
                "dns-own",
                "c",
                &["nameserver 192.0.2.1\n", "search one.test two.test\n", "options ndots:3\n"],
            )?;
            let of_cluster = [
                "nameserver 10.96.0.10\n",
                "default.svc.cluster.test",
                "192.0.2.9\talias.test",
                "named.sub.default.svc.cluster.test",
            ];
            node.says("dns-cluster", "c", &of_cluster).map(drop)
        },
    },
    Check {
        name: "files shared by two containers, and propagation both ways",
        pods: |node| {
            let deep =
                |how: &str| json!({ "name": "shared", "mountPath": "/shared", "mountPropagation": how });
            let mounting = "mkdir -p /shared/m; mount -t tmpfs t /shared/m && echo mounted >/shared/m/f; trap 'umount /shared/m; exit 0' TERM; while :; do sleep 0.1; done";
            let spec = json!({ "volumes": [shared(node)], "terminationGracePeriodSeconds": 10, "containers": [
                // First, so that it runs when the other one mounts.
                with(shell("b", "until cat /shared/m/f; do sleep 0.2; done; sleep 1000"), json!({ "volumeMounts": [deep("HostToContainer")] })),
                with(shell("a", mounting), json!({ "securityContext": { "privileged": true }, "volumeMounts": [deep("Bidirectional")] })),
            ] });
            let none = with(shell("c", "sleep 1000"), json!({ "volumeMounts": [at_shared()] }));
            vec![
                pod("propagation", spec),
                pod("no-propagation", json!({ "volumes": [shared(node)], "containers": [none] })),
            ]
        },
        shown: |node| node.says("propagation", "b", &["mounted\n"]).map(drop),
    },
];

/// The pod has this class, and the group of its container, which is in that of the class, has these values.
fn limited(node: &Node, name: &str, class: &str, place: &str, values: &[(&str, &str, &str)]) -> Result<()> {
    let pod = node.ready(name)?;
    is(&pod, "/status/qosClass", class)?;
    // Of a static pod, the identity that its control group is named by is an annotation.
    let uid = part(&pod, "/metadata/annotations/kubernetes.io~1config.hash")?.as_str().unwrap_or_default();
    let id = part(&pod, "/status/containerStatuses/0/containerID")?.as_str().unwrap_or_default();
    let id = id.strip_prefix("pintle://").with_context(|| format!("the container's id is {id}"))?;
    for (controller, file, wanted) in values {
        let group: PathBuf =
            format!("/sys/fs/cgroup/{controller}/{}/{place}/pod{uid}/{id}", node.group).into();
        let found =
            fs::read_to_string(group.join(file)).with_context(|| group.join(file).display().to_string())?;
        ensure!(found.trim() == *wanted, "{}: {file} is {} and not {wanted}", group.display(), found.trim());
    }
    Ok(())
}
