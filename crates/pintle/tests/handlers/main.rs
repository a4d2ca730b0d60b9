//! Pods whose containers other programs run: real runtimes, and programs that only look like one.

#[path = "../support/mod.rs"]
mod support;

mod bad_programs;
mod gvisor;
mod lives;
#[path = "../support/seat.rs"]
mod seat;
mod settings;
mod streams;

use std::path::PathBuf;

use cri::runtime_v1 as v1;
use support::{Daemon, Setup};

/// Handlers that are tested the same way: their names, and what there is to say of them in the configuration.
fn runtimes() -> Vec<(&'static str, String)> {
    let own = env!("CARGO_BIN_EXE_pintle");
    let mut found =
        vec![("own", format!("[runtimes.own]\nkind = 'oci'\npath = {own:?}\narguments = ['oci']\n"))];
    match installed("runc") {
        Some(path) => found.push(("runc", format!("[runtimes.runc]\nkind = 'oci'\npath = {path:?}\n"))),
        None => println!("SKIPPED: runc is not installed (Debian: runc)"),
    }
    match installed("containerd-shim-runc-v2") {
        Some(path) => {
            found.push(("shim", format!("[runtimes.shim]\nkind = 'shim'\npath = {path:?}\n")));
            let pause = format!("[runtimes.paused]\nkind = 'shim'\npath = {path:?}\npause = 'always'\n");
            found.push(("paused", pause));
        }
        None => println!("SKIPPED: containerd-shim-runc-v2 is not installed (Debian: containerd)"),
    }
    if let Ok(only) = std::env::var("PINTLE_TEST_HANDLERS") {
        found.retain(|(name, _)| only.split(',').any(|wanted| wanted == *name));
    }
    found
}

/// Where a program is that is not Pintle's.
fn installed(name: &str) -> Option<PathBuf> {
    let own = std::env::var("PINTLE_TEST_PROGRAMS").unwrap_or_default();
    let folders =
        [own.as_str(), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    folders
        .iter()
        .filter(|folder| !folder.is_empty())
        .map(|folder| PathBuf::from(folder).join(name))
        .find(|path| path.is_file())
}

/// A daemon with these handlers.
async fn daemon_with(config: &str) -> Daemon {
    Daemon::start_as(Setup { config: config.into(), ..Setup::default() }).await
}

/// Runs a pod of a handler.
async fn run_pod(
    daemon: &Daemon,
    config: &v1::PodSandboxConfig,
    handler: &str,
) -> Result<String, tonic::Status> {
    let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler.into() };
    let id = daemon.runtime().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    daemon.seen.lock().unwrap().push(id.clone());
    Ok(id)
}

/// What a container's verbose status tells of it.
async fn info(daemon: &Daemon, id: &str) -> serde_json::Value {
    let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: true };
    let info = daemon.runtime().container_status(request).await.unwrap().into_inner().info;
    serde_json::from_str(&info["info"]).unwrap()
}
