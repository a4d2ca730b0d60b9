//! nftables by nfnetlink: a batch that is taken whole or not at all, and the few expressions that our rules are made of.
//!
//! Numbers are those of linux/netfilter/nf_tables.h; nfnetlink's are in network byte order.

use rustix::io::Errno;
use sys::netlink::{Messages, Refused, Socket, flag};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;

const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// `NFPROTO_*`.
pub(crate) const INET: u8 = 1;
pub(crate) const IPV4: u8 = 2;
pub(crate) const IPV6: u8 = 10;

/// Four-byte registers (`NFT_REG32_00` on), which concatenated keys are loaded into side by side.
const REGISTER: u32 = 8;
const VERDICT_REGISTER: u32 = 0;

/// Types as `nft` prints them; a concatenation has six bits for each.
pub(crate) mod kind {
    pub(crate) const IPV4: u32 = 7;
    pub(crate) const IPV6: u32 = 8;
    pub(crate) const PROTOCOL: u32 = 12;
    pub(crate) const SERVICE: u32 = 13;

    pub(crate) fn concatenated(kinds: &[u32]) -> u32 {
        kinds.iter().fold(0, |all, kind| (all << 6) | kind)
    }
}

/// Where a base chain hooks in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    /// `NF_INET_*`.
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

pub(crate) const PREROUTING: u32 = 0;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;

/// A map from concatenated keys to concatenated values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: (u32, u32),
    pub(crate) value: (u32, u32),
}

