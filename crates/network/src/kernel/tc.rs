//! Queueing disciplines: a token bucket on an interface, and sending what comes in through another interface (tc(8), linux/pkt_sched.h).

use sys::netlink::{Messages, flag};

const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const ROOT: u32 = 0xffff_ffff;
const INGRESS: u32 = 0xffff_fff1;
const INGRESS_HANDLE: u32 = 0xffff_0000;

/// Lets `rate` bytes a second leave by the interface, and `burst` bytes at once. What is more waits in a queue of `queue` bytes.
pub(crate) fn token_bucket(messages: &mut Messages, index: u32, rate: u64, burst: u32, queue: u32) {
    const PARAMETERS: u16 = 1;
    const RATE64: u16 = 4;
    const BURST: u16 = 6;
    const ETHERNET: u8 = 1;
    // struct tc_tbf_qopt: two struct tc_ratespec, limit, buffer, mtu. The link layer spares us the kernel's old rate tables.
    let mut parameters = [0; 36];
    parameters[1] = ETHERNET;
    parameters[8..12].copy_from_slice(&u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    parameters[24..28].copy_from_slice(&queue.to_ne_bytes());
    messages
        .begin(NEW_QDISC, flag::CREATE | flag::REPLACE | flag::ACK)
        .fixed(&header(index, 0x1_0000, ROOT, 0))
        .text(KIND, "tbf")
        .nest(OPTIONS, |options| {
            options.attribute(PARAMETERS, &parameters).u32(BURST, burst);
            if rate > u64::from(u32::MAX) {
                options.u64(RATE64, rate);
            }
        });
}

/// Sends everything that comes in by interface `from` out through interface `to` before anything else sees it.
pub(crate) fn redirect(messages: &mut Messages, from: u32, to: u32) {
    const U32_SELECTOR: u16 = 5;
    const U32_ACTION: u16 = 7;
    const MIRRED_PARAMETERS: u16 = 2;
    const ALL_PROTOCOLS: u32 = 3;
    const PRIORITY: u32 = 1 << 16;
    messages
        .begin(NEW_QDISC, flag::CREATE | flag::REPLACE | flag::ACK)
        .fixed(&header(from, INGRESS_HANDLE, INGRESS, 0))
        .text(KIND, "ingress");
    // struct tc_u32_sel: terminal, with one key whose mask is zero, which every packet matches.
    let mut selector = [0; 32];
    selector[0] = 1;
    selector[2] = 1;
    // struct tc_mirred: index, capabilities, action (stolen), two counts, what to do (redirect on egress), interface.
    let mirred: [u32; 7] = [0, 0, 4, 0, 0, 1, to];
    let mirred: Vec<u8> = mirred.into_iter().flat_map(u32::to_ne_bytes).collect();
    let protocol = u32::from((ALL_PROTOCOLS as u16).to_be());
    messages
        .begin(NEW_FILTER, flag::CREATE | flag::EXCL | flag::ACK)
        .fixed(&header(from, 0, INGRESS_HANDLE, PRIORITY | protocol))
        .text(KIND, "u32")
        .nest(OPTIONS, |options| {
            options.attribute(U32_SELECTOR, &selector).nest(U32_ACTION, |actions| {
                actions.nest(1, |action| {
                    action.text(KIND, "mirred").nest(OPTIONS, |options| {
                        options.attribute(MIRRED_PARAMETERS, &mirred);
                    });
                });
            });
        });
}

/// `struct tcmsg`.
fn header(index: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (at, word) in [index, handle, parent, info].into_iter().enumerate() {
        header[4 + 4 * at..8 + 4 * at].copy_from_slice(&word.to_ne_bytes());
    }
    header
}
