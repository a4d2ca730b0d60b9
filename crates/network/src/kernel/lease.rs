//! Netfilter sockets that are kept open from one use to the next.
//!
//! Closing one makes the kernel wait until what was deleted from nftables is freed: an RCU grace period, about 10 ms.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use sys::netlink::Socket;

/// Device and inode of a network namespace. An open socket keeps the namespace alive, so that its number is not used again.
type Namespace = (u64, u64);

/// A node has one namespace and few callers at a time.
const KEPT: usize = 8;

static IDLE: Mutex<Vec<(Namespace, Socket)>> = Mutex::new(Vec::new());

/// Runs `work` with a netfilter socket of the calling thread's namespace.
///
/// # Errors
/// There was none and none could be opened.
pub(crate) fn with_netfilter<T>(work: impl FnOnce(&mut Socket) -> T) -> io::Result<T> {
    let meta = std::fs::metadata("/proc/thread-self/ns/net")?;
    let namespace = (meta.dev(), meta.ino());
    let idle = || IDLE.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = {
        let mut idle = idle();
        idle.iter().position(|(of, _)| *of == namespace).map(|at| idle.swap_remove(at).1)
    };
    let mut socket = match kept {
        Some(socket) => socket,
        None => Socket::netfilter()?,
    };
    let result = work(&mut socket);
    let mut idle = idle();
    let oldest = (idle.len() >= KEPT).then(|| idle.remove(0));
    idle.push((namespace, socket));
    drop(idle);
    // Closed outside the lock: this may wait.
    drop(oldest);
    Ok(result)
}
