//! An address range that nobody on this machine uses. Pure but for reading the routes.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Returns a /24 that no route of this machine overlaps, or `None` when all are taken. Different seeds begin with different ranges, so
/// that two demonstrations at the same time do not take the same.
pub(super) fn free_subnet(seed: u32) -> Option<Ipv4Net> {
    let routes = parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default());
    first_free(seed, &routes)
}

/// Ranges to choose from: out of the way of what networks at home and at work, Docker (172.17), Kubernetes (10.244) and Podman (10.88) use.
fn candidates(seed: u32) -> impl Iterator<Item = Ipv4Net> {
    let range = |third| Ipv4Net::new_assert(Ipv4Addr::new(10, 231, third, 0), 24);
    (0_u8..=255).map(move |number| range(number.wrapping_add(seed as u8)))
}

fn first_free(seed: u32, routes: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    candidates(seed).find(|candidate| !routes.iter().any(|route| overlap(candidate, route)))
}

/// Reads `/proc/net/route`: destination and mask are the kernel's bytes in hexadecimal, so little-endian on the machines we run on.
/// The default route covers everything and says nothing about what is used.
fn parse_routes(text: &str) -> Vec<Ipv4Net> {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (destination, mask) = (hex(fields.get(1)?)?, hex(fields.get(7)?)?);
        Ipv4Net::with_netmask(destination, mask).ok().filter(|net| net.prefix_len() > 0)
    };
    text.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t0000E70A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        eth0\t0001E70A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn a_used_range_is_not_chosen_and_the_default_route_is_no_use() {
        let routes = parse_routes(ROUTES);
        assert_eq!(routes, ["10.231.0.0/24".parse().unwrap(), "10.231.1.0/24".parse().unwrap()]);
        assert_eq!(first_free(0, &routes), Some("10.231.2.0/24".parse().unwrap()));
        assert_eq!(first_free(7, &["10.0.0.0/8".parse().unwrap()]), None);
    }
}
