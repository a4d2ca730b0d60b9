//! The runtime handlers of the configuration, in the node's words.

use std::path::Path;
use std::sync::Arc;

use node::{HandlerConfig, HandlerKind, OciHandler, Pause, PrivilegedPolicy, ShimHandler};

use super::error::ServeError;
use crate::config::{self, Config, PauseContainer, Privileged, RuntimeHandler};

/// All handlers that are configured.
///
/// # Errors
/// The networks of one of them could not be taken up.
pub(super) fn of(config: &Config) -> Result<Vec<HandlerConfig>, ServeError> {
    config.runtimes.iter().map(|(name, handler)| one(config, name, handler)).collect()
}

fn one(config: &Config, name: &str, handler: &RuntimeHandler) -> Result<HandlerConfig, ServeError> {
    let networks = handler.cni_conf_dir.as_deref().map(|folder| networks(config, folder)).transpose()?;
    Ok(HandlerConfig {
        name: name.to_owned(),
        kind: match handler.kind {
            config::HandlerKind::Builtin => HandlerKind::Builtin,
            config::HandlerKind::Oci => HandlerKind::Oci(OciHandler {
                program: handler.path.clone().unwrap_or_default(),
                arguments: handler.arguments.clone(),
                pause: pause(handler.pause),
                root: handler.root.clone(),
                deadline: handler.deadline_secs,
            }),
            config::HandlerKind::Shim => HandlerKind::Shim(ShimHandler {
                program: handler.path.clone().unwrap_or_default(),
                runtime: handler.runtime.clone(),
                config_path: handler.config_path.clone(),
                pause: pause(handler.pause),
                root: handler.root.clone(),
                socket_dir: config.daemon.state.join("s"),
                deadline: handler.deadline_secs,
            }),
        },
        pod_annotations: handler.pod_annotations.clone(),
        container_annotations: handler.container_annotations.clone(),
        base_spec: handler.base_spec.clone(),
        privileged: match handler.privileged {
            Privileged::Allow => PrivilegedPolicy::Allow,
            Privileged::WithoutHostDevices => PrivilegedPolicy::WithoutHostDevices,
            Privileged::Refuse => PrivilegedPolicy::Refuse,
        },
        networks: networks.map(Arc::new),
    })
}

fn pause(setting: PauseContainer) -> Pause {
    match setting {
        PauseContainer::Auto => Pause::Auto,
        PauseContainer::Always => Pause::Always,
        PauseContainer::Never => Pause::Never,
    }
}

/// The networks of a folder of CNI configuration. What is attached to them is on one record, so that it is undone whoever asks for that.
pub(super) fn networks(config: &Config, conf_dir: &Path) -> Result<network::Networks, ServeError> {
    network::Networks::new(network::NetworkConfig {
        conf_dir: conf_dir.to_owned(),
        bin_dirs: config.network.bin_dirs.clone(),
        state_dir: config.daemon.state.join("network"),
        root_dir: config.daemon.root.join("network"),
        plugin_deadline: config.network.plugin_deadline_secs,
    })
    .map_err(ServeError::Network)
}
