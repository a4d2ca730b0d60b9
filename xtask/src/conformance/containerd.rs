//! A containerd of its own for one run: its folders and its configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::images::HOSTS;

/// The runtime that Pintle is below containerd.
pub(super) const OURS: &str = "io.containerd.pintle.v2";

/// The shim's name, by which containerd finds it.
const SHIM: &str = "containerd-shim-pintle-v2";

/// Where the plugins of the CNI project may be.
const PLUGINS: &[&str] = &["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Prepares `folder`; the command that starts containerd, and the socket on which it will listen.
pub(super) fn prepare(
    programs: &Path,
    runtime: &str,
    oci: Option<&Path>,
    binary: Option<&Path>,
    folder: &Path,
) -> Result<(Command, PathBuf)> {
    let place = |name: &str| folder.join(name);
    for name in ["bin", "net.d", "certs.d"] {
        fs::create_dir(place(name))?;
    }
    if let Some(binary) = binary {
        std::os::unix::fs::symlink(binary, place("bin").join(SHIM))?;
    }
    for host in HOSTS {
        fs::create_dir(place("certs.d").join(host))?;
        let text = format!(
            "server = \"http://{host}\"\n[host.\"http://{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
        );
        fs::write(place("certs.d").join(host).join("hosts.toml"), text)?;
    }
    let plugins = PLUGINS.iter().find(|place| Path::new(place).join("bridge").exists());
    let plugins =
        plugins.context("containerd needs the CNI plugins (Debian: containernetworking-plugins)")?;
    fs::write(place("net.d").join("10-bridge.conflist"), network(folder))?;
    fs::write(place("config.toml"), configuration(folder, plugins, runtime, oci))?;
    let socket = place("c.sock");
    let mut containerd = Command::new(programs.join("containerd"));
    containerd.arg("--config").arg(place("config.toml"));
    let path = std::env::var("PATH").unwrap_or_default();
    containerd.env("PATH", format!("{}:{}:{path}", place("bin").display(), programs.display()));
    Ok((containerd, socket))
}

/// Takes away what containerd makes and never removes: the control group of its namespace, if that is empty.
pub(super) fn clean_up() {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = fs::remove_dir(hierarchy.path().join("k8s.io"));
    }
    let _ = fs::remove_dir("/sys/fs/cgroup/k8s.io");
}

/// Version 2 of the configuration, which 1.6 to 2.x read. Places, the runtime, and what a machine without CAP_SYS_RESOURCE forces.
fn configuration(folder: &Path, plugins: &str, runtime: &str, oci: Option<&Path>) -> String {
    let place = |name: &str| folder.join(name);
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let options = oci.map_or(String::new(), |oci| {
        format!("[{cri}.containerd.runtimes.tested.options]\nBinaryName = {oci:?}\n")
    });
    format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n\
         [{cri}]\nsandbox_image = \"registry.k8s.io/pause:3.10\"\nrestrict_oom_score_adj = true\nenable_cdi = false\n\
         [{cri}.registry]\nconfig_path = {:?}\n\
         [{cri}.cni]\nbin_dir = {plugins:?}\nconf_dir = {:?}\n\
         [{cri}.containerd]\ndefault_runtime_name = \"tested\"\n\
         [{cri}.containerd.runtimes.tested]\nruntime_type = {runtime:?}\n{options}",
        place("root"),
        place("state"),
        place("c.sock"),
        place("certs.d"),
        place("net.d"),
    )
}

/// The network of its pods.
fn network(folder: &Path) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "conformance",
        "plugins": [
            {
                "type": "bridge", "bridge": "ctd-conf0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": folder.join("ipam"),
                    "ranges": [[{ "subnet": "10.212.0.0/16" }]], "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
    .to_string()
}
