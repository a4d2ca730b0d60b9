//! The network's nftables rules: masquerading, host ports, and what keeps both from being misused.
//!
//! Each network has a table of its own. A chain without rules is named after what the table was made from; where it is missing, because
//! the configuration changed or somebody flushed the rule set, the table is made anew in one batch with the host ports of every
//! attachment.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use rustix::io::Errno;
use sys::netlink::Socket;

use super::config::Config;
use super::state::{Attachment, State};
use super::wire::refused;
use crate::cni::error::{CniError, code};
use crate::kernel::nft::{self, Batch, Element, Hook, Map, kind};
use crate::kernel::{conntrack, lease, link, sysctl};
use crate::pod::{PortMapping, Protocol};

/// Changes whenever the rules below do, so that a newer version replaces what an older one made.
const RULES: u32 = 1;

const PORTS4: &str = "host_ports4";
const PORTS6: &str = "host_ports6";
const PORTS4_AT: &str = "host_ports4_at";
const PORTS6_AT: &str = "host_ports6_at";

/// The name of the network's table: several daemons on a host have different bridges.
pub(super) fn table(config: &Config) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let text: String = format!("{}_{}", config.name, config.bridge).chars().map(plain).collect();
    format!("pintle_{text}")
}

/// Runs `work` with a socket for nftables in the namespace of the calling thread.
pub(super) fn with_socket<T>(work: impl FnOnce(&mut Socket) -> Result<T, CniError>) -> Result<T, CniError> {
    lease::with_netfilter(work)
        .map_err(|error| CniError::new(code::KERNEL, format!("nftables socket: {error}")))?
}

/// Another attachment that has one of the host ports that are asked for.
pub(super) fn conflict(state: &State, attachment: &Attachment) -> Option<CniError> {
    if attachment.ports.is_empty() {
        return None;
    }
    let owner = attachment.owner();
    for other in state.attachments().iter().filter(|other| other.owner() != owner) {
        let clash = attachment.ports.iter().find(|port| other.ports.iter().any(|taken| clashes(port, taken)));
        if let Some(port) = clash {
            let message = format!(
                "host port {}/{} is taken by {}; it is free once that pod is gone",
                port.host_port,
                port.protocol.as_str(),
                other.container_id
            );
            return Some(CniError::new(code::HOST_PORT_TAKEN, message));
        }
    }
    None
}

fn clashes(one: &PortMapping, other: &PortMapping) -> bool {
    (one.protocol, one.host_port, one.host_ip) == (other.protocol, other.host_port, other.host_ip)
}

/// Makes the table as it should be, where it is not. With `anew` it is made again in any case.
pub(super) fn ensure(
    socket: &mut Socket,
    config: &Config,
    state: &State,
    anew: bool,
) -> Result<(), CniError> {
    let table = table(config);
    let what = || {
        refused(format!("nftables table {table} (the kernel needs nf_tables with inet, nat, masq and fib)"))
    };
    let mark = mark(config);
    let in_place = !anew && nft::has_chain(socket, &table, &mark).map_err(what())?;
    if !in_place || state.is_fresh() {
        state.describe(&config.bridge, &table)?;
    }
    if in_place {
        return Ok(());
    }
    let mut batch = Batch::new(&table);
    // "Make, delete, make" replaces the table whether it was there or not.
    batch.table();
    batch.delete_table();
    batch.table();
    chains(&mut batch, config, &mark);
    let elements: Vec<Element> = state.attachments().iter().flat_map(elements).collect();
    batch.add_elements(&elements);
    batch.commit(socket).map_err(what())
}

