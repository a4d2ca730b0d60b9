//! CRI-O, as it is installed, with crun where the host's control groups suit it and runc elsewhere.

use super::Peer;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts it with its own defaults but for places. `registries` are the `HOST:PORT`s that it may reach without TLS.
pub(crate) async fn start(scratch: &Path, pause: &str, registries: &[String]) -> Result<Peer> {
    let directory = scratch.join("crio");
    let bridge = "pbench2";
    super::write_chain(&directory, "crio-bench", bridge, "10.234.0.0/16")?;
    let state = super::state_directory()?;
    let place = |name: &str| -> PathBuf { directory.join(name) };
    // What is configured for a user goes before what is configured for the machine.
    let containers = place("home/.config/containers");
    std::fs::create_dir_all(&containers)?;
    let insecure = |host: &String| format!("[[registry]]\nlocation = {host:?}\ninsecure = true\n");
    let insecure: String = registries.iter().map(insecure).collect();
    std::fs::write(containers.join("registries.conf"), insecure)?;
    let policy = r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#;
    std::fs::write(place("policy.json"), policy)?;
    let config = configuration(&directory, state.path(), pause)?;
    std::fs::write(place("crio.conf"), config)?;
    let mut command = Command::new("crio");
    command.env("HOME", place("home")).env_remove("XDG_CONFIG_HOME");
    command.arg("--config").arg(place("crio.conf")).args(["--config-dir", ""]);
    super::start("crio", command, &directory, bridge, state).await
}

fn configuration(directory: &Path, state: &Path, pause: &str) -> Result<String> {
    let place = |name: &str| -> PathBuf { directory.join(name) };
    let plugins = super::plugins("CRI-O")?;
    let find = |program: &str| super::find(program, "CRI-O");
    let runtime = runtime();
    Ok(format!(
        "[crio]\nroot = {:?}\nrunroot = {:?}\nstorage_driver = \"overlay\"\nlog_dir = {:?}\nversion_file = \"\"\n\
         version_file_persist = \"\"\nclean_shutdown_file = \"\"\n\
         [crio.api]\nlisten = {:?}\nstream_address = \"127.0.0.1\"\nstream_port = \"0\"\n\
         [crio.runtime]\ncgroup_manager = \"cgroupfs\"\nconmon_cgroup = \"pod\"\npinns_path = {:?}\ndefault_runtime = {runtime:?}\n\
         namespaces_dir = {:?}\ncontainer_exits_dir = {:?}\ncontainer_attach_socket_dir = {:?}\n\
         [crio.runtime.runtimes.{runtime}]\nruntime_path = {:?}\nruntime_root = {:?}\nmonitor_path = {:?}\nmonitor_cgroup = \"pod\"\n\
         [crio.image]\npause_image = {pause:?}\npause_command = \"\"\nsignature_policy = {:?}\n\
         [crio.network]\nnetwork_dir = {:?}\nplugin_dirs = [{plugins:?}]\n\
         [crio.nri]\nenable_nri = false\n",
        place("root"),
        state.join("storage"),
        place("logs"),
        place("cri.sock"),
        find("pinns")?,
        state.join("namespaces"),
        state.join("exits"),
        state.join("attach"),
        find(runtime)?,
        state.join("runtime"),
        find("conmon")?,
        place("policy.json"),
        place("net.d"),
    ))
}

/// crun refuses the layout of version 1 with an empty version 2 beside it.
fn runtime() -> &'static str {
    let pure = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if pure { "crun" } else { "runc" }
}

/// What it needs to be there.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let mut files = super::chain_files("CRI-O")?;
    for program in ["crio", "conmon", "pinns", runtime()] {
        files.push(super::find(program, "CRI-O")?);
    }
    Ok(files)
}
