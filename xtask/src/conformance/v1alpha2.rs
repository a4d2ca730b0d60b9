//! A pod's life by a client that was generated from the last definition of CRI v1alpha2: `conformance/v1alpha2`.

use std::process::Command;

use anyhow::Result;

use super::clients::Clients;
use super::daemon::Daemon;
use crate::command;

const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";

/// Runs it; what goes otherwise than it should is the error.
pub(super) fn run(clients: &Clients, daemon: &Daemon) -> Result<()> {
    let logs = daemon.scratch()?;
    let socket = daemon.endpoint.strip_prefix("unix://").unwrap_or(&daemon.endpoint);
    command::run(Command::new(&clients.v1alpha2).args([socket, IMAGE]).arg(logs.path()))
}
