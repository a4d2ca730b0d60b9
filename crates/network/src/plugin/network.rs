//! The plugin's commands: what each does, in which order.

use std::path::Path;

use serde_json::Value;
use sys::netlink::Socket;

use super::config::Config;
use super::state::{Attachment, State, owner};
use super::wire::{self, refused, route_socket};
use super::{Request, ipam, limits, rules};
use crate::cni::config::is_plain_name;
use crate::cni::error::{CniError, code};
use crate::cni::result::{AddResult, Interface, Ip, Route};
use crate::kernel::link::{self, Link, Mac};
use crate::kernel::nft;

/// ADD: addresses, bridge, cable. Again for the same attachment it gives the same addresses.
pub(super) fn add(request: &Request<'_>, config: &Config) -> Result<Value, CniError> {
    check_names(request)?;
    let netns = request
        .netns
        .ok_or_else(|| CniError::new(code::BAD_ENVIRONMENT, "ADD needs a network namespace (CNI_NETNS)"))?;
    if config.previous.is_some() {
        let message = format!("plugin {} must be the first of network {}", super::TYPE, config.name);
        return Err(CniError::new(code::BAD_CONFIGURATION, message));
    }
    if config.subnets.is_empty() {
        return Err(no_subnets(config));
    }
    let mut socket = route_socket()?;
    let mut state = State::lock(&config.state_dir, &config.name)?;
    let of = owner(request.container_id, request.interface);
    let host_interface = host_interface(config, &of);
    let fresh = || Attachment::new(request.container_id, request.interface, host_interface);
    let former = state.attachment(&of)?;
    let mut attachment = former.clone().unwrap_or_else(fresh);
    attachment.ports = config.runtime.ports.clone();
    attachment.shaper = limits::shaper(config, &attachment);
    if let Some(conflict) = rules::conflict(&state, &attachment) {
        return Err(conflict);
    }
    let attachment = ipam::allocate(&mut state, config, attachment)?;
    let bridge = wire::ensure_bridge(&mut socket, config)?;
    // What an earlier attempt opened for this pod may differ from what it gets now.
    let has = |attachment: &Attachment| (attachment.ports.clone(), attachment.addresses.clone());
    let anew = former.as_ref().is_some_and(|former| has(former) != has(&attachment));
    rules::with_socket(|nft| {
        rules::ensure(nft, config, &state, anew)?;
        rules::publish(nft, config, &state, &attachment)
    })?;
    drop(state);
    if let Some(shaper) = former.and_then(|former| former.shaper) {
        limits::remove(&mut socket, &shaper)?;
    }
    let mac = wire::connect(&mut socket, config, &bridge, &attachment, netns)?;
    limits::apply(&mut socket, config, &attachment)?;
    Ok(result(request, config, &bridge, &attachment, mac))
}

/// DEL: lets go of everything the attachment has. Succeeds where nothing is left.
pub(super) fn delete(request: &Request<'_>, config: &Config) -> Result<(), CniError> {
    check_names(request)?;
    let of = owner(request.container_id, request.interface);
    let mut host = host_interface(config, &of);
    if let Some(state) = State::lock_existing(&config.state_dir, &config.name)? {
        if let Ok(Some(attachment)) = state.attachment(&of) {
            rules::with_socket(|nft| rules::withdraw(nft, config, &attachment))?;
            if let Some(shaper) = &attachment.shaper {
                limits::remove(&mut route_socket()?, shaper)?;
            }
            host = attachment.host_interface;
        }
        state.remove(&of)?;
    }
    // A namespace that is going takes its interfaces along; waiting for that would cost many milliseconds.
    if request.netns.is_some() {
        let mut socket = route_socket()?;
        link::delete(&mut socket, &host).map_err(refused(format!("cannot delete {host}")))?;
    }
    Ok(())
}

/// CHECK: the attachment is as ADD left it.
pub(super) fn check(request: &Request<'_>, config: &Config) -> Result<(), CniError> {
    check_names(request)?;
    let netns = request
        .netns
        .ok_or_else(|| CniError::new(code::BAD_ENVIRONMENT, "CHECK needs a network namespace (CNI_NETNS)"))?;
    let of = owner(request.container_id, request.interface);
    let state = State::lock_existing(&config.state_dir, &config.name)?;
    let attachment = match &state {
        Some(state) => state.attachment(&of)?,
        None => None,
    };
    let unknown =
        || CniError::new(code::UNKNOWN_CONTAINER, format!("network {} has no attachment {of}", config.name));
    let attachment = attachment.ok_or_else(unknown)?;
    drop(state);
    if !rules::with_socket(|nft| rules::in_place(nft, config))? {
        let message = format!("the nftables table {} is missing or changed", rules::table(config));
        return Err(CniError::new(code::CHECK_FAILED, message));
    }
    let mut socket = route_socket()?;
    wire::check(&mut socket, config, &attachment, netns)
}

