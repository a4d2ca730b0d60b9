//! Kernel parameters of the container's namespaces.

use std::os::fd::AsFd;

use sys::namespace::kind;

use super::Plan;
use crate::error::{At, Failure, Stage};

/// Writes `linux.sysctl` through a procfs of our own that is mounted nowhere: no mount of the image or the pod can lead the writes to
/// another file (CVE-2019-16884 and its successors up to CVE-2025-52881).
pub(super) fn apply(plan: &Plan<'_>) -> Result<(), Failure> {
    let Some(parameters) = plan.linux.sysctl().as_ref().filter(|parameters| !parameters.is_empty()) else {
        return Ok(());
    };
    let proc = crate::labels::private_proc().at(Stage::Sysctl, || "private procfs")?;
    for (key, value) in parameters {
        let fail = |cause: String| Failure::new(Stage::Sysctl, key.clone(), cause);
        let path = path_of(key).map_err(&fail)?;
        check_namespace(plan, &path).map_err(&fail)?;
        if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') || value.len() > 4096 {
            return Err(fail("the value holds control characters or is too long".into()));
        }
        crate::labels::write_proc(proc.as_fd(), &format!("sys/{path}"), value.as_bytes())
            .at(Stage::Sysctl, || format!("{key} = {value:?}"))?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward` as a path below /proc/sys (sysctl(8)): the first separator decides which of the two
/// separates; the other one stands for itself, or for a dot in a name.
fn path_of(key: &str) -> Result<String, String> {
    let slashes = key.find(['.', '/']).is_some_and(|first| key.as_bytes()[first] == b'/');
    let path: String = if slashes {
        key.into()
    } else {
        key.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    let fits = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    if path.len() > 256 || !path.split('/').all(fits) {
        return Err("is not a name of letters, digits, '_' and '-' joined by '.' or '/'".into());
    }
    Ok(path)
}

/// A parameter that belongs to no namespace of the container would change the host.
fn check_namespace(plan: &Plan<'_>, path: &str) -> Result<(), String> {
    const IPC: &[&str] = &[
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
        "kernel/auto_msgmni",
        "kernel/msg_next_id",
        "kernel/sem_next_id",
        "kernel/shm_next_id",
    ];
    let (kind, name) = if path.starts_with("net/") {
        (kind::NETWORK, "net")
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path) {
        (kind::IPC, "ipc")
    } else if path == "kernel/domainname" {
        (kind::UTS, "uts")
    } else if path.starts_with("user/") {
        (kind::USER, "user")
    } else if path == "kernel/hostname" {
        return Err("is set by the field hostname".into());
    } else {
        return Err("is not namespaced: it would change the host".into());
    };
    if plan.namespaces.has(kind) || differs_from_host(name) {
        return Ok(());
    }
    Err(format!("needs a {name} namespace of the container's own, else it would change the host"))
}

/// Whether this process is already apart from the host, as in a pod whose namespaces the caller has entered. Before the pivot /proc
/// is the host's.
fn differs_from_host(namespace: &str) -> bool {
    let of = |pid: &str| rustix::fs::stat(format!("/proc/{pid}/ns/{namespace}")).map(|s| s.st_ino);
    match (of("self"), of("1")) {
        (Ok(own), Ok(host)) => own != host,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_below_proc_sys_and_nothing_else() {
        assert_eq!(path_of("net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
        assert_eq!(path_of("net/ipv4/conf/eth0.100/x").unwrap(), "net/ipv4/conf/eth0.100/x");
        assert_eq!(path_of("net.ipv4.conf.eth0/100.x").unwrap(), "net/ipv4/conf/eth0.100/x");
        for bad in
            ["", "net", "../x", "net..x", "net./..", "net.a b", "a+b.c", "net.x\n", "/etc/passwd", "net.ü"]
        {
            assert!(bad == "net" || path_of(bad).is_err(), "{bad:?}");
        }
    }
}
