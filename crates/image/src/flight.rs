//! Work that several want at once and one does: the first leads, the others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

type Running<K, V> = Arc<Mutex<HashMap<K, Arc<Flight<V>>>>>;

#[derive(Debug)]
struct Flight<V> {
    sender: watch::Sender<Option<V>>,
    /// How many have joined it so far.
    joined: AtomicU64,
}

/// Work in progress, by what it is for.
#[derive(Debug)]
pub(crate) struct Flights<K, V> {
    running: Running<K, V>,
}

/// The right and duty to do the work. When it is dropped, whoever waits goes on: with the result if there is one.
#[derive(Debug)]
pub(crate) struct Lead<K: Hash + Eq, V> {
    running: Running<K, V>,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Hash + Eq + Clone, V> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Flights { running: Arc::default() }
    }

    /// The lead if nobody has it; else a receiver that is closed when the leader is done.
    pub(crate) fn join(&self, key: K) -> Result<Lead<K, V>, watch::Receiver<Option<V>>> {
        let mut running = lock(&self.running);
        if let Some(flight) = running.get(&key) {
            flight.joined.fetch_add(1, Ordering::Relaxed);
            return Err(flight.sender.subscribe());
        }
        let flight = Arc::new(Flight { sender: watch::Sender::new(None), joined: AtomicU64::new(0) });
        running.insert(key.clone(), Arc::clone(&flight));
        Ok(Lead { running: Arc::clone(&self.running), key, flight })
    }
}

impl<K: Hash + Eq, V> Lead<K, V> {
    /// For the one who leads, too: a receiver of the result.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<V>> {
        self.flight.sender.subscribe()
    }

    /// Hands the result to everybody who waits. Who comes later begins anew.
    pub(crate) fn finish(self, value: V) {
        self.forget();
        self.flight.sender.send_replace(Some(value));
    }

    /// Returns when nobody has waited for the result for at least as long as `linger`, and less than twice that. From then on nobody can join.
    pub(crate) async fn deserted(&self, linger: Duration) {
        loop {
            self.flight.sender.closed().await;
            let joined = self.flight.joined.load(Ordering::Relaxed);
            tokio::time::sleep(linger).await;
            // Whoever joins holds the same lock.
            let mut running = lock(&self.running);
            let nobody_came = joined == self.flight.joined.load(Ordering::Relaxed);
            if nobody_came && self.flight.sender.receiver_count() == 0 {
                running.remove(&self.key);
                return;
            }
        }
    }

    fn forget(&self) {
        let mut running = lock(&self.running);
        // Somebody else may lead under the same key by now; theirs must stay.
        if running.get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            running.remove(&self.key);
        }
    }
}

impl<K: Hash + Eq, V> Drop for Lead<K, V> {
    fn drop(&mut self) {
        self.forget();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[tokio::test(start_paused = true)]
    async fn work_that_nobody_waits_for_is_deserted_after_a_while() {
        let flights: Flights<&str, u32> = Flights::new();
        let lead = flights.join("a").unwrap();
        let began = tokio::time::Instant::now();
        let first = lead.subscribe();
        let visits = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(first);
            tokio::time::sleep(Duration::from_secs(9)).await;
            let second = flights.join("a").unwrap_err();
            tokio::time::sleep(Duration::from_secs(30)).await;
            drop(second);
        };
        tokio::join!(lead.deserted(Duration::from_secs(10)), visits);
        let waited = began.elapsed().as_secs();
        assert!((54..65).contains(&waited), "{waited} s");
        let other = flights.join("a").unwrap();
        drop(lead);
        assert!(flights.join("a").is_err(), "what is led by somebody else now is not forgotten");
        drop(other);
    }
}
