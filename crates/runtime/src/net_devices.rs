//! Network devices that are moved from the host's network namespace into the container's (runtime-spec, `linux.netDevices`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd};

use oci_spec::runtime::LinuxNetDevice;
use sys::netlink::{Messages, Refused, Socket, attributes, flag};

use crate::error::{At, Failure, Stage};

// rtnetlink(7), linux/rtnetlink.h and linux/if_link.h.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE: u16 = 28;
const ADDRESS_FLAGS: u16 = 8;
const ADDRESS_CACHE: u16 = 6;
const PERMANENT: u32 = 0x80;
const UP: u32 = 1;
const LONGEST_NAME: usize = 15;

/// One address of a device, as the kernel tells of it: the header without the index, and the attributes.
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Moves the devices into the namespace `container`, with their permanent addresses of global scope, and sets them up.
///
/// # Errors
/// The first that cannot be moved, by its field. Those moved before go with the namespace.
pub(crate) fn move_all(
    devices: &HashMap<String, LinuxNetDevice>,
    container: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let mut host = Socket::route().at(Stage::Network, || "linux.netDevices")?;
    let mut inside = Socket::route_in(container).at(Stage::Network, || "linux.netDevices")?;
    let ordered: BTreeMap<_, _> = devices.iter().collect();
    for (name, device) in ordered {
        let new_name = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        move_one(&mut host, &mut inside, container, name, new_name)?;
    }
    Ok(())
}

/// Refuses names that the kernel would not take, before anything is made.
pub(crate) fn check(devices: &HashMap<String, LinuxNetDevice>) -> Result<(), Failure> {
    let mut taken = BTreeSet::new();
    for (name, device) in devices {
        let new_name = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        for (field, name) in [("linux.netDevices", name.as_str()), ("linux.netDevices.name", new_name)] {
            let odd = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0;
            if name.is_empty()
                || name.len() > LONGEST_NAME
                || name == "."
                || name == ".."
                || name.bytes().any(odd)
            {
                let cause = format!(
                    "{name:?} is no name of a network device (1 to {LONGEST_NAME} bytes without '/', ':' and spaces)"
                );
                return Err(Failure::new(Stage::Configuration, field, cause));
            }
        }
        if !new_name.contains("%d") && !taken.insert(new_name) {
            let cause = format!("two devices would be called {new_name:?}");
            return Err(Failure::new(Stage::Configuration, "linux.netDevices.name", cause));
        }
    }
    Ok(())
}

fn move_one(
    host: &mut Socket,
    inside: &mut Socket,
    container: BorrowedFd<'_>,
    name: &str,
    new_name: &str,
) -> Result<(), Failure> {
    let field = format!("linux.netDevices.{name}");
    let fail = |refused: Refused| Failure {
        errno: Some(refused.errno.raw_os_error()),
        ..Failure::new(Stage::Network, field.clone(), refused)
    };
    let index =
        links(host).map_err(fail)?.get(name).copied().ok_or_else(|| {
            Failure::new(Stage::Network, field.clone(), "the host has no such network device")
        })?;
    let kept = addresses(host, index).map_err(fail)?;
    let before = links(inside).map_err(fail)?;
    if before.contains_key(new_name) {
        let cause = format!("the container has a network device {new_name:?} already");
        return Err(Failure::new(Stage::Network, field, cause).remedy("choose another name"));
    }
    let mut messages = Messages::new();
    messages.begin(NEW_LINK, flag::ACK).fixed(&link(index, 0));
    messages.descriptor(LINK_NAMESPACE, container).text(LINK_NAME, new_name);
    host.transact(messages).map_err(fail)?;
    // It may have got another number, and with a template another name: it is the one that was not there.
    let known: BTreeSet<u32> = before.values().copied().collect();
    let index =
        links(inside).map_err(fail)?.into_values().find(|index| !known.contains(index)).ok_or_else(|| {
            Failure::new(
                Stage::Network,
                field.clone(),
                "it did not arrive in the container's network namespace",
            )
        })?;
    let mut messages = Messages::new();
    for address in &kept {
        messages.begin(NEW_ADDRESS, flag::ACK | flag::CREATE | flag::EXCL);
        let [a, b, c, d] = index.to_ne_bytes();
        messages.fixed(&[address.family, address.prefix, 0, 0, a, b, c, d]);
        for (kind, value) in &address.attributes {
            messages.attribute(*kind, value);
        }
    }
    messages.begin(NEW_LINK, flag::ACK).fixed(&link(index, UP));
    inside.transact(messages).map_err(fail)
}

