//! SIGHUP: the configuration is read again; what can change in a running daemon changes, and the rest is named.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::logging::Logging;
use super::options::Options;
use crate::config::Config;

/// The configuration in force, and what it is applied to.
pub(super) struct Reloading {
    options: Options,
    config: Config,
    logging: Logging,
    images: Arc<image::Images>,
}

impl Reloading {
    pub(super) fn new(
        options: Options,
        config: Config,
        logging: Logging,
        images: Arc<image::Images>,
    ) -> Reloading {
        Reloading { options, config, logging, images }
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the configuration again. One with a mistake changes nothing.
    pub(super) async fn reload(&mut self) {
        let new = match self.options.config() {
            Ok(new) => new,
            Err(error) => {
                return error!(%error, "the configuration is not reloaded; the old one stays in force");
            }
        };
        for key in new.changes_needing_restart(&self.config) {
            warn!(key, "this setting has changed; it needs a restart");
        }
        let changed = new.changes_by_reload(&self.config);
        self.logging.level(new.log.level);
        if new.image.pinned != self.config.image.pinned
            && let Err(error) = self.images.pin_like(image::Pinned::new(new.image.pinned.clone())).await
        {
            error!(%error, "which images are pinned could not be changed; the old patterns stay in force");
        }
        info!(changed = changed.join(", "), "configuration reloaded");
        self.config = new;
    }
}

/// What the image store is told of the configuration.
pub(super) fn image_config(config: &Config) -> image::ImageConfig {
    image::ImageConfig {
        registries: config.image.sources(),
        proxies: distribution::Proxies::of_environment(),
        parallel_layers: config.image.max_parallel_layers as usize,
        connections: image::Bounds {
            per_host: config.image.max_connections_per_host as usize,
            total: config.image.max_connections as usize,
        },
        snapshotter: config.image.snapshotter,
        pinned: image::Pinned::new(config.image.pinned.clone()),
        containers_root: config.image.containers_root.clone(),
        pod_write_limit: config.image.pod_write_limit,
        keep_blobs: config.image.keep_blobs,
        linger: config.image.pull_linger_secs,
        timeouts: image::Timeouts { stall: config.image.stall_timeout_secs, ..image::Timeouts::default() },
        trust: trust_config(&config.image),
        ..image::ImageConfig::new(config.daemon.root.clone())
    }
}

fn trust_config(config: &crate::config::Image) -> image::TrustConfig {
    let timeout = config.verifier_timeout_secs;
    image::TrustConfig {
        policy: config.policy.clone(),
        registries_dir: config.registries_d.clone(),
        accept_unnamed: config.accept_unnamed_signatures,
        pins: trust::Pins { scopes: config.require_digest.clone() },
        verifiers: config.verifier_dir.clone().map(|folder| trust::Verifiers { folder, timeout }),
    }
}
