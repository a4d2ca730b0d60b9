//! Writes a pod's sysctls from inside its namespaces, and only those that belong to a namespace which is the pod's own.

use super::SetupError;
use crate::config::{NamespaceMode, PodNamespaces, ShimConfig};
use crate::protocol::ErrorCode;
use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;

/// Why a sysctl was not set.
#[derive(Debug, thiserror::Error)]
pub(super) enum SysctlError {
    #[error("{name:?} is not the name of a sysctl")]
    BadName { name: String },
    #[error("{name} would change the host: it belongs to no namespace that this pod has of its own")]
    Foreign { name: String },
    #[error("{name} cannot be set to {value:?}: {cause}")]
    Write { name: String, value: String, cause: Errno },
    #[error("/proc/sys is not there: {cause}")]
    NoProc { cause: Errno },
}

impl SysctlError {
    /// Whether another name or value would have been taken.
    fn is_callers(&self) -> bool {
        match self {
            SysctlError::BadName { .. } | SysctlError::Foreign { .. } => true,
            SysctlError::Write { cause, .. } => matches!(*cause, Errno::NOENT | Errno::INVAL | Errno::RANGE),
            SysctlError::NoProc { .. } => false,
        }
    }
}

impl From<SysctlError> for SetupError {
    fn from(error: SysctlError) -> SetupError {
        SetupError {
            code: if error.is_callers() { ErrorCode::InvalidArgument } else { ErrorCode::SetupFailed },
            stage: "sysctls".into(),
            cause: error.to_string(),
        }
    }
}

/// Sets all of them, in the order of their names.
///
/// # Errors
/// The first that is refused.
pub(super) fn apply(config: &ShimConfig) -> Result<(), SysctlError> {
    if config.sysctls.is_empty() {
        return Ok(());
    }
    let no_proc = |cause| SysctlError::NoProc { cause };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/proc/sys", flags, Mode::empty()).map_err(no_proc)?;
    if rustix::fs::fstatfs(&root).map_err(no_proc)?.f_type != PROC_SUPER_MAGIC {
        return Err(no_proc(Errno::NOENT));
    }
    for (name, value) in &config.sysctls {
        let path = path_of(name).ok_or_else(|| SysctlError::BadName { name: name.clone() })?;
        if !is_own(&path, &config.namespaces) {
            return Err(SysctlError::Foreign { name: name.clone() });
        }
        let write = || {
            let file = rustix::fs::openat2(
                &root,
                path.as_str(),
                OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
            )?;
            rustix::io::write(&file, value.as_bytes()).map(drop)
        };
        write().map_err(|cause| SysctlError::Write { name: name.clone(), value: value.clone(), cause })?;
    }
    Ok(())
}

/// The path below /proc/sys. As sysctl(8) has it, the first separator decides: after a dot, slashes stand for dots in names
/// (`net.ipv4.conf.eth0/100.forwarding`), after a slash nothing is exchanged.
fn path_of(name: &str) -> Option<String> {
    let separator = name.find(['.', '/'])?;
    let path: String = if name.as_bytes()[separator] == b'/' {
        name.into()
    } else {
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect()
    };
    let good = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@:".contains(&b))
    };
    path.split('/').all(good).then_some(path)
}

/// Which sysctls belong to which namespace: network_namespaces(7), ipc_namespaces(7), uts_namespaces(7).
fn is_own(path: &str, namespaces: &PodNamespaces) -> bool {
    let ipc = path.starts_with("fs/mqueue/")
        || path
            .strip_prefix("kernel/")
            .is_some_and(|name| name.starts_with("shm") || name.starts_with("msg") || name == "sem");
    let uts = matches!(path, "kernel/hostname" | "kernel/domainname");
    (path.starts_with("net/") && namespaces.net == NamespaceMode::New)
        || (ipc && namespaces.ipc == NamespaceMode::New)
        || (uts && namespaces.uts == NamespaceMode::New)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PidMode;

    #[test]
    fn names_become_paths_below_proc_sys() {
        assert_eq!(path_of("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(
            path_of("net.ipv4.conf.eth0/100.forwarding").as_deref(),
            Some("net/ipv4/conf/eth0.100/forwarding")
        );
        assert_eq!(
            path_of("net/ipv4/conf/eth0.100/forwarding").as_deref(),
            Some("net/ipv4/conf/eth0.100/forwarding")
        );
        for bad in [
            "",
            "net",
            "net..x",
            "net./x",
            "net/../kernel/core_pattern",
            ".net.x",
            "net.x+kernel",
            "net.a b",
            "net.x\n",
            "/net/x",
            "net.ipv4.",
        ] {
            assert_eq!(path_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_the_pods_own_are_written() {
        let own = PodNamespaces {
            net: NamespaceMode::New,
            ipc: NamespaceMode::New,
            uts: NamespaceMode::New,
            pid: PidMode::Host,
        };
        let host = PodNamespaces {
            net: NamespaceMode::Host,
            ipc: NamespaceMode::Host,
            uts: NamespaceMode::Host,
            pid: PidMode::Host,
        };
        for path in
            ["net/core/somaxconn", "kernel/shmmax", "kernel/sem", "fs/mqueue/msg_max", "kernel/domainname"]
        {
            assert!(is_own(path, &own), "{path}");
            assert!(!is_own(path, &host), "{path}");
        }
        for path in ["kernel/core_pattern", "vm/swappiness", "kernel/semx", "network/x", "fs/file-max"] {
            assert!(!is_own(path, &own), "{path}");
        }
    }
}
