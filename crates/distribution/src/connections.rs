//! How many connections carry blobs at the same time, and how much may arrive ahead of its turn.
//!
//! Manifests, configurations and tokens are small and not counted, so that they never wait behind layers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most connections that carry blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub per_host: usize,
    pub total: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { per_host: 8, total: 32 }
    }
}

/// Who may connect now.
#[derive(Debug)]
pub(crate) struct Connections {
    bounds: Bounds,
    total: Arc<Semaphore>,
    /// Those of hosts that somebody is connected to or waits for.
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
    /// Parts that may be held in memory until it is their turn, of all blobs together.
    pub ahead: Arc<Semaphore>,
}

/// The right to one connection.
#[derive(Debug)]
pub(crate) struct Permit {
    _host: OwnedSemaphorePermit,
    _total: Option<OwnedSemaphorePermit>,
}

impl Connections {
    pub(crate) fn new(bounds: Bounds, ahead: usize) -> Connections {
        Connections {
            bounds,
            total: Arc::new(Semaphore::new(bounds.total.max(1))),
            hosts: Mutex::default(),
            ahead: Arc::new(Semaphore::new(ahead)),
        }
    }

    /// Waits for the right to one more connection to `host`. Who came first is first.
    pub(crate) async fn acquire(&self, host: &str) -> Permit {
        let semaphore = self.of(host);
        // Never closed, so that it is always granted.
        loop {
            if let Ok(granted) = Arc::clone(&semaphore).acquire_owned().await {
                return Permit { _host: granted, _total: Arc::clone(&self.total).acquire_owned().await.ok() };
            }
        }
    }

    fn of(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host).and_then(Weak::upgrade) {
            return known;
        }
        hosts.retain(|_, semaphore| semaphore.strong_count() > 0);
        let semaphore = Arc::new(Semaphore::new(self.bounds.per_host.max(1)));
        hosts.insert(host.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn both_bounds_hold_and_hosts_are_forgotten() {
        let connections = Connections::new(Bounds { per_host: 2, total: 3 }, 0);
        let soon =
            |host: &'static str| tokio::time::timeout(Duration::from_millis(30), connections.acquire(host));
        let first = soon("a").await.unwrap();
        let _second = soon("a").await.unwrap();
        assert!(soon("a").await.is_err(), "two to one host");
        let third = soon("b").await.unwrap();
        assert!(soon("c").await.is_err(), "three in all");
        drop(first);
        let _again = soon("a").await.unwrap();
        drop(third);
        let _fourth = soon("c").await.unwrap();
        assert!(!connections.hosts.lock().unwrap().contains_key("b"));
    }
}