/// `struct ifinfomsg`, with the flags to set.
fn link(index: u32, up: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&up.to_ne_bytes());
    bytes[12..16].copy_from_slice(&up.to_ne_bytes());
    bytes
}

fn links(socket: &mut Socket) -> Result<BTreeMap<String, u32>, Refused> {
    let mut found = BTreeMap::new();
    let mut messages = Messages::new();
    messages.begin(GET_LINK, flag::DUMP).fixed(&[0; 16]);
    socket.query(messages, |_, payload| {
        let index = payload.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        let name = attributes(payload.get(16..).unwrap_or_default())
            .find(|(kind, _)| *kind == LINK_NAME)
            .map(|(_, name)| String::from_utf8_lossy(name).trim_end_matches('\0').to_string());
        if let (Some(index), Some(name)) = (index, name) {
            found.insert(name, index);
        }
    })?;
    Ok(found)
}

/// The permanent addresses of global scope.
fn addresses(socket: &mut Socket, index: u32) -> Result<Vec<Address>, Refused> {
    let mut found = Vec::new();
    let mut messages = Messages::new();
    messages.begin(GET_ADDRESS, flag::DUMP).fixed(&[0; 8]);
    socket.query(messages, |_, payload| {
        let Some((header, rest)) = payload.split_first_chunk::<8>() else { return };
        let [family, prefix, flags, scope, number @ ..] = *header;
        let all: Vec<_> = attributes(rest).collect();
        let flags = all
            .iter()
            .find(|(kind, _)| *kind == ADDRESS_FLAGS)
            .and_then(|(_, value)| Some(u32::from_ne_bytes((*value).try_into().ok()?)))
            .unwrap_or(flags.into());
        if u32::from_ne_bytes(number) != index || scope != 0 || flags & PERMANENT == 0 {
            return;
        }
        let attributes = all
            .into_iter()
            .filter(|(kind, _)| ![ADDRESS_FLAGS, ADDRESS_CACHE].contains(kind))
            .map(|(kind, value)| {
                // IPv4's label holds the old name of the device.
                (kind, value.to_vec())
            });
        const LABEL: u16 = 3;
        found.push(Address {
            family,
            prefix,
            attributes: attributes.filter(|(kind, _)| *kind != LABEL).collect(),
        });
    })?;
    Ok(found)
}

/// The network namespace of the process `pid`.
pub(crate) fn namespace_of(pid: i32) -> Result<std::os::fd::OwnedFd, Failure> {
    let path = format!("/proc/{pid}/ns/net");
    Ok(std::fs::File::open(&path).at(Stage::Network, || path.clone())?.into())
}

/// What to move where; nothing without devices.
pub(crate) fn apply(
    linux: &oci_spec::runtime::Linux,
    namespaces: &crate::namespaces::Namespaces,
    pid: i32,
) -> Result<(), Failure> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
        return Ok(());
    };
    if !namespaces.has(sys::namespace::kind::NETWORK) {
        let cause = "needs a network namespace of the container's own";
        return Err(Failure::new(Stage::Network, "linux.netDevices", cause));
    }
    match namespaces.joined(sys::namespace::kind::NETWORK) {
        Some(joined) => move_all(devices, joined.as_fd()),
        None => move_all(devices, namespace_of(pid)?.as_fd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        let of = |name: &str, new: &str| {
            let device = serde_json::from_value(serde_json::json!({"name": new})).unwrap();
            HashMap::from([(name.to_string(), device)])
        };
        for (name, new) in [("eth0", ""), ("eth0", "net%d"), ("a", "fifteen-bytes-l")] {
            check(&of(name, new)).unwrap();
        }
        for (name, new) in [
            ("", ""),
            ("a/b", ""),
            ("eth0", "sixteen-bytes-lo"),
            ("eth0", ".."),
            ("eth0", "a b"),
            ("a:1", ""),
        ] {
            assert!(check(&of(name, new)).is_err(), "{name:?} {new:?}");
        }
        let device = || serde_json::from_value(serde_json::json!({"name": "same"})).unwrap();
        let two = HashMap::from([("a".to_string(), device()), ("b".to_string(), device())]);
        assert!(check(&two).unwrap_err().to_string().contains("two devices"));
    }
}
