//! The built-in network plugin, `type: pintle`: a bridge, an address of its own IPAM, host ports and limits for each pod.
//!
//! The same code serves the CNI command line ([`plugin_main`]) and the node, which calls [`run`] in-process.

mod command_line;
mod config;
mod ipam;
mod limits;
mod network;
mod rules;
mod state;
mod wire;

use std::os::fd::BorrowedFd;

use serde_json::{Value, json};

pub use command_line::plugin_main;
pub(crate) use network::remove_network;

use crate::cni::error::{CniError, code};
use crate::cni::exec::Command;
use crate::cni::version::Version;
use config::Config;

/// The plugin's name in a configuration.
pub const TYPE: &str = "pintle";

/// The versions the plugin speaks.
pub const VERSIONS: [Version; 5] =
    [Version::V0_3_0, Version::V0_3_1, Version::V0_4, Version::V1_0, Version::V1_1];

/// What a command is about; empty texts where it has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) container_id: &'a str,
    pub(crate) netns_path: &'a str,
    /// `None` where the namespace is gone or going.
    pub(crate) netns: Option<BorrowedFd<'a>>,
    pub(crate) interface: &'a str,
}

/// Carries out one command; returns what is to be printed.
pub(crate) fn run(
    command: Command,
    request: &Request<'_>,
    config: &Value,
) -> Result<Option<Value>, CniError> {
    if command == Command::Version {
        let version = config.get("cniVersion").and_then(Value::as_str).unwrap_or(Version::V1_1.as_str());
        let supported = VERSIONS.map(Version::as_str);
        return Ok(Some(json!({ "cniVersion": version, "supportedVersions": supported })));
    }
    let config = Config::parse(config)?;
    match command {
        Command::Add => network::add(request, &config).map(Some),
        Command::Del => network::delete(request, &config).map(|()| None),
        Command::Check => network::check(request, &config).map(|()| None),
        Command::Status => network::status(&config).map(|()| None),
        Command::Gc => network::collect(&config).map(|()| None),
        Command::Version => Err(CniError::new(code::BAD_ENVIRONMENT, "VERSION takes no configuration")),
    }
}

fn versions_text() -> String {
    VERSIONS.map(Version::as_str).join(", ")
}

/// FNV-1a of 64 bits: names that stay the same from one version to the next.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
