//! The pod's cable: the bridge on the host, the veth pair, and what is set inside the pod.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;
use rustix::io::Errno;
use sys::netlink::{Messages, Refused, Socket};

use super::config::Config;
use super::state::Attachment;
use crate::cni::error::{CniError, code};
use crate::kernel::link::{self, Link, Mac, Veth};
use crate::kernel::sysctl::{self, SysctlError};

/// Where the host has no default route to follow.
const DEFAULT_MTU: u32 = 1500;
/// What veth takes.
const MAX_MTU: u32 = 65535;

/// An error of the kernel as the plugin reports it.
pub(super) fn refused(what: impl std::fmt::Display) -> impl FnOnce(Refused) -> CniError {
    let message = what.to_string();
    move |refused| CniError { code: code::KERNEL, message, details: refused.to_string() }
}

impl From<SysctlError> for CniError {
    fn from(error: SysctlError) -> CniError {
        CniError::new(code::KERNEL, error.to_string())
    }
}

/// A route socket in the namespace of the calling thread.
pub(super) fn route_socket() -> Result<Socket, CniError> {
    Socket::route().map_err(|error| CniError::new(code::KERNEL, format!("netlink socket: {error}")))
}

/// Makes the bridge where it is missing, and gives it the gateways' addresses; it is up then and the host routes.
pub(super) fn ensure_bridge(socket: &mut Socket, config: &Config) -> Result<Link, CniError> {
    let name = config.bridge.as_str();
    let find = |socket: &mut Socket| link::find(socket, name).map_err(refused(format!("bridge {name}")));
    let found = find(socket)?;
    let mut wanted_mtu = config.mtu;
    let mut bridge = match found {
        Some(link) if link.kind == "bridge" => link,
        Some(link) => {
            return Err(CniError::new(
                code::BAD_CONFIGURATION,
                format!("interface {name} is a {:?}, not a bridge; choose another \"bridge\"", link.kind),
            ));
        }
        None => {
            let mut messages = Messages::new();
            link::create_bridge(&mut messages, name, bridge_mac(config));
            match socket.transact(messages) {
                Err(error) if error.errno != Errno::EXIST => {
                    return Err(refused(format!("cannot make bridge {name}"))(error));
                }
                _ => {}
            }
            bridge_sysctls(config)?;
            if wanted_mtu.is_none() {
                let uplink = link::uplink_mtu(socket).map_err(refused("the host's default route"))?;
                wanted_mtu = Some(uplink.unwrap_or(DEFAULT_MTU).min(MAX_MTU));
            }
            let vanished = || CniError::new(code::TRY_AGAIN, format!("bridge {name} vanished"));
            find(socket)?.ok_or_else(vanished)?
        }
    };
    let present = link::addresses(socket, bridge.index).map_err(refused(format!("addresses of {name}")))?;
    let mut messages = Messages::new();
    for subnet in &config.subnets {
        let address = host_net(subnet.gateway, subnet.net);
        if !present.contains(&address) {
            link::add_address(&mut messages, bridge.index, address);
        }
    }
    if let Some(mtu) = wanted_mtu.filter(|mtu| *mtu != bridge.mtu || !bridge.up) {
        link::set_mtu(&mut messages, bridge.index, mtu);
        bridge.mtu = mtu;
    }
    if !bridge.up {
        link::set_up(&mut messages, bridge.index);
    }
    if !messages.is_empty() {
        socket.transact(messages).map_err(refused(format!("cannot set up bridge {name}")))?;
        bridge_sysctls(config)?;
    }
    if config.has_family(true) {
        sysctl::set("ipv4/ip_forward", "1")?;
    }
    if config.has_family(false) {
        sysctl::forward_ipv6()?;
    }
    Ok(bridge)
}