/// Opens the host ports of `attachment`, whose state is written already.
pub(super) fn publish(
    socket: &mut Socket,
    config: &Config,
    state: &State,
    attachment: &Attachment,
) -> Result<(), CniError> {
    let elements = elements(attachment);
    if elements.is_empty() {
        return Ok(());
    }
    let table = table(config);
    if config.has_family(true) {
        // Lets connections to 127.0.0.1 leave by the bridge; the rules drop what comes in by it for 127.0.0.0/8.
        sysctl::set(&format!("ipv4/conf/{}/route_localnet", config.bridge), "1")?;
    }
    let mut batch = Batch::new(&table);
    batch.add_elements(&elements);
    match batch.commit(socket) {
        Ok(()) => {}
        // A port that no attachment has leads somewhere else: what a crash left.
        Err(error) if matches!(error.errno, Errno::EXIST | Errno::BUSY) => {
            ensure(socket, config, state, true)?;
        }
        Err(error) => return Err(refused(format!("host ports in nftables table {table}"))(error)),
    }
    forget_flows(socket, attachment)
}

/// Closes the host ports of `attachment`; those that are closed already are fine.
pub(super) fn withdraw(
    socket: &mut Socket,
    config: &Config,
    attachment: &Attachment,
) -> Result<(), CniError> {
    let elements = elements(attachment);
    if elements.is_empty() {
        return Ok(());
    }
    let table = table(config);
    let mut remove = |elements: &[Element]| {
        let mut batch = Batch::new(&table);
        batch.delete_elements(elements);
        batch.commit(socket)
    };
    let mut done = remove(&elements);
    if done.as_ref().is_err_and(|error| error.errno == Errno::NOENT) {
        done = Ok(());
        for element in elements {
            match remove(&[element]) {
                Err(error) if error.errno != Errno::NOENT => done = Err(error),
                _ => {}
            }
        }
    }
    done.map_err(refused(format!("host ports in nftables table {table}")))?;
    let gone = Attachment { addresses: Vec::new(), ..attachment.clone() };
    forget_flows(socket, &gone)
}

/// Whether the kernel still has the host ports of `attachment`: adding what is there changes nothing, so it is asked with the mark only.
pub(super) fn in_place(socket: &mut Socket, config: &Config) -> Result<bool, CniError> {
    let table = table(config);
    nft::has_chain(socket, &table, &mark(config)).map_err(refused(format!("nftables table {table}")))
}

fn forget_flows(socket: &mut Socket, attachment: &Attachment) -> Result<(), CniError> {
    let ports: HashSet<u16> =
        attachment.ports.iter().filter(|p| p.protocol == Protocol::Udp).map(|p| p.host_port).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let mut route = super::wire::route_socket()?;
    let local = link::local_addresses(&mut route).map_err(refused("the host's addresses"))?;
    let keep: Vec<IpAddr> = attachment.addresses.iter().map(|net| net.addr()).collect();
    conntrack::forget_udp(socket, &ports, &local, &keep).map_err(refused("old UDP flows"))
}

