//! The calls about the daemon itself: its version, its state, and what the kubelet tells it.

use std::time::Duration;

use node::CgroupDriver as Driver;
use tonic::Status;

use super::code::Coded;
use super::runtime::Runtime;
use super::{blocking, info};
use crate::runtime_v1::*;

/// How long the network may take to say whether it is ready: its plugins are other people's programs.
const NETWORK: Duration = Duration::from_secs(3);

impl Runtime {
    /// The kubelet refuses a runtime that leaves one of the four empty.
    pub(super) fn versions(&self) -> VersionResponse {
        VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "pintle".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: self.version.into(),
        }
    }

    pub(super) async fn daemon_status(&self, verbose: bool) -> Result<StatusResponse, Status> {
        let networks = self.node.networks().clone();
        let asked = blocking(move || networks.status().map(drop).map_err(|why| why.to_string()));
        let network = match tokio::time::timeout(NETWORK, asked).await {
            Ok(answer) => answer?,
            Err(_) => Err(format!("the network's plugins did not answer within {NETWORK:?}")),
        };
        let user_namespaces = self.node.has_user_namespaces().await;
        let handlers = self.node.handlers().await.into_iter().map(|(name, has)| RuntimeHandler {
            name,
            features: Some(RuntimeHandlerFeatures {
                recursive_read_only_mounts: has.recursive_read_only,
                user_namespaces: has.user_namespaces,
            }),
        });
        let conditions = vec![condition("RuntimeReady", Ok(())), condition("NetworkReady", network)];
        Ok(StatusResponse {
            status: Some(RuntimeStatus { conditions }),
            info: if verbose { info::daemon(&self.node) } else { Default::default() },
            runtime_handlers: handlers.collect(),
            features: Some(RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: user_namespaces,
                mount_options: true,
            }),
        })
    }

    /// The kubelet says which addresses are this node's pods'.
    pub(super) async fn pod_cidr(
        &self,
        request: UpdateRuntimeConfigRequest,
    ) -> Result<UpdateRuntimeConfigResponse, Status> {
        let config = request.runtime_config.and_then(|config| config.network_config);
        if let Some(config) = config.filter(|config| !config.pod_cidr.is_empty()) {
            let node = self.node.clone();
            let kept = blocking(move || node.pod_cidr(&config.pod_cidr)).await?;
            kept.map_err(|error| error.status())?;
        }
        Ok(UpdateRuntimeConfigResponse {})
    }

    pub(super) fn cgroup_driver(&self) -> RuntimeConfigResponse {
        let driver = match self.node.config().cgroup_driver {
            Driver::Cgroupfs => CgroupDriver::Cgroupfs,
            Driver::Systemd => CgroupDriver::Systemd,
        };
        RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver.into() }) }
    }
}

fn condition(kind: &str, ready: Result<(), String>) -> RuntimeCondition {
    let (status, reason, message) = match ready {
        Ok(()) => (true, String::new(), String::new()),
        Err(message) => (false, format!("{}NotReady", kind.trim_end_matches("Ready")), message),
    };
    RuntimeCondition { r#type: kind.into(), status, reason, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_why_it_is_not_met() {
        let ready = condition("NetworkReady", Ok(()));
        assert_eq!((ready.status, ready.reason.as_str()), (true, ""));
        let not = condition("NetworkReady", Err("no configuration".into()));
        assert_eq!((not.status, not.reason.as_str()), (false, "NetworkNotReady"));
        assert_eq!(not.message, "no configuration");
    }
}
