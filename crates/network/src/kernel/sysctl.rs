//! Settings below `/proc/sys/net`, which belong to the network namespace of the calling thread.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A setting could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{} = {value}: {source}", path.display())]
pub(crate) struct SysctlError {
    path: PathBuf,
    value: String,
    source: io::Error,
}

/// Sets `/proc/sys/net/<key>` to `value` unless it is that already (a read-only /proc is fine then).
pub(crate) fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net").join(key);
    if get(key).as_deref() == Some(value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| SysctlError { path, value: value.into(), source })
}

/// Sets `/proc/sys/net/<key>` to 0; a setting that does not exist, as IPv6's on a host without it, is off already.
pub(crate) fn clear(key: &str) -> Result<(), SysctlError> {
    let path = Path::new("/proc/sys/net").join(key);
    match std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"0")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) if get(key).as_deref() == Some("0") => Ok(()),
        done => done.map_err(|source| SysctlError { path, value: "0".into(), source }),
    }
}

/// The setting's value; `None` where it does not exist.
pub(crate) fn get(key: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/net").join(key)).ok()?;
    Some(text.trim_end().to_string())
}

/// Lets the host route IPv6. Interfaces that learn their routes from router advertisements would stop doing so on a router, and the
/// host would lose its default route: they are told to go on (`accept_ra` 2, Documentation/networking/ip-sysctl).
pub(crate) fn forward_ipv6() -> Result<(), SysctlError> {
    if get("ipv6/conf/all/forwarding").as_deref() == Some("1") {
        return Ok(());
    }
    for entry in std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !matches!(*name, "all" | "default" | "lo")) else {
            continue;
        };
        let key = format!("ipv6/conf/{name}/accept_ra");
        if get(&key).as_deref() == Some("1") {
            // An interface may vanish meanwhile.
            let _ = set(&key, "2");
        }
    }
    set("ipv6/conf/all/forwarding", "1")
}