/// STATUS: whether ADD can work. Where pods are attached, rules that somebody flushed are made again: the node asks every few seconds.
pub(super) fn status(config: &Config) -> Result<(), CniError> {
    if config.subnets.is_empty() {
        return Err(no_subnets(config));
    }
    match State::lock_existing(&config.state_dir, &config.name)? {
        Some(state) if state.has_attachments() => {
            wire::ensure_bridge(&mut route_socket()?, config)?;
            rules::with_socket(|nft| rules::ensure(nft, config, &state, false))
        }
        _ => Ok(()),
    }
}

/// GC: lets go of what belongs to none of the valid attachments.
pub(super) fn collect(config: &Config) -> Result<(), CniError> {
    let valid = config.valid.as_ref().ok_or_else(|| {
        CniError::new(code::BAD_CONFIGURATION, "GC needs the list \"cni.dev/valid-attachments\"")
    })?;
    let Some(state) = State::lock_existing(&config.state_dir, &config.name)? else { return Ok(()) };
    let valid: Vec<String> = valid.iter().map(|(id, interface)| owner(id, interface)).collect();
    let stale: Vec<Attachment> =
        state.attachments().into_iter().filter(|a| !valid.contains(&a.owner())).collect();
    for attachment in &stale {
        rules::with_socket(|nft| rules::withdraw(nft, config, attachment))?;
        state.remove(&attachment.owner())?;
    }
    for (ip, of) in state.owners().into_iter().filter(|(_, of)| !valid.contains(of)) {
        state.release(ip, &of)?;
    }
    drop(state);
    let mut socket = route_socket()?;
    for attachment in &stale {
        delete_interfaces(&mut socket, attachment)?;
    }
    Ok(())
}

/// Removes a network's bridge, rules and state. Pods that are still attached lose it. A network without state is fine.
pub(crate) fn remove_network(state_dir: &Path, name: &str) -> Result<(), CniError> {
    if !is_plain_name(name) {
        return Err(CniError::new(code::BAD_CONFIGURATION, format!("{name:?} is not the name of a network")));
    }
    let Some(state) = State::lock_existing(state_dir, name)? else { return Ok(()) };
    let mut socket = route_socket()?;
    for attachment in state.attachments() {
        delete_interfaces(&mut socket, &attachment)?;
    }
    if let Some((bridge, table)) = state.description() {
        rules::with_socket(|nft| {
            nft::delete_table(nft, &table).map_err(refused(format!("cannot delete {table}")))
        })?;
        link::delete(&mut socket, &bridge).map_err(refused(format!("cannot delete bridge {bridge}")))?;
    }
    state.destroy()
}

fn delete_interfaces(socket: &mut Socket, attachment: &Attachment) -> Result<(), CniError> {
    let host = &attachment.host_interface;
    if let Some(shaper) = &attachment.shaper {
        limits::remove(socket, shaper)?;
    }
    link::delete(socket, host).map_err(refused(format!("cannot delete {host}")))
}

fn no_subnets(config: &Config) -> CniError {
    let message = format!("network {} has no \"subnets\"; list some, such as \"10.88.0.0/16\"", config.name);
    CniError::new(code::BAD_CONFIGURATION, message)
}

/// Both become file names and the interface's name.
fn check_names(request: &Request<'_>) -> Result<(), CniError> {
    let bad = |what: &str, value: &str| {
        Err(CniError::new(code::BAD_ENVIRONMENT, format!("{what} {value:?} is not a valid name")))
    };
    if !is_plain_name(request.container_id) {
        return bad("container id", request.container_id);
    }
    let interface = request.interface;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if matches!(interface, "" | "." | ".." | "lo") || interface.len() > 15 || interface.contains(odd) {
        return bad("interface", interface);
    }
    Ok(())
}

/// The host's end of the pair: always the same for an attachment, so that a second attempt finds what the first one left.
fn host_interface(config: &Config, owner: &str) -> String {
    let hash = super::hash(config.name.bytes().chain([0]).chain(owner.bytes()));
    format!("veth{:011x}", hash & 0xfff_ffff_ffff)
}

fn result(request: &Request<'_>, config: &Config, bridge: &Link, attachment: &Attachment, mac: Mac) -> Value {
    let interface = |name: &str, mac: Option<Mac>, sandbox: &str| Interface {
        name: name.into(),
        mac: mac.map(link::mac_text).unwrap_or_default(),
        sandbox: sandbox.into(),
        ..Interface::default()
    };
    let gateway_of = |address| config.subnets.iter().find(|s| s.net.contains(address)).map(|s| s.gateway);
    let routes = wire::routes(config);
    let result = AddResult {
        interfaces: vec![
            interface(&config.bridge, bridge.mac, ""),
            interface(&attachment.host_interface, None, ""),
            interface(&attachment.interface, Some(mac), request.netns_path),
        ],
        ips: attachment
            .addresses
            .iter()
            .map(|address| Ip { address: *address, gateway: gateway_of(address), interface: Some(2) })
            .collect(),
        routes: routes.into_iter().map(|(dst, gw)| Route { dst, gw, other: Default::default() }).collect(),
        dns: config.runtime.dns.clone().unwrap_or_else(|| config.dns.clone()),
    };
    result.to_json(config.version)
}