/// The map entries of an attachment's host ports: in each family the pod has, unless the port is limited to an address of one.
fn elements(attachment: &Attachment) -> Vec<Element> {
    let mut elements = Vec::new();
    for address in &attachment.addresses {
        let pod = address.addr();
        for port in &attachment.ports {
            if port.host_ip.is_some_and(|ip| ip.is_ipv4() != pod.is_ipv4()) {
                continue;
            }
            let map = match (pod.is_ipv4(), port.host_ip.is_some()) {
                (true, false) => PORTS4,
                (true, true) => PORTS4_AT,
                (false, false) => PORTS6,
                (false, true) => PORTS6_AT,
            };
            let mut key = port.host_ip.map(octets).unwrap_or_default();
            key.extend([port.protocol.number(), 0, 0, 0]);
            key.extend(padded(port.host_port));
            let mut value = octets(pod);
            value.extend(padded(port.container_port));
            if !elements.iter().any(|e: &Element| e.map == map && e.key == key) {
                elements.push(Element { map, key, value });
            }
        }
    }
    elements
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A port in a four-byte register.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// The name of the chain that says what the table was made from.
fn mark(config: &Config) -> String {
    use std::fmt::Write;
    let mut text = format!("{RULES} {} {}", config.bridge, config.masquerade);
    for subnet in &config.subnets {
        let _ = write!(text, " {}", subnet.net);
    }
    format!("rules_{:016x}", super::hash(text.bytes()))
}

fn chains(batch: &mut Batch<'_>, config: &Config, mark: &str) {
    let hook = |kind, number, priority| Some(Hook { kind, number, priority });
    let bridge = config.bridge.as_str();
    batch.chain(mark, None);
    batch.chain("host_ports", None);
    // Only the families the network has: a kernel may lack IPv6.
    for (v4, family, everywhere, limited) in
        [(true, nft::IPV4, PORTS4, PORTS4_AT), (false, nft::IPV6, PORTS6, PORTS6_AT)]
    {
        if !config.has_family(v4) {
            continue;
        }
        for map in maps().iter().filter(|map| map.name == everywhere || map.name == limited) {
            batch.map(map);
        }
        batch.rule("host_ports", |rule| {
            rule.family(family).dnat_by(limited, family, true);
        });
        batch.rule("host_ports", |rule| {
            rule.family(family).dnat_by(everywhere, family, false);
        });
    }
    // Ports limited to 127.0.0.1 are not for other machines, whatever destination they write on a packet.
    batch.chain("prerouting", hook("nat", nft::PREROUTING, -100));
    batch.rule("prerouting", |rule| rule.family(nft::IPV4).destination_in(true, loopback4()).leave());
    batch.rule("prerouting", |rule| rule.destination_is_local().jump("host_ports"));
    // ::1 cannot be translated: IPv6 has no route_localnet, the connection would hang instead of being refused.
    batch.chain("output", hook("nat", nft::OUTPUT, -100));
    batch.rule("output", |rule| rule.family(nft::IPV6).destination_in(true, loopback6()).leave());
    batch.rule("output", |rule| rule.destination_is_local().jump("host_ports"));
    // With route_localnet a pod could reach what listens on the host's 127.0.0.1 (CVE-2020-8558).
    batch.chain("guard", hook("filter", nft::PREROUTING, -300));
    batch.rule("guard", |rule| {
        rule.in_by(bridge).family(nft::IPV4).destination_in(true, loopback4()).drop();
    });
    batch.chain("postrouting", hook("nat", nft::POSTROUTING, 100));
    batch.rule("postrouting", |rule| {
        rule.out_by(true, bridge).family(nft::IPV4).source_in(loopback4()).masquerade();
    });
    for subnet in &config.subnets {
        let family = if subnet.net.addr().is_ipv4() { nft::IPV4 } else { nft::IPV6 };
        // A pod that came by a host port to a pod of the same bridge must be answered by way of the host.
        batch.rule("postrouting", |rule| {
            rule.out_by(true, bridge).family(family).source_in(subnet.net).was_dnat().masquerade();
        });
        if config.masquerade {
            batch.rule("postrouting", |rule| {
                rule.out_by(false, bridge).family(family).source_in(subnet.net);
                rule.destination_in(false, multicast(family)).masquerade();
            });
        }
    }
}

fn maps() -> [Map<'static>; 4] {
    use kind::{IPV4, IPV6, PROTOCOL, SERVICE, concatenated};
    let map = |name, key: (&[u32], u32), value: (&[u32], u32)| Map {
        name,
        key: (concatenated(key.0), key.1),
        value: (concatenated(value.0), value.1),
    };
    [
        map(PORTS4, (&[PROTOCOL, SERVICE], 8), (&[IPV4, SERVICE], 8)),
        map(PORTS6, (&[PROTOCOL, SERVICE], 8), (&[IPV6, SERVICE], 20)),
        map(PORTS4_AT, (&[IPV4, PROTOCOL, SERVICE], 12), (&[IPV4, SERVICE], 8)),
        map(PORTS6_AT, (&[IPV6, PROTOCOL, SERVICE], 24), (&[IPV6, SERVICE], 20)),
    ]
}

fn loopback4() -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8))
}

fn loopback6() -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128))
}

fn multicast(family: u8) -> IpNet {
    match family {
        nft::IPV4 => IpNet::V4(ipnet::Ipv4Net::new_assert([224, 0, 0, 0].into(), 4)),
        _ => IpNet::V6(ipnet::Ipv6Net::new_assert([0xff00, 0, 0, 0, 0, 0, 0, 0].into(), 8)),
    }
}
