//! Connection tracking by ctnetlink: forgetting UDP flows that were set up before a host port changed hands.
//!
//! A flow keeps the translation it began with. TCP ends by itself when its peer is gone; a UDP client that goes on sending keeps an
//! old flow alive and would never reach the new pod.

use std::collections::HashSet;
use std::net::IpAddr;

use rustix::io::Errno;
use sys::netlink::{Messages, Refused, Socket, attributes, flag};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const UDP: u8 = 17;

/// Forgets the UDP flows to one of `ports` of one of this host's addresses (`local`) that are not answered from `keep`.
pub(crate) fn forget_udp(
    socket: &mut Socket,
    ports: &HashSet<u16>,
    local: &HashSet<IpAddr>,
    keep: &[IpAddr],
) -> Result<(), Refused> {
    let mut request = Messages::new();
    request.begin(SUBSYSTEM << 8 | GET, flag::DUMP).fixed(&[0; 4]);
    let mut stale: Vec<(u8, Vec<u8>)> = Vec::new();
    socket.query(request, |kind, payload| {
        if kind != SUBSYSTEM << 8 | NEW || payload.len() < 4 {
            return;
        }
        let tuple = |wanted| attributes(&payload[4..]).find(|(kind, _)| *kind == wanted).map(|(_, t)| t);
        let (Some(original), Some(reply)) = (tuple(TUPLE_ORIGINAL), tuple(TUPLE_REPLY)) else { return };
        let Some((_, to, UDP, port)) = ends(original) else { return };
        let Some((from, ..)) = ends(reply) else { return };
        if ports.contains(&port) && local.contains(&to) && !keep.contains(&from) {
            stale.push((payload[0], original.to_vec()));
        }
    })?;
    for (family, original) in stale {
        let mut request = Messages::new();
        request.begin(SUBSYSTEM << 8 | DELETE, flag::ACK).fixed(&[family, 0, 0, 0]).nest(
            TUPLE_ORIGINAL,
            |tuple| {
                tuple.fixed(&original);
            },
        );
        match socket.transact(request) {
            // It ended meanwhile.
            Err(refused) if refused.errno == Errno::NOENT => {}
            done => done?,
        }
    }
    Ok(())
}

/// Source, destination, protocol and destination port of a tuple.
fn ends(tuple: &[u8]) -> Option<(IpAddr, IpAddr, u8, u16)> {
    let part = |wanted| attributes(tuple).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let (mut source, mut destination) = (None, None);
    for (kind, value) in attributes(part(TUPLE_IP)?) {
        // CTA_IP_V4_SRC, _DST, CTA_IP_V6_SRC, _DST.
        let ip = <[u8; 4]>::try_from(value)
            .map(IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
            .ok();
        match kind {
            1 | 3 => source = ip,
            2 | 4 => destination = ip,
            _ => {}
        }
    }
    let protocol = part(TUPLE_PROTOCOL)?;
    let field = |wanted| attributes(protocol).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let number = *field(1)?.first()?;
    let port = u16::from_be_bytes(field(3)?.get(..2)?.try_into().ok()?);
    Some((source?, destination?, number, port))
}
