//! What all connections together have in flight, and each one's share of it. No clock, no sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Calls that were received and not executed, and bytes of them, of records that are still coming and of replies that
/// clients have not taken.
#[derive(Debug)]
pub(super) struct Load {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    max_calls: usize,
    max_bytes: usize,
}

impl Load {
    pub(super) fn new(max_calls: usize, max_bytes: usize) -> Self {
        Self { calls: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_calls, max_bytes }
    }

    /// Whether nothing more is to be received. What workers receive at this moment may go over.
    pub(super) fn is_full(&self) -> bool {
        self.calls.load(Relaxed) >= self.max_calls || self.bytes.load(Relaxed) >= self.max_bytes
    }
}

/// A number that counts in a sum.
#[derive(Debug, Default)]
struct Part(AtomicUsize);

impl Part {
    fn add(&self, n: usize, sum: &AtomicUsize) {
        self.0.fetch_add(n, Relaxed);
        sum.fetch_add(n, Relaxed);
    }

    fn sub(&self, n: usize, sum: &AtomicUsize) {
        self.0.fetch_sub(n, Relaxed);
        sum.fetch_sub(n, Relaxed);
    }

    fn set(&self, n: usize, sum: &AtomicUsize) {
        if self.0.load(Relaxed) == n {
            return;
        }
        let before = self.0.swap(n, Relaxed);
        sum.fetch_add(n, Relaxed);
        sum.fetch_sub(before, Relaxed);
    }
}

/// One connection's share; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    load: Arc<Load>,
    calls: Part,
    records: Part,
    partial: Part,
    unsent: Part,
}

impl Share {
    pub(super) fn new(load: Arc<Load>) -> Self {
        let [calls, records, partial, unsent] = Default::default();
        Self { load, calls, records, partial, unsent }
    }

    /// Calls were received, of this many bytes together.
    pub(super) fn received(&self, calls: usize, bytes: usize) {
        if calls > 0 {
            self.calls.add(calls, &self.load.calls);
            self.records.add(bytes, &self.load.bytes);
        }
    }

    /// Calls that were received are executed or dropped.
    pub(super) fn executed(&self, calls: usize, bytes: usize) {
        if calls > 0 {
            self.calls.sub(calls, &self.load.calls);
            self.records.sub(bytes, &self.load.bytes);
        }
    }

    /// Bytes of the record that is still coming, from now on: all of them, so that once begun it can be received.
    pub(super) fn partial(&self, bytes: usize) {
        self.partial.set(bytes, &self.load.bytes);
    }

    /// Bytes of replies that the socket did not take, from now on.
    pub(super) fn unsent(&self, bytes: usize) {
        self.unsent.set(bytes, &self.load.bytes);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.calls.set(0, &self.load.calls);
        self.records.set(0, &self.load.bytes);
        self.partial(0);
        self.unsent(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_and_bytes_of_all_connections_are_bounded() {
        let load = Arc::new(Load::new(2, 100));
        let (a, b) = (Share::new(load.clone()), Share::new(load.clone()));
        a.received(1, 10);
        assert!(!load.is_full());
        b.received(1, 10);
        assert!(load.is_full(), "two calls");
        a.executed(1, 10);
        a.unsent(50);
        b.partial(40);
        assert!(load.is_full(), "a hundred bytes");
        b.partial(0);
        assert!(!load.is_full());
    }

    proptest! {
        /// Whatever a connection had, nothing of it is left behind.
        #[test]
        fn a_dropped_share_is_given_back(steps in proptest::collection::vec((0u8..4, 0usize..1000), 0..50)) {
            let load = Arc::new(Load::new(1, 1));
            let share = Share::new(load.clone());
            for (what, n) in steps {
                match what {
                    0 => share.received(1, n),
                    1 => share.partial(n),
                    2 => share.unsent(n),
                    _ => {
                        share.received(2, n);
                        share.executed(2, n);
                    }
                }
            }
            drop(share);
            prop_assert_eq!((load.calls.load(Relaxed), load.bytes.load(Relaxed)), (0, 0));
        }
    }
}