/// The bridge takes no router's word: a pod could pose as one (CVE-2020-10749).
fn bridge_sysctls(config: &Config) -> Result<(), CniError> {
    let bridge = &config.bridge;
    if config.has_family(false) {
        sysctl::set(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")?;
    }
    sysctl::clear(&format!("ipv6/conf/{bridge}/accept_ra"))?;
    sysctl::clear(&format!("ipv6/conf/{bridge}/accept_dad"))?;
    if config.has_family(true) {
        sysctl::set(&format!("ipv4/conf/{bridge}/forwarding"), "1")?;
    }
    Ok(())
}

/// Connects the pod: a veth pair from the bridge into `netns`, with the addresses and routes of `attachment`. A pair that an earlier
/// attempt left is replaced. Returns the hardware address of the pod's interface.
pub(super) fn connect(
    socket: &mut Socket,
    config: &Config,
    bridge: &Link,
    attachment: &Attachment,
    netns: BorrowedFd<'_>,
) -> Result<Mac, CniError> {
    let mac = config.runtime.mac.unwrap_or_else(|| pod_mac(attachment));
    let veth = Veth {
        host: &attachment.host_interface,
        bridge: bridge.index,
        peer: &attachment.interface,
        netns,
        peer_mac: mac,
        mtu: bridge.mtu,
    };
    let create = |socket: &mut Socket| {
        let mut messages = Messages::new();
        link::create_veth(&mut messages, &veth);
        socket.transact(messages)
    };
    let mut made = create(socket);
    if made.as_ref().is_err_and(|error| error.errno == Errno::EXIST) {
        link::delete(socket, veth.host).map_err(refused(format!("cannot replace {}", veth.host)))?;
        made = create(socket);
    }
    made.map_err(|error| match error.errno {
        Errno::EXIST => CniError::new(
            code::KERNEL,
            format!("the pod's network namespace has an interface {} already", attachment.interface),
        ),
        _ => refused(format!("cannot make the veth pair {} - {}", veth.host, attachment.interface))(error),
    })?;
    let mut messages = Messages::new();
    link::set_port_up(&mut messages, veth.host, config.hairpin);
    socket.transact(messages).map_err(refused(format!("cannot bring {} up", veth.host)))?;
    sys::namespace::in_network(netns, || Ok(inside(config, attachment)))
        .map_err(|error| CniError::new(code::KERNEL, format!("the pod's network namespace: {error}")))??;
    Ok(mac)
}

/// Runs on a thread that is in the pod's namespace.
fn inside(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let name = attachment.interface.as_str();
    let mut socket = route_socket()?;
    let interface =
        link::find(&mut socket, name)
            .map_err(refused(format!("interface {name} of the pod")))?
            .ok_or_else(|| CniError::new(code::TRY_AGAIN, format!("interface {name} of the pod vanished")))?;
    if config.has_family(false) {
        sysctl::set(&format!("ipv6/conf/{name}/disable_ipv6"), "0")?;
    }
    sysctl::clear(&format!("ipv6/conf/{name}/accept_ra"))?;
    let mut messages = Messages::new();
    link::set_up(&mut messages, link::LOOPBACK);
    link::set_up(&mut messages, interface.index);
    for address in &attachment.addresses {
        link::add_address(&mut messages, interface.index, *address);
    }
    for (destination, gateway) in routes(config) {
        link::add_route(&mut messages, interface.index, destination, gateway);
    }
    socket.transact(messages).map_err(refused(format!("cannot set up {name} inside the pod")))
}

/// The routes a pod gets: what the configuration lists, and everything by the gateway of each family.
pub(super) fn routes(config: &Config) -> Vec<(IpNet, Option<IpAddr>)> {
    let gateway_of = |v4: bool| config.subnets.iter().map(|s| s.gateway).find(|ip| ip.is_ipv4() == v4);
    let mut routes: Vec<(IpNet, Option<IpAddr>)> = config
        .routes
        .iter()
        .filter(|route| config.has_family(route.dst.addr().is_ipv4()))
        .map(|route| (route.dst.trunc(), route.gw.or_else(|| gateway_of(route.dst.addr().is_ipv4()))))
        .collect();
    for v4 in [true, false] {
        let listed = routes.iter().any(|(net, _)| net.prefix_len() == 0 && net.addr().is_ipv4() == v4);
        if let Some(gateway) = gateway_of(v4).filter(|_| !listed) {
            routes.push((everywhere(v4), Some(gateway)));
        }
    }
    routes
}

/// Whether the attachment is still in place.
pub(super) fn check(
    socket: &mut Socket,
    config: &Config,
    attachment: &Attachment,
    netns: BorrowedFd<'_>,
) -> Result<(), CniError> {
    let failed = |message: String| Err(CniError::new(code::CHECK_FAILED, message));
    let find = |socket: &mut Socket, name: &str| {
        link::find(socket, name).map_err(refused(format!("interface {name}")))
    };
    let Some(bridge) = find(socket, &config.bridge)?.filter(|bridge| bridge.up) else {
        return failed(format!("bridge {} is missing or down", config.bridge));
    };
    let host = &attachment.host_interface;
    if !find(socket, host)?.is_some_and(|link| link.up && link.master == Some(bridge.index)) {
        return failed(format!("{host} is missing, down or not a port of {}", config.bridge));
    }
    let name = &attachment.interface;
    let found = sys::namespace::in_network(netns, || {
        let mut socket = Socket::route()?;
        let Some(link) = link::find(&mut socket, name)?.filter(|link| link.up) else { return Ok(None) };
        let mut destinations = link::destinations(&mut socket, link.index, true)?;
        destinations.extend(link::destinations(&mut socket, link.index, false)?);
        Ok(Some((link::addresses(&mut socket, link.index)?, destinations)))
    })
    .map_err(|error| CniError::new(code::KERNEL, format!("the pod's network namespace: {error}")))?;
    let Some((addresses, destinations)) = found else {
        return failed(format!("{name} inside the pod is missing or down"));
    };
    if let Some(address) = attachment.addresses.iter().find(|address| !addresses.contains(address)) {
        return failed(format!("{name} inside the pod has lost the address {address}"));
    }
    match routes(config).into_iter().find(|(destination, _)| !destinations.contains(destination)) {
        Some((destination, _)) => failed(format!("the pod has lost its route to {destination} by {name}")),
        None => Ok(()),
    }
}

/// The gateway with the subnet's prefix length.
fn host_net(gateway: IpAddr, net: IpNet) -> IpNet {
    IpNet::new(gateway, net.prefix_len()).unwrap_or(net)
}

fn everywhere(v4: bool) -> IpNet {
    if v4 { IpNet::V4(ipnet::Ipv4Net::default()) } else { IpNet::V6(ipnet::Ipv6Net::default()) }
}

/// A pod's hardware address follows from its IP address, so that neighbours which remember an earlier pod with the same IP address
/// still reach the new one.
fn pod_mac(attachment: &Attachment) -> Mac {
    mac_of(attachment.addresses.first().map(|net| net.addr()))
}

fn bridge_mac(config: &Config) -> Mac {
    mac_of(config.subnets.first().map(|subnet| subnet.gateway))
}

/// Locally administered: 0a:58 and four bytes, IPv4's address or the end of IPv6's.
fn mac_of(ip: Option<IpAddr>) -> Mac {
    let tail = match ip {
        Some(IpAddr::V4(ip)) => ip.octets(),
        Some(IpAddr::V6(ip)) => {
            // All sixteen bytes count: pods of one subnet differ in the last ones, bridges in the first ones.
            let mut tail = [0; 4];
            for (at, byte) in ip.octets().into_iter().enumerate() {
                tail[at % 4] ^= byte;
            }
            tail
        }
        None => [0; 4],
    };
    [0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]]
}
