//! Interfaces, their addresses and routes (rtnetlink(7)).

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;
use rustix::io::Errno;
use sys::netlink::{Messages, Refused, Socket, attributes, flag};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

/// `IFLA_*`, linux/if_link.h.
mod ifla {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const MTU: u16 = 4;
    pub(super) const MASTER: u16 = 10;
    pub(super) const LINK_INFO: u16 = 18;
    pub(super) const STATS64: u16 = 23;
    pub(super) const NET_NS_FD: u16 = 28;
    pub(super) const TRANSMIT_QUEUES: u16 = 31;
    pub(super) const RECEIVE_QUEUES: u16 = 32;
    pub(super) const INFO_KIND: u16 = 1;
    pub(super) const INFO_DATA: u16 = 2;
    pub(super) const INFO_SLAVE_KIND: u16 = 4;
    pub(super) const INFO_SLAVE_DATA: u16 = 5;
    pub(super) const VETH_PEER: u16 = 1;
    pub(super) const BRIDGE_FORWARD_DELAY: u16 = 1;
    pub(super) const BRIDGE_STP: u16 = 5;
    pub(super) const PORT_HAIRPIN: u16 = 4;
}

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
/// Usable at once: the address is ours to give, nobody else can have it.
const IFA_F_NODAD: u32 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const TABLE_MAIN: u8 = 254;
const UP: u32 = 1;

/// The loopback interface has this index in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

pub(crate) type Mac = [u8; 6];

/// What the kernel says of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    pub(crate) mac: Option<Mac>,
    pub(crate) master: Option<u32>,
    /// `struct rtnl_link_stats64`, as far as it is used.
    pub(crate) counters: Counters,
}

/// The first eight fields of `struct rtnl_link_stats64`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_errors: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_dropped: u64,
}

/// The two ends of a veth pair that is to be made.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    pub(crate) host: &'a str,
    pub(crate) bridge: u32,
    pub(crate) peer: &'a str,
    pub(crate) netns: BorrowedFd<'a>,
    pub(crate) peer_mac: Mac,
    pub(crate) mtu: u32,
}

/// The interface called `name`, `None` where there is none.
pub(crate) fn find(socket: &mut Socket, name: &str) -> Result<Option<Link>, Refused> {
    let mut request = Messages::new();
    request.begin(GET_LINK, flag::ACK).fixed(&link_header(0, 0, 0)).text(ifla::NAME, name);
    let mut found = None;
    match socket.query(request, |kind, payload| {
        if kind == NEW_LINK {
            found = parse_link(payload);
        }
    }) {
        Err(refused) if refused.errno == Errno::NODEV => Ok(None),
        done => done.map(|()| found),
    }
}

/// Every interface of the socket's namespace.
pub(crate) fn all(socket: &mut Socket) -> Result<Vec<Link>, Refused> {
    let mut request = Messages::new();
    request.begin(GET_LINK, flag::DUMP).fixed(&link_header(0, 0, 0));
    let mut links = Vec::new();
    socket.query(request, |kind, payload| {
        if kind == NEW_LINK {
            links.extend(parse_link(payload));
        }
    })?;
    Ok(links)
}

/// The addresses of the interface `index`.
pub(crate) fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<IpNet>, Refused> {
    let mut found = Vec::new();
    dump_addresses(socket, index, |of, address| {
        if of == index {
            found.push(address);
        }
    })?;
    Ok(found)
}

/// Every address of the socket's namespace.
pub(crate) fn local_addresses(socket: &mut Socket) -> Result<HashSet<IpAddr>, Refused> {
    let mut found = HashSet::new();
    dump_addresses(socket, 0, |_, address| {
        found.insert(address.addr());
    })?;
    Ok(found)
}