/// One entry of a map, in the bytes of its registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) map: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Changes to one table of the family `inet`, made together.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    table: &'a str,
    messages: Messages,
    sets: u32,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(table: &'a str) -> Batch<'a> {
        let mut messages = Messages::new();
        messages.begin(BATCH_BEGIN, 0).fixed(&generic(0, SUBSYSTEM));
        Batch { table, messages, sets: 0 }
    }

    /// Sends the batch.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> Result<(), Refused> {
        self.messages.begin(BATCH_END, 0).fixed(&generic(0, SUBSYSTEM));
        socket.transact(self.messages)
    }

    fn begin(&mut self, kind: u16, flags: u16) -> &mut Messages {
        self.messages.begin(SUBSYSTEM << 8 | kind, flags | flag::ACK).fixed(&generic(INET, 0))
    }

    /// Makes the table; one that is there already stays.
    pub(crate) fn table(&mut self) {
        let table = self.table;
        self.begin(NEW_TABLE, flag::CREATE).text(1, table);
    }

    /// Deletes the table with all in it; it must be there.
    pub(crate) fn delete_table(&mut self) {
        let table = self.table;
        self.begin(DELETE_TABLE, 0).text(1, table);
    }

    /// A chain; without a hook only jumps lead to it.
    pub(crate) fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let table = self.table;
        let message = self.begin(NEW_CHAIN, flag::CREATE).text(1, table).text(3, name);
        if let Some(hook) = hook {
            message.text(7, hook.kind).nest(4, |nested| {
                nested.be32(1, hook.number).be32(2, hook.priority as u32);
            });
        }
    }

    pub(crate) fn map(&mut self, map: &Map<'_>) {
        const IS_MAP: u32 = 0x8;
        self.sets += 1;
        let (table, id) = (self.table, self.sets);
        self.begin(NEW_SET, flag::CREATE)
            .text(1, table)
            .text(2, map.name)
            .be32(3, IS_MAP)
            .be32(4, map.key.0)
            .be32(5, map.key.1)
            .be32(6, map.value.0)
            .be32(7, map.value.1)
            .be32(10, id);
    }

    /// Appends a rule to `chain`.
    pub(crate) fn rule(&mut self, chain: &str, fill: impl FnOnce(&mut Rule<'_>)) {
        let table = self.table;
        self.begin(NEW_RULE, flag::CREATE | flag::APPEND).text(1, table).text(2, chain).nest(4, |list| {
            fill(&mut Rule { list });
        });
    }

    /// Adds elements; one that is there with the same value stays, one with another value refuses the batch (`EEXIST`).
    pub(crate) fn add_elements(&mut self, elements: &[Element]) {
        self.elements(NEW_ELEMENT, flag::CREATE, elements);
    }

    /// Removes elements; a missing one refuses the batch (`ENOENT`).
    pub(crate) fn delete_elements(&mut self, elements: &[Element]) {
        self.elements(DELETE_ELEMENT, 0, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, elements: &[Element]) {
        let table = self.table;
        for element in elements {
            self.begin(kind, flags).text(1, table).text(2, element.map).nest(3, |list| {
                list.nest(LIST_ELEMENT, |entry| {
                    entry.nest(1, |key| {
                        key.attribute(DATA_VALUE, &element.key);
                    });
                    if kind == NEW_ELEMENT {
                        entry.nest(2, |value| {
                            value.attribute(DATA_VALUE, &element.value);
                        });
                    }
                });
            });
        }
    }
}

/// Whether the table has a chain of that name.
pub(crate) fn has_chain(socket: &mut Socket, table: &str, chain: &str) -> Result<bool, Refused> {
    let mut messages = Messages::new();
    messages
        .begin(SUBSYSTEM << 8 | GET_CHAIN, flag::ACK)
        .fixed(&generic(INET, 0))
        .text(1, table)
        .text(3, chain);
    match socket.query(messages, |_, _| {}) {
        Ok(()) => Ok(true),
        Err(refused) if refused.errno == Errno::NOENT => Ok(false),
        Err(refused) => Err(refused),
    }
}

/// Deletes a table; a missing one is fine.
pub(crate) fn delete_table(socket: &mut Socket, table: &str) -> Result<(), Refused> {
    let mut batch = Batch::new(table);
    batch.delete_table();
    match batch.commit(socket) {
        Err(refused) if refused.errno == Errno::NOENT => Ok(()),
        done => done,
    }
}

/// `struct nfgenmsg`.
fn generic(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The expressions of a rule, evaluated in order; the first comparison that fails ends the rule.
pub(crate) struct Rule<'m> {
    list: &'m mut Messages,
}

impl Rule<'_> {
    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Messages)) -> &mut Self {
        self.list.nest(LIST_ELEMENT, |entry| {
            entry.text(1, name).nest(2, fill);
        });
        self
    }

    fn compare(&mut self, equal: bool, value: &[u8]) -> &mut Self {
        self.expression("cmp", |cmp| {
            cmp.be32(1, REGISTER).be32(2, u32::from(!equal)).nest(3, |data| {
                data.attribute(DATA_VALUE, value);
            });
        })
    }

    fn meta(&mut self, key: u32, slot: u32) -> &mut Self {
        self.expression("meta", |meta| {
            meta.be32(2, key).be32(1, REGISTER + slot);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, slot: u32) -> &mut Self {
        self.expression("payload", |payload| {
            payload.be32(1, REGISTER + slot).be32(2, base).be32(3, offset).be32(4, length);
        })
    }

    /// The packet is of `family` ([`IPV4`] or [`IPV6`]).
    pub(crate) fn family(&mut self, family: u8) -> &mut Self {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO, 0).compare(true, &[family])
    }

    /// The packet came in by the interface.
    pub(crate) fn in_by(&mut self, interface: &str) -> &mut Self {
        const IIFNAME: u32 = 6;
        self.meta(IIFNAME, 0).compare(true, &interface_name(interface))
    }

    /// The packet leaves by the interface, or by another one.
    pub(crate) fn out_by(&mut self, equal: bool, interface: &str) -> &mut Self {
        const OIFNAME: u32 = 7;
        self.meta(OIFNAME, 0).compare(equal, &interface_name(interface))
    }

    /// The source address is in `net` (of the family that was tested before).
    pub(crate) fn source_in(&mut self, net: ipnet::IpNet) -> &mut Self {
        let offset = if net.addr().is_ipv4() { 12 } else { 8 };
        self.address_in(offset, true, net)
    }

    /// The destination address is in `net`, or is not.
    pub(crate) fn destination_in(&mut self, equal: bool, net: ipnet::IpNet) -> &mut Self {
        let offset = if net.addr().is_ipv4() { 16 } else { 24 };
        self.address_in(offset, equal, net)
    }

    fn address_in(&mut self, offset: u32, equal: bool, net: ipnet::IpNet) -> &mut Self {
        const NETWORK_HEADER: u32 = 1;
        let (address, mask) = (octets(net.network()), octets(net.netmask()));
        let length = address.len() as u32;
        self.payload(NETWORK_HEADER, offset, length, 0);
        if net.prefix_len() < net.max_prefix_len() {
            self.expression("bitwise", |bitwise| {
                bitwise.be32(1, REGISTER).be32(2, REGISTER).be32(3, length);
                bitwise.nest(4, |data| {
                    data.attribute(DATA_VALUE, &mask);
                });
                bitwise.nest(5, |data| {
                    data.attribute(DATA_VALUE, &vec![0; mask.len()]);
                });
            });
        }
        self.compare(equal, &address)
    }

    /// The destination is an address of this host.
    pub(crate) fn destination_is_local(&mut self) -> &mut Self {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        const RTN_LOCAL: u32 = 2;
        self.expression("fib", |fib| {
            fib.be32(1, REGISTER).be32(2, RESULT_ADDRESS_TYPE).be32(3, OF_DESTINATION);
        })
        .compare(true, &RTN_LOCAL.to_ne_bytes())
    }

    /// The connection's destination was translated.
    pub(crate) fn was_dnat(&mut self) -> &mut Self {
        const STATUS: u32 = 2;
        const DST_NAT: u32 = 1 << 5;
        self.expression("ct", |ct| {
            ct.be32(2, STATUS).be32(1, REGISTER);
        })
        .expression("bitwise", |bitwise| {
            bitwise.be32(1, REGISTER).be32(2, REGISTER).be32(3, 4);
            bitwise.nest(4, |data| {
                data.attribute(DATA_VALUE, &DST_NAT.to_ne_bytes());
            });
            bitwise.nest(5, |data| {
                data.attribute(DATA_VALUE, &[0; 4]);
            });
        })
        .compare(false, &[0; 4])
    }

    /// Looks up (destination address,) protocol and port in `map` and translates the destination to what it says.
    pub(crate) fn dnat_by(&mut self, map: &str, family: u8, with_address: bool) -> &mut Self {
        const L4PROTO: u32 = 16;
        const NETWORK_HEADER: u32 = 1;
        const TRANSPORT_HEADER: u32 = 2;
        let (offset, length) = if family == IPV4 { (16, 4) } else { (24, 16) };
        let words = length / 4;
        let slot = if with_address { words } else { 0 };
        if with_address {
            self.payload(NETWORK_HEADER, offset, length, 0);
        }
        self.meta(L4PROTO, slot).payload(TRANSPORT_HEADER, 2, 2, slot + 1);
        self.expression("lookup", |lookup| {
            lookup.text(1, map).be32(2, REGISTER).be32(3, REGISTER);
        });
        self.expression("nat", |nat| {
            const DNAT: u32 = 1;
            nat.be32(1, DNAT).be32(2, u32::from(family)).be32(3, REGISTER).be32(5, REGISTER + words);
        })
    }

    pub(crate) fn masquerade(&mut self) {
        self.expression("masq", |_| {});
    }

    pub(crate) fn drop(&mut self) {
        self.verdict(0, None);
    }

    /// Ends the chain.
    pub(crate) fn leave(&mut self) {
        self.verdict(-5, None);
    }

    pub(crate) fn jump(&mut self, chain: &str) {
        self.verdict(-3, Some(chain));
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |immediate| {
            immediate.be32(1, VERDICT_REGISTER).nest(2, |data| {
                data.nest(DATA_VERDICT, |verdict| {
                    verdict.be32(1, code as u32);
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        });
    }
}

/// A name is compared whole, with the zero bytes that fill it up.
fn interface_name(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = name.len().min(15);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

fn octets(ip: std::net::IpAddr) -> Vec<u8> {
    match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
