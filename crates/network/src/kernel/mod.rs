//! The kernel's networking by netlink, as far as pods need it: interfaces, addresses, routes, nftables, queueing and conntrack.

pub(crate) mod conntrack;
pub(crate) mod lease;
pub(crate) mod link;
pub(crate) mod nft;
pub(crate) mod sysctl;
pub(crate) mod tc;