fn dump_addresses(socket: &mut Socket, index: u32, mut each: impl FnMut(u32, IpNet)) -> Result<(), Refused> {
    let mut request = Messages::new();
    request.begin(GET_ADDRESS, flag::DUMP).fixed(&address_header(0, 0, 0, index));
    socket.query(request, |kind, payload| {
        let (Some(of), NEW_ADDRESS) = (word(payload, 4), kind) else { return };
        let attribute =
            |wanted| attributes(&payload[8..]).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        // IFA_LOCAL is the interface's own address; IPv6 has only IFA_ADDRESS.
        let address = attribute(IFA_LOCAL).or_else(|| attribute(IFA_ADDRESS)).and_then(parse_ip);
        if let Some(net) = address.and_then(|address| IpNet::new(address, payload[1]).ok()) {
            each(of, net);
        }
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A bridge without spanning tree. Its hardware address is given, or it would change with its ports.
pub(crate) fn create_bridge(messages: &mut Messages, name: &str, mac: Mac) {
    messages
        .begin(NEW_LINK, flag::CREATE | flag::EXCL | flag::ACK)
        .fixed(&link_header(0, 0, 0))
        .text(ifla::NAME, name)
        .attribute(ifla::ADDRESS, &mac)
        .nest(ifla::LINK_INFO, |info| {
            info.text(ifla::INFO_KIND, "bridge").nest(ifla::INFO_DATA, |data| {
                data.u32(ifla::BRIDGE_FORWARD_DELAY, 0).u32(ifla::BRIDGE_STP, 0);
            });
        });
}

/// Sets the largest packet. For a bridge this also ends its following of its ports.
pub(crate) fn set_mtu(messages: &mut Messages, index: u32, mtu: u32) {
    messages.begin(NEW_LINK, flag::ACK).fixed(&link_header(index, 0, 0)).u32(ifla::MTU, mtu);
}

/// The largest packet of the interface that IPv4's default route leaves by; `None` where there is no such route.
pub(crate) fn uplink_mtu(socket: &mut Socket) -> Result<Option<u32>, Refused> {
    let mut request = Messages::new();
    let mut header = [0; 12];
    header[0] = family(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    request.begin(GET_ROUTE, flag::DUMP).fixed(&header);
    let mut uplink = None;
    socket.query(request, |kind, payload| {
        // A destination of no bits, in the main table.
        if kind == NEW_ROUTE && payload.len() >= 12 && payload[1] == 0 && payload[4] == TABLE_MAIN {
            let out = attributes(&payload[12..]).find(|(kind, _)| *kind == RTA_OIF);
            uplink = uplink.or(out.and_then(|(_, value)| word(value, 0)));
        }
    })?;
    let links = if uplink.is_some() { all(socket)? } else { Vec::new() };
    Ok(links.into_iter().find(|link| Some(link.index) == uplink).map(|link| link.mtu))
}

/// Where the routes of a family lead that leave by the interface `index`, in whichever table they are.
pub(crate) fn destinations(socket: &mut Socket, index: u32, v4: bool) -> Result<Vec<IpNet>, Refused> {
    let any = if v4 {
        IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
    };
    let mut request = Messages::new();
    let mut header = [0; 12];
    header[0] = family(any);
    request.begin(GET_ROUTE, flag::DUMP).fixed(&header);
    let mut found = Vec::new();
    socket.query(request, |kind, payload| {
        let (NEW_ROUTE, Some((header, rest))) = (kind, payload.split_at_checked(12)) else { return };
        let attribute = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let by = attribute(RTA_OIF).and_then(|value| word(value, 0));
        // Without an address it leads everywhere.
        let to = attribute(RTA_DST).map_or(Some(any), parse_ip);
        if let (Some(to), true) = (to.and_then(|to| IpNet::new(to, header[1]).ok()), by == Some(index)) {
            found.push(to);
        }
    })?;
    Ok(found)
}

/// An interface of a kind that needs no data, such as `ifb`.
pub(crate) fn create_plain(messages: &mut Messages, name: &str, kind: &str) {
    messages
        .begin(NEW_LINK, flag::CREATE | flag::EXCL | flag::ACK)
        .fixed(&link_header(0, 0, 0))
        .text(ifla::NAME, name)
        .nest(ifla::LINK_INFO, |info| {
            info.text(ifla::INFO_KIND, kind);
        });
}

/// A veth pair whose peer is born inside the pod's namespace. Neither end is up yet: a peer created up costs 15 ms. One queue each way:
/// veth does not queue, and by default the kernel makes one for each processor, with files in sysfs.
pub(crate) fn create_veth(messages: &mut Messages, veth: &Veth<'_>) {
    messages
        .begin(NEW_LINK, flag::CREATE | flag::EXCL | flag::ACK)
        .fixed(&link_header(0, 0, 0))
        .text(ifla::NAME, veth.host)
        .u32(ifla::MTU, veth.mtu)
        .u32(ifla::TRANSMIT_QUEUES, 1)
        .u32(ifla::RECEIVE_QUEUES, 1)
        .u32(ifla::MASTER, veth.bridge)
        .nest(ifla::LINK_INFO, |info| {
            info.text(ifla::INFO_KIND, "veth").nest(ifla::INFO_DATA, |data| {
                data.nest(ifla::VETH_PEER, |peer| {
                    peer.fixed(&link_header(0, 0, 0))
                        .text(ifla::NAME, veth.peer)
                        .u32(ifla::MTU, veth.mtu)
                        .u32(ifla::TRANSMIT_QUEUES, 1)
                        .u32(ifla::RECEIVE_QUEUES, 1)
                        .attribute(ifla::ADDRESS, &veth.peer_mac)
                        .descriptor(ifla::NET_NS_FD, veth.netns);
                });
            });
        });
}

/// Brings the interface up.
pub(crate) fn set_up(messages: &mut Messages, index: u32) {
    messages.begin(NEW_LINK, flag::ACK).fixed(&link_header(index, UP, UP));
}

/// Brings the interface up, by its name.
pub(crate) fn set_up_named(messages: &mut Messages, name: &str) {
    messages.begin(NEW_LINK, flag::ACK).fixed(&link_header(0, UP, UP)).text(ifla::NAME, name);
}

/// Brings a port of a bridge up; with `hairpin` frames may leave by the port they came in.
pub(crate) fn set_port_up(messages: &mut Messages, name: &str, hairpin: bool) {
    set_up_named(messages, name);
    messages.nest(ifla::LINK_INFO, |info| {
        info.text(ifla::INFO_SLAVE_KIND, "bridge").nest(ifla::INFO_SLAVE_DATA, |port| {
            port.u8(ifla::PORT_HAIRPIN, u8::from(hairpin));
        });
    });
}

/// Deletes an interface by its name; of a veth pair both ends go.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> Result<(), Refused> {
    let mut messages = Messages::new();
    messages.begin(DELETE_LINK, flag::ACK).fixed(&link_header(0, 0, 0)).text(ifla::NAME, name);
    match socket.transact(messages) {
        Err(refused) if refused.errno == Errno::NODEV => Ok(()),
        done => done,
    }
}

/// Gives the interface an address, or leaves it as it is where it has it.
pub(crate) fn add_address(messages: &mut Messages, index: u32, address: IpNet) {
    let header = address_header(family(address.addr()), address.prefix_len(), 0, index);
    messages.begin(NEW_ADDRESS, flag::CREATE | flag::REPLACE | flag::ACK).fixed(&header);
    put_ip(messages, IFA_LOCAL, address.addr());
    put_ip(messages, IFA_ADDRESS, address.addr());
    messages.u32(IFA_FLAGS, IFA_F_NODAD);
}

/// A route by `gateway`, or straight onto the link where there is none.
pub(crate) fn add_route(messages: &mut Messages, index: u32, destination: IpNet, gateway: Option<IpAddr>) {
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_LINK: u8 = 253;
    const UNICAST: u8 = 1;
    let scope = if gateway.is_none() && destination.addr().is_ipv4() { SCOPE_LINK } else { 0 };
    let header = [
        family(destination.addr()),
        destination.prefix_len(),
        0,
        0,
        TABLE_MAIN,
        PROTOCOL_STATIC,
        scope,
        UNICAST,
        0,
        0,
        0,
        0,
    ];
    messages.begin(NEW_ROUTE, flag::CREATE | flag::REPLACE | flag::ACK).fixed(&header);
    if destination.prefix_len() > 0 {
        put_ip(messages, RTA_DST, destination.network());
    }
    if let Some(gateway) = gateway {
        put_ip(messages, RTA_GATEWAY, gateway);
    }
    messages.u32(RTA_OIF, index);
}

/// `aa:bb:cc:dd:ee:ff`.
pub(crate) fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Parses six hexadecimal bytes with `:` or `-` between them; group addresses are refused.
pub(crate) fn parse_mac(text: &str) -> Option<Mac> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+'))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

fn put_ip(messages: &mut Messages, kind: u16, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => messages.attribute(kind, &ip.octets()),
        IpAddr::V6(ip) => messages.attribute(kind, &ip.octets()),
    };
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn family(ip: IpAddr) -> u8 {
    const INET: u8 = 2;
    const INET6: u8 = 10;
    if ip.is_ipv4() { INET } else { INET6 }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
fn address_header(family: u8, prefix: u8, scope: u8, index: u32) -> [u8; 8] {
    let index = index.to_ne_bytes();
    [family, prefix, 0, scope, index[0], index[1], index[2], index[3]]
}

fn parse_link(payload: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: word(payload, 4)?,
        name: String::new(),
        kind: String::new(),
        up: word(payload, 8)? & UP != 0,
        mtu: 0,
        mac: None,
        master: None,
        counters: Counters::default(),
    };
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_ne_bytes);
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            ifla::NAME => link.name = text(value),
            ifla::MTU => link.mtu = number(value).unwrap_or(0),
            ifla::MASTER => link.master = number(value),
            ifla::ADDRESS => link.mac = value.try_into().ok(),
            ifla::STATS64 => link.counters = parse_counters(value),
            ifla::LINK_INFO => {
                let info = attributes(value).find(|(kind, _)| *kind == ifla::INFO_KIND);
                link.kind = info.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_counters(value: &[u8]) -> Counters {
    let mut words = value.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
    let mut next = || words.next().unwrap_or(0);
    Counters {
        rx_packets: next(),
        tx_packets: next(),
        rx_bytes: next(),
        tx_bytes: next(),
        rx_errors: next(),
        tx_errors: next(),
        rx_dropped: next(),
        tx_dropped: next(),
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_string()
}
