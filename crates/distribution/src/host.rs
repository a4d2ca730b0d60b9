//! Hosts as they stand in references and URLs, `host`, `host:port` and `[address]:port`. Pure.

use std::net::{IpAddr, SocketAddr};

/// Docker Hub, as references name it.
pub(crate) const HUB: &str = "docker.io";
/// The host that answers for Docker Hub.
pub(crate) const HUB_HOST: &str = "registry-1.docker.io";

/// The host without the brackets of an IPv6 address, and the port. An address without brackets has no port.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (address, after.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

/// The host alone.
pub(crate) fn name_of(authority: &str) -> &str {
    split_port(authority).0
}

/// Whether it is this machine itself.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let name = name_of(authority);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether it is written as an address that never leaves its link: metadata services of clouds are there, and no registry is.
pub(crate) fn is_link_local(authority: &str) -> bool {
    name_of(authority).parse::<IpAddr>().is_ok_and(is_link_local_address)
}

/// As [`is_link_local`], of an address that a name led to.
pub(crate) fn leads_to_link_local(address: &SocketAddr) -> bool {
    is_link_local_address(address.ip())
}

fn is_link_local_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unicast_link_local() || address.to_ipv4_mapped().is_some_and(|a| a.is_link_local())
        }
    }
}

/// The one name of a registry that has several.
pub(crate) fn hub(host: &str) -> &str {
    match host {
        "index.docker.io" | HUB_HOST | "registry.hub.docker.com" => HUB,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_from_addresses() {
        assert_eq!(split_port("quay.io"), ("quay.io", None));
        assert_eq!(split_port("quay.io:5000"), ("quay.io", Some(5000)));
        assert_eq!(split_port("[::1]:5000"), ("::1", Some(5000)));
        assert_eq!(split_port("[::1]"), ("::1", None));
        assert_eq!(split_port("2001:db8::7"), ("2001:db8::7", None));
        assert_eq!(split_port("quay.io:x"), ("quay.io:x", None));
    }

    #[test]
    fn loopback_and_link_local() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.org", "quay.io", "10.0.0.1:5000", "[fe80::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
        for host in ["169.254.169.254", "169.254.1.1:80", "[fe80::1]:5000", "[::ffff:169.254.169.254]"] {
            assert!(is_link_local(host), "{host}");
        }
        assert!(!is_link_local("quay.io") && !is_link_local("10.0.0.1"));
    }
}
