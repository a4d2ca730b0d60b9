//! Pod networks: CNI configuration lists, plugin calls, and the built-in plugin.
//!
//! [`Networks`] is the node's side: it attaches pods to the network that the configuration directory names and undoes it, by running
//! plugins. [`plugin`] is the built-in plugin, `type: pintle`, which serves the CNI command line and is called in-process by
//! [`Networks`]. Everything is synchronous. Nothing here runs `ip`, `nft` or `iptables`: the kernel is spoken to by netlink.

mod bandwidth;
pub mod cni;
mod defaults;
mod errors;
mod kernel;
mod networks;
pub mod plugin;
mod pod;
mod pod_cidr;
mod stats;

pub use bandwidth::{BadBandwidth, Bandwidth};
pub use cni::config::Skipped;
pub use cni::error::CniError;
pub use cni::exec::PluginError;
pub use cni::record::{Phase, RecordError};
pub use cni::result::{Dns, Interface, Route};
pub use defaults::{Defaults, default_configuration};
pub use errors::{AttachError, DetachError, NotReady, PodCidrError};
pub use networks::{GcReport, NetworkConfig, Networks, Owed, Ready};
pub use pod::{Attached, Netns, PodNetwork, PortMapping, Protocol};
pub use stats::{InterfaceMeter, InterfaceStats, set_up_loopback};
