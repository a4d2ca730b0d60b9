//! containerd, as it is installed, with runc.

use super::Peer;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts it with its own defaults: the cost of its statistics collector is not hidden.
pub(crate) async fn start(scratch: &Path, pause: &str) -> Result<Peer> {
    let directory = scratch.join("containerd");
    let bridge = "pbench1";
    super::write_chain(&directory, "containerd-bench", bridge, "10.233.0.0/16")?;
    let state = super::state_directory()?;
    let config = configuration(&directory, state.path(), super::plugins("containerd")?, pause);
    std::fs::write(directory.join("config.toml"), config)?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(directory.join("config.toml"));
    super::start("containerd", command, &directory, bridge, state).await
}

/// Version 2 of the configuration, which 1.6, 1.7 and 2.x read. Nothing but places, and what a machine without CAP_SYS_RESOURCE forces.
fn configuration(directory: &Path, state: &Path, plugins: &str, pause: &str) -> String {
    let place = |name: &str| -> PathBuf { directory.join(name) };
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {pause:?}\nrestrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {plugins:?}\nconf_dir = {:?}\n",
        place("root"),
        state.join("state"),
        place("cri.sock"),
        place("net.d"),
    )
}

/// What it needs to be there.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut files = super::chain_files("containerd")?;
    for program in ["containerd", "containerd-shim-runc-v2", "runc"] {
        files.push(super::find(program, "containerd")?);
    }
    Ok(files)
}
