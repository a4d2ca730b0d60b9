//! Who waits for what: calls whose answer comes later.

use std::time::Instant;

/// A call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) connection: u32,
    pub(crate) stream: u32,
    /// When the call was taken, in nanoseconds since 1970.
    pub(crate) began_ns: i64,
    /// When the caller stops waiting; what it asked for goes on.
    pub(crate) deadline: Option<Instant>,
}

/// All of them. Bounded by the connections' own limits.
#[derive(Debug)]
pub(crate) struct Pending<K> {
    calls: Vec<(K, Caller)>,
}

impl<K> Default for Pending<K> {
    fn default() -> Pending<K> {
        Pending { calls: Vec::new() }
    }
}

impl<K: Copy + PartialEq> Pending<K> {
    pub(crate) fn add(&mut self, key: K, caller: Caller) {
        self.calls.push((key, caller));
    }

    /// Takes out all who wait for `key`.
    pub(crate) fn take(&mut self, key: K) -> Vec<Caller> {
        self.take_if(|waiting, _| waiting == key)
    }

    /// Whether anybody waits for `key`.
    pub(crate) fn has(&self, key: K) -> bool {
        self.calls.iter().any(|(waiting, _)| *waiting == key)
    }

    /// Takes out those whose time is over.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<Caller> {
        self.take_if(|_, caller| caller.deadline.is_some_and(|deadline| deadline <= now))
    }

    /// Forgets the calls of a connection that is gone.
    pub(crate) fn forget(&mut self, connection: u32) {
        self.take_if(|_, caller| caller.connection == connection);
    }

    /// The nearest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.calls.iter().filter_map(|(_, caller)| caller.deadline).min()
    }

    fn take_if(&mut self, mut matches: impl FnMut(K, &Caller) -> bool) -> Vec<Caller> {
        let taken = self
            .calls
            .extract_if(.., |(key, caller)| matches(*key, caller))
            .map(|(_, caller)| caller)
            .collect();
        if self.calls.is_empty() && self.calls.capacity() > 64 {
            self.calls = Vec::new();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Key {
        Exited(u32),
        Deleted(u32),
    }

    #[test]
    fn calls_are_answered_once_in_order() {
        let now = Instant::now();
        let caller = |stream, deadline| Caller { connection: stream % 2, stream, began_ns: 0, deadline };
        let mut pending = Pending::default();
        pending.add(Key::Exited(1), caller(1, None));
        pending.add(Key::Exited(2), caller(3, Some(now + Duration::from_secs(5))));
        pending.add(Key::Exited(1), caller(4, None));
        pending.add(Key::Deleted(1), caller(5, Some(now)));
        assert_eq!(pending.deadline(), Some(now));
        assert_eq!(pending.take_expired(now), [caller(5, Some(now))]);
        assert_eq!(pending.take(Key::Exited(1)), [caller(1, None), caller(4, None)]);
        assert_eq!(pending.take(Key::Exited(1)), []);
        pending.forget(1);
        assert_eq!(pending.take(Key::Exited(2)), []);
        assert_eq!(pending.deadline(), None);
    }
}
