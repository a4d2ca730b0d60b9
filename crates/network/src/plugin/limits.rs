//! A pod's limits: a token bucket on the host's end of the cable for what the pod receives, and one on an `ifb` interface for what it
//! sends. Both are outside the pod, where no container can lift them.

use rustix::io::Errno;
use sys::netlink::{Messages, Socket};

use super::config::Config;
use super::state::Attachment;
use super::wire::refused;
use crate::cni::error::{CniError, code};
use crate::kernel::{link, tc};

/// A packet that is larger than the burst could never leave.
const MIN_BURST_BYTES: u64 = 16 * 1024;
/// How long a packet may wait in the queue.
const QUEUE_MILLIS: u64 = 50;
const MIN_QUEUE_BYTES: u64 = 128 * 1024;

/// The name of the interface that shapes what the pod sends; `None` where that has no limit.
pub(super) fn shaper(config: &Config, attachment: &Attachment) -> Option<String> {
    let tail = attachment.host_interface.strip_prefix("veth")?;
    (config.runtime.bandwidth.egress_rate > 0).then(|| format!("ifb{tail}"))
}

/// Sets the limits that the configuration asks for; the cable is there already.
pub(super) fn apply(socket: &mut Socket, config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let limits = config.runtime.bandwidth;
    if limits.ingress_rate == 0 && limits.egress_rate == 0 {
        return Ok(());
    }
    let host = &attachment.host_interface;
    let cable = find(socket, host)?;
    if limits.ingress_rate > 0 {
        let mut messages = Messages::new();
        bucket(&mut messages, cable, limits.ingress_rate, limits.ingress_burst);
        socket
            .transact(messages)
            .map_err(refused(format!("cannot limit {host} (the kernel needs sch_tbf)")))?;
    }
    let Some(name) = &attachment.shaper else { return Ok(()) };
    let mut messages = Messages::new();
    link::create_plain(&mut messages, name, "ifb");
    match socket.transact(messages) {
        Err(error) if error.errno != Errno::EXIST => {
            let what =
                format!("cannot make {name} for an egress limit (the kernel needs ifb: `modprobe ifb`)");
            return Err(refused(what)(error));
        }
        _ => {}
    }
    let index = find(socket, name)?;
    let mut messages = Messages::new();
    link::set_up(&mut messages, index);
    bucket(&mut messages, index, limits.egress_rate, limits.egress_burst);
    tc::redirect(&mut messages, cable, index);
    let what = format!("cannot limit {name} (the kernel needs sch_tbf, sch_ingress, cls_u32 and act_mirred)");
    socket.transact(messages).map_err(refused(what))
}

/// Removes the interface that shaped what a pod sent; the rest goes with the cable.
pub(super) fn remove(socket: &mut Socket, shaper: &str) -> Result<(), CniError> {
    link::delete(socket, shaper).map_err(refused(format!("cannot delete {shaper}")))
}

/// Rates and bursts come in bits.
fn bucket(messages: &mut Messages, index: u32, rate: u64, burst: u64) {
    let bytes = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let rate = (rate / 8).max(1);
    let queue = (rate.saturating_mul(QUEUE_MILLIS) / 1000).max(MIN_QUEUE_BYTES);
    tc::token_bucket(messages, index, rate, bytes((burst / 8).max(MIN_BURST_BYTES)), bytes(queue));
}

fn find(socket: &mut Socket, name: &str) -> Result<u32, CniError> {
    let found = link::find(socket, name).map_err(refused(format!("interface {name}")))?;
    found
        .map(|link| link.index)
        .ok_or_else(|| CniError::new(code::TRY_AGAIN, format!("interface {name} vanished")))
}
