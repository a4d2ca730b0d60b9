//! Pintle with its built-in network.

use super::Peer;
use anyhow::Result;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Starts `BINARY serve`.
pub(crate) async fn start(binary: &Path, scratch: &Path) -> Result<Peer> {
    let directory = scratch.join("pintle");
    let nets = directory.join("net.d");
    std::fs::create_dir_all(&nets)?;
    let bridge = "pbench0";
    let network = json!({
        "cniVersion": "1.1.0", "name": "pintle-bench",
        "plugins": [{
            "type": "pintle", "bridge": bridge, "subnets": ["10.232.0.0/16"], "ipMasq": true,
            "capabilities": { "portMappings": true },
        }],
    });
    std::fs::write(nets.join("10-bench.conflist"), network.to_string())?;
    let nri = directory.join("nri.sock");
    let config = format!(
        "[network]\nconf_dir = {nets:?}\n\n[nri]\nsocket = {nri:?}\n\n[image]\ncerts_dirs = []\nregistries_conf = \"\"\nauth_files = []\n\n[runtime]\ncgroup_driver = \"cgroupfs\"\n"
    );
    std::fs::write(directory.join("config.toml"), config)?;
    let mut command = Command::new(binary);
    command.arg("serve").arg("--config").arg(directory.join("config.toml"));
    let state = super::state_directory()?;
    command.arg("--root").arg(directory.join("root")).arg("--state").arg(state.path().join("state"));
    command.arg("--socket").arg(directory.join("cri.sock"));
    super::start("pintle", command, &directory, bridge, state).await
}
