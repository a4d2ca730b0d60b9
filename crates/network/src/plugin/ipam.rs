//! Which addresses an attachment gets: one of each subnet, round-robin, the same again when asked again.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::config::{Config, Subnet};
use super::state::{Attachment, State};
use crate::cni::error::{CniError, code};

/// After so many taken addresses in a row the folder is read once instead of asking for each.
const PROBES: u128 = 64;

/// Gives `attachment` an address of each subnet and writes it down. It keeps what an earlier call gave it.
///
/// # Errors
/// [`code::NO_ADDRESS_LEFT`] names the subnet that is full; a requested address that is taken or in no subnet is an error too.
pub(crate) fn allocate(
    state: &mut State,
    config: &Config,
    mut attachment: Attachment,
) -> Result<Attachment, CniError> {
    let owner = attachment.owner();
    if let Some(stray) =
        config.runtime.ips.iter().find(|ip| !config.subnets.iter().any(|s| s.net.contains(*ip)))
    {
        return Err(CniError::new(
            code::BAD_CONFIGURATION,
            format!("requested address {stray} is in no subnet of network {}", config.name),
        ));
    }
    let mut last = state.last_given();
    let mut given = Vec::new();
    for subnet in &config.subnets {
        let requested = config.runtime.ips.iter().copied().find(|ip| subnet.net.contains(ip));
        let kept = attachment
            .addresses
            .iter()
            .map(|net| net.addr())
            .find(|ip| subnet.net.contains(ip) && state.owner_of(*ip).is_none_or(|of| of == owner));
        let ip = match (requested, kept) {
            (Some(ip), _) => requested_address(state, subnet, ip, &owner)?,
            (None, Some(ip)) => ip,
            (None, None) => {
                let before = last.iter().copied().find(|ip| subnet.net.contains(ip));
                let ip = next_free(state, subnet, before).ok_or_else(|| full(config, subnet))?;
                last.retain(|old| !subnet.net.contains(old));
                last.push(ip);
                ip
            }
        };
        given.extend(IpNet::new(ip, subnet.net.prefix_len()));
    }
    let former = std::mem::replace(&mut attachment.addresses, given);
    // Written first: whoever finds an address taken finds its owner's file too.
    state.write(&attachment)?;
    for address in &attachment.addresses {
        if !state.take(address.addr(), &owner)? {
            return Err(CniError::new(code::IO, format!("address {} was taken meanwhile", address.addr())));
        }
    }
    for address in former.iter().filter(|net| !attachment.has(net.addr())) {
        state.release(address.addr(), &owner)?;
    }
    last.retain(|ip| config.subnets.iter().any(|subnet| subnet.net.contains(ip)));
    state.set_last_given(&last)?;
    Ok(attachment)
}

fn full(config: &Config, subnet: &Subnet) -> CniError {
    CniError::new(
        code::NO_ADDRESS_LEFT,
        format!(
            "no address is left in subnet {} of network {}; give it a larger one",
            subnet.net, config.name
        ),
    )
}

fn requested_address(state: &State, subnet: &Subnet, ip: IpAddr, owner: &str) -> Result<IpAddr, CniError> {
    let (first, last) = usable(subnet.net);
    let refuse = |why: String| {
        Err(CniError::new(code::NO_ADDRESS_LEFT, format!("requested address {ip} cannot be given: {why}")))
    };
    if ip == subnet.gateway || !(first..=last).contains(&number(ip)) {
        return refuse(format!("it is reserved in subnet {}", subnet.net));
    }
    match state.owner_of(ip) {
        Some(other) if other != owner => refuse(format!("{other} has it")),
        _ => Ok(ip),
    }
}

/// The first free address after `last`, going round once.
fn next_free(state: &State, subnet: &Subnet, last: Option<IpAddr>) -> Option<IpAddr> {
    let (low, high) = usable(subnet.net);
    let start = match last.map(number) {
        Some(last) if (low..high).contains(&last) => last + 1,
        _ => low,
    };
    let candidate = |number| Some(address(subnet.net, number)).filter(|ip| *ip != subnet.gateway);
    // An IPv6 subnet cannot be walked to its end; the addresses taken in it are bounded by what has been given.
    let around = (start..=high).chain(low..start);
    for number in around.clone().take(PROBES as usize) {
        if let Some(ip) = candidate(number)
            && state.owner_of(ip).is_none()
        {
            return Some(ip);
        }
    }
    let taken: HashSet<IpAddr> = state.owners().into_iter().map(|(ip, _)| ip).collect();
    around.take(taken.len() + 2).find_map(|number| candidate(number).filter(|ip| !taken.contains(ip)))
}

/// The address right after the network's own.
pub(crate) fn first_address(net: IpNet) -> IpAddr {
    address(net, number(net.network()).saturating_add(1))
}

/// The first and the last address that pods may have: not the network's own, not IPv4's broadcast address.
fn usable(net: IpNet) -> (u128, u128) {
    let (low, high) = (number(net.network()) + 1, number(net.broadcast()));
    (low, if net.addr().is_ipv4() { high - 1 } else { high })
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(net: IpNet, number: u128) -> IpAddr {
    match net {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

#[cfg(test)]
mod tests;
