//! Pintle with its built-in network.

use super::Peer;
use anyhow::{Context, Result};
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Starts `BINARY serve`.
pub(crate) async fn start(binary: &Path, scratch: &Path) -> Result<Peer> {
    serve("pintle", Command::new(binary), Net::BuiltIn, scratch).await
}

/// The same with the chain of plugins that the others call.
pub(crate) async fn start_with_chain(binary: &Path, scratch: &Path) -> Result<Peer> {
    serve("pintle, CNI chain", Command::new(binary), Net::Chain, scratch).await
}

/// The same, with every system call of it and of all that it starts written to `log` by strace(1), which lives as long as they do.
pub(crate) async fn start_traced(binary: &Path, scratch: &Path, log: &Path) -> Result<Peer> {
    let mut strace = Command::new("strace");
    // -D: the daemon is this process's child, and strace is not.
    strace.args(["-D", "-f", "-q", "-ttt", "-y", "-s", "32", "-e", "signal=none", "-o"]).arg(log).arg(binary);
    serve("pintle", strace, Net::BuiltIn, scratch).await.context("under strace (Debian: strace)")
}

/// Which network the pods get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Net {
    BuiltIn,
    Chain,
}

async fn serve(name: &str, mut command: Command, net: Net, scratch: &Path) -> Result<Peer> {
    let (directory, bridge) = match net {
        Net::BuiltIn => (scratch.join("pintle"), "pbench0"),
        Net::Chain => (scratch.join("pintle-chain"), "pbench3"),
    };
    let nets = directory.join("net.d");
    std::fs::create_dir_all(&nets)?;
    let mut plugins = String::new();
    if net == Net::Chain {
        super::write_chain(&directory, "pintle-chain", bridge, "10.235.0.0/16")?;
        plugins = format!("bin_dirs = [{:?}]\n", super::plugins("the chain")?);
    } else {
        let network = json!({
            "cniVersion": "1.1.0", "name": "pintle-bench",
            "plugins": [{
                "type": "pintle", "bridge": bridge, "subnets": ["10.232.0.0/16"], "ipMasq": true,
                "capabilities": { "portMappings": true },
            }],
        });
        std::fs::write(nets.join("10-bench.conflist"), network.to_string())?;
    }
    let nri = directory.join("nri.sock");
    let config = format!(
        "[network]\nconf_dir = {nets:?}\n{plugins}\n[nri]\nsocket = {nri:?}\n\n[image]\ncerts_dirs = []\nregistries_conf = \"\"\nauth_files = []\n\n[runtime]\ncgroup_driver = \"cgroupfs\"\n"
    );
    std::fs::write(directory.join("config.toml"), config)?;
    command.arg("serve").arg("--config").arg(directory.join("config.toml"));
    let state = super::state_directory()?;
    command.arg("--root").arg(directory.join("root")).arg("--state").arg(state.path().join("state"));
    command.arg("--socket").arg(directory.join("cri.sock"));
    super::start(name, command, &directory, bridge, state).await
}
