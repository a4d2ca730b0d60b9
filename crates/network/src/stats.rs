//! A pod's interfaces: their counters, and the loopback of a pod that is not attached to a network.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use sys::netlink::{Messages, Socket};

use crate::kernel::link;

/// Counters of one interface since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStats {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// Reads the counters of one network namespace again and again: a socket that was opened inside it once. It keeps the namespace.
#[derive(Debug)]
pub struct InterfaceMeter(Mutex<Socket>);

impl InterfaceMeter {
    /// A meter of the namespace `netns`.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn open(netns: BorrowedFd<'_>) -> io::Result<InterfaceMeter> {
        Ok(InterfaceMeter(Mutex::new(Socket::route_in(netns)?)))
    }

    /// The counters of every interface, the loopback left out.
    ///
    /// # Errors
    /// The kernel refused the dump.
    pub fn read(&self) -> io::Result<Vec<InterfaceStats>> {
        // A reader that panicked left answers at most, which the next one's sequence number tells apart.
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let links = link::all(&mut socket)?;
        let stats = |link: link::Link| InterfaceStats {
            name: link.name,
            rx_bytes: link.counters.rx_bytes,
            rx_packets: link.counters.rx_packets,
            rx_errors: link.counters.rx_errors,
            rx_dropped: link.counters.rx_dropped,
            tx_bytes: link.counters.tx_bytes,
            tx_packets: link.counters.tx_packets,
            tx_errors: link.counters.tx_errors,
            tx_dropped: link.counters.tx_dropped,
        };
        Ok(links.into_iter().filter(|link| link.index != link::LOOPBACK).map(stats).collect())
    }
}

/// Brings the loopback interface of the namespace `netns` up. [`crate::Networks::attach`] does so by itself where the network is the
/// built-in one.
pub fn set_up_loopback(netns: BorrowedFd<'_>) -> io::Result<()> {
    let mut socket = Socket::route_in(netns)?;
    let mut messages = Messages::new();
    link::set_up(&mut messages, link::LOOPBACK);
    Ok(socket.transact(messages)?)
}
