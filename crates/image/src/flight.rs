//! Work that several want at once and one does: the first leads, the others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Work in progress, by what it is for.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

/// The right and duty to do the work. When it is dropped, whoever waits goes on: with the result if there is one.
#[derive(Debug)]
pub(crate) struct Lead<K: Hash + Eq, V> {
    running: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    key: K,
    sender: watch::Sender<Option<V>>,
}

impl<K: Hash + Eq + Clone, V> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Flights { running: Arc::default() }
    }

    /// The lead if nobody has it; else a receiver that is closed when the leader is done.
    pub(crate) fn join(&self, key: K) -> Result<Lead<K, V>, watch::Receiver<Option<V>>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = running.get(&key) {
            return Err(receiver.clone());
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(key.clone(), receiver);
        Ok(Lead { running: Arc::clone(&self.running), key, sender })
    }
}

impl<K: Hash + Eq, V> Lead<K, V> {
    /// For the one who leads, too: a receiver of the result.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<V>> {
        self.sender.subscribe()
    }

    /// Hands the result to everybody who waits. Who comes later begins anew.
    pub(crate) fn finish(self, value: V) {
        self.forget();
        self.sender.send_replace(Some(value));
    }

    fn forget(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K: Hash + Eq, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        // After `finish` somebody else may lead under the same key; theirs must stay.
        if self.sender.borrow().is_none() {
            self.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_leads_and_the_others_get_its_result() {
        let flights: Flights<&str, u32> = Flights::new();
        let lead = flights.join("a").unwrap();
        let mut waiting = flights.join("a").unwrap_err();
        assert!(flights.join("b").is_ok());
        lead.finish(7);
        let second = flights.join("a").unwrap();
        assert_eq!(*waiting.wait_for(Option::is_some).await.unwrap(), Some(7));
        assert!(flights.join("a").is_err(), "the second lead is not forgotten with the first");
        drop(second);
        assert!(flights.join("a").is_ok());
    }

    #[tokio::test]
    async fn a_lost_leader_is_noticed() {
        let flights: Flights<&str, u32> = Flights::new();
        let lead = flights.join("a").unwrap();
        let mut waiting = flights.join("a").unwrap_err();
        drop(lead);
        assert!(waiting.changed().await.is_err());
    }
}
