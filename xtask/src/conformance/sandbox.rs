//! Namespaces around a whole run: what it mounts and configures is seen by nobody else and is gone afterwards.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Options;
use super::images::{HOSTS, REGISTRY};
use crate::command;

/// Tells the second start of this program that it is inside.
pub(super) const INSIDE: &str = "--inside";

/// Starts this program once more, in a mount and a network namespace of its own, where the registries' names lead to ours.
pub(super) fn enter(options: &Options) -> Result<()> {
    if !command::is_root() {
        bail!("conformance needs root: run it as `sudo -E cargo xtask conformance ...`");
    }
    let hosts = tempfile::NamedTempFile::new()?;
    let address = REGISTRY.split(':').next().unwrap_or_default();
    let own = fs::read_to_string("/etc/hosts").unwrap_or_default();
    fs::write(hosts.path(), format!("{address} {}\n{own}", HOSTS.join(" ")))?;

    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--mount", "--propagation", "private"]);
    // Shared again, among those inside: specs about propagation look for it.
    let set_up =
        r#"mount --make-rshared / && mount --bind "$0" /etc/hosts && ip link set lo up && exec "$@""#;
    unshare.args(["--", "sh", "-c", set_up]).arg(hosts.path());
    unshare.arg(std::env::current_exe().context("this program's own file")?);
    unshare.args(["conformance", &options.suite, INSIDE]);
    let mut pass = |name: &str, value: Option<&std::ffi::OsStr>| {
        if let Some(value) = value {
            unshare.arg(name).arg(value);
        }
    };
    pass("--binary", options.binary.as_deref().map(|path| path.as_os_str()));
    pass("--containerd", options.containerd.as_deref().map(|path| path.as_os_str()));
    pass("--runtime", options.runtime.as_deref().map(str::as_ref));
    pass("--oci", options.oci.as_deref().map(|path| path.as_os_str()));
    pass("--handler", options.handler.as_deref().map(str::as_ref));
    options.settings.iter().for_each(|line| pass("--setting", Some(line.as_ref())));
    pass("--failing", options.failing.as_deref().map(|path| path.as_os_str()));
    pass("--crictl", options.crictl.as_deref().map(|path| path.as_os_str()));
    pass("--critest", options.critest.as_deref().map(|path| path.as_os_str()));
    pass("--focus", options.focus.as_deref().map(str::as_ref));
    pass("--skip", options.skip.as_deref().map(str::as_ref));
    if options.websocket {
        unshare.arg("--websocket");
    }
    if options.keep {
        unshare.arg("--keep");
    }
    let status = unshare.status().context("cannot start unshare")?;
    if !status.success() {
        bail!("{} did not pass", options.suite);
    }
    Ok(())
}
