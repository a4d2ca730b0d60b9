//! Sysctls that a pod may set: those that its own namespaces hold, and no others.

use model::request::{NamespaceMode, PodRequest};

/// A checked sysctl: where to write what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Below /proc/sys, with slashes: `net/ipv4/ip_forward`. It has no empty part, no `.` and no `..`.
    pub path: String,
    pub value: String,
}

/// Why a sysctl is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SysctlError {
    #[error("sysctl {name:?} is not a name such as net.ipv4.ip_forward: parts of a-z, 0-9, `-` and `_`")]
    Name { name: String },
    #[error(
        "sysctl {name}: its value {value:?} is longer than 1024 bytes or holds other than letters, digits, spaces, tabs and _.,:/-"
    )]
    Value { name: String, value: String },
    #[error("sysctl {name} belongs to the whole machine, not to a pod; set it on the node")]
    NotNamespaced { name: String },
    #[error("sysctl {name} would change the host, since the pod is in the host's {namespace} namespace")]
    HostNamespace { name: String, namespace: &'static str },
    #[error("sysctl {name} is named twice, as {first:?} and {second:?}")]
    Twice { name: String, first: String, second: String },
}

/// The sysctls of a pod in the order of their names, each of them safe to be written in the pod's namespaces.
pub fn of_pod(pod: &PodRequest) -> Result<Vec<Sysctl>, SysctlError> {
    let mut sysctls: Vec<(&String, Sysctl)> = Vec::with_capacity(pod.sysctls.len());
    for (name, value) in &pod.sysctls {
        let sysctl = check(name, value, pod)?;
        if let Some((first, known)) = sysctls.iter().find(|(_, known)| known.path == sysctl.path) {
            let (first, second) = (first.to_string(), name.clone());
            return Err(SysctlError::Twice { name: known.path.clone(), first, second });
        }
        sysctls.push((name, sysctl));
    }
    Ok(sysctls.into_iter().map(|(_, sysctl)| sysctl).collect())
}

fn check(name: &str, value: &str, pod: &PodRequest) -> Result<Sysctl, SysctlError> {
    let quoted = || name.chars().take(128).collect::<String>();
    let path = path(name).ok_or_else(|| SysctlError::Name { name: quoted() })?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" \t_.,:/-".contains(&b);
    if value.len() > 1024 || !value.bytes().all(plain) {
        return Err(SysctlError::Value { name: quoted(), value: value.chars().take(64).collect() });
    }
    let (namespace, mode) = match owner(&path) {
        Some(Owner::Network) => ("network", pod.namespaces.network),
        Some(Owner::Ipc) => ("IPC", pod.namespaces.ipc),
        None => return Err(SysctlError::NotNamespaced { name: quoted() }),
    };
    match mode {
        NamespaceMode::Host => Err(SysctlError::HostNamespace { name: quoted(), namespace }),
        NamespaceMode::Pod | NamespaceMode::Container => Ok(Sysctl { path, value: value.into() }),
    }
}

/// The name as a path. As sysctl(8) has it, the first separator decides: in `net/ipv4/conf/eth0.100/x` the dot is part of a name.
fn path(name: &str) -> Option<String> {
    let part = |part: &str| {
        let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        edge(part.as_bytes().first())
            && edge(part.as_bytes().last())
            && part.bytes().all(inner)
            && !part.contains("..")
    };
    if name.len() > 253 {
        return None;
    }
    let path = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name.to_owned(),
        // With dots as separators a slash stands for a dot in a name.
        Some(_) => name
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        None => return None,
    };
    path.split('/').all(part).then_some(path)
}

enum Owner {
    Network,
    Ipc,
}

/// Which namespace holds the value, see network_namespaces(7) and ipc_namespaces(7).
fn owner(path: &str) -> Option<Owner> {
    let ipc = ["kernel/shm", "kernel/msg"]
        .iter()
        .any(|prefix| path.strip_prefix(prefix).is_some_and(|rest| !rest.contains('/')));
    if path.starts_with("net/") {
        Some(Owner::Network)
    } else if ipc || path == "kernel/sem" || path.starts_with("fs/mqueue/") {
        Some(Owner::Ipc)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pod(sysctls: &[(&str, &str)]) -> PodRequest {
        let sysctls = sysctls.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        PodRequest { sysctls, ..Default::default() }
    }

    fn one(name: &str, value: &str) -> Result<String, SysctlError> {
        of_pod(&pod(&[(name, value)])).map(|sysctls| sysctls[0].path.clone())
    }

    #[test]
    fn namespaced_ones_are_taken() {
        for (name, path) in [
            ("net.ipv4.ip_local_port_range", "net/ipv4/ip_local_port_range"),
            ("net/ipv4/conf/eth0.100/rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
            ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("kernel.msgmax", "kernel/msgmax"),
            ("kernel.sem", "kernel/sem"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(one(name, "1024 65000"), Ok(path.into()), "{name}");
        }
    }

    #[test]
    fn the_machines_are_refused() {
        for name in [
            "kernel.core_pattern",
            "kernel.hostname",
            "vm.swappiness",
            "fs.file-max",
            "kernel.shm/x.y",
            "kernel.semx",
            "network.x",
            "user.max_user_namespaces",
        ] {
            assert!(
                matches!(one(name, "1"), Err(SysctlError::NotNamespaced { .. })),
                "{name}: {:?}",
                one(name, "1")
            );
        }
    }

    #[test]
    fn names_follow_the_grammar() {
        for name in [
            "",
            "net",
            ".",
            "net.",
            ".net",
            "net..x",
            "net/../kernel/core_pattern",
            "net.ipv4/../x",
            "net.x+kernel.y",
            "net.x=1",
            "net.x y",
            "net.x\n",
            "net.X",
            "net./etc",
            "net.-x",
            "net.x\0",
            "/net/x",
        ] {
            assert!(
                matches!(one(name, "1"), Err(SysctlError::Name { .. })),
                "{name:?}: {:?}",
                one(name, "1")
            );
        }
        let long = format!("net.{}", "a".repeat(300));
        assert!(matches!(one(&long, "1"), Err(SysctlError::Name { .. })));
    }

    #[test]
    fn values_follow_the_grammar() {
        for value in ["1+kernel.core_pattern=|/evil", "1\n2", "1\0", "|/bin/sh", "$x", &"1".repeat(1025)] {
            assert!(matches!(one("net.ipv4.x", value), Err(SysctlError::Value { .. })), "{value:.20?}");
        }
    }

    #[test]
    fn the_hosts_namespaces_are_not_touched() {
        let mut host_network = pod(&[("net.ipv4.ip_forward", "1")]);
        host_network.namespaces.network = NamespaceMode::Host;
        assert!(matches!(
            of_pod(&host_network),
            Err(SysctlError::HostNamespace { namespace: "network", .. })
        ));
        let mut host_ipc = pod(&[("kernel.msgmax", "1")]);
        host_ipc.namespaces.ipc = NamespaceMode::Host;
        assert!(matches!(of_pod(&host_ipc), Err(SysctlError::HostNamespace { namespace: "IPC", .. })));
    }

    #[test]
    fn two_spellings_of_one_are_refused() {
        let twice = pod(&[("net.ipv4.ip_forward", "1"), ("net/ipv4/ip_forward", "0")]);
        assert!(matches!(of_pod(&twice), Err(SysctlError::Twice { .. })));
    }

    proptest! {
        #[test]
        fn what_passes_stays_below_its_namespace(name in "(net|kernel|fs|\\.|/|shm|mqueue|x|\\+|\n){1,8}") {
            if let Ok(path) = one(&name, "1") {
                let below = ["net/", "kernel/shm", "fs/mqueue/"].iter().any(|prefix| path.starts_with(prefix));
                prop_assert!(below, "{}", path);
                prop_assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            }
        }
    }
}
