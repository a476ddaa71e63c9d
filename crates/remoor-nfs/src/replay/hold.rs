//! Calls that wait until it is known whose they are.

use std::time::Instant;

use super::cache::Caller;
use super::key::Key;
use super::rule::{ConnectionId, Question};

#[derive(Debug)]
pub(super) struct Hold<C> {
    pub(super) key: Key,
    pub(super) caller: Caller,
    /// The driver's; given back if the call is to be executed.
    pub(super) call: C,
    /// When to look again, whatever happens.
    pub(super) look: Option<Instant>,
    since: Instant,
    asked: u32,
}

/// All of them, in the order in which they came. Few: a scan is cheaper than an index.
#[derive(Debug)]
pub(super) struct Holds<C>(Vec<Hold<C>>);

impl<C> Default for Holds<C> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<C> Hold<C> {
    pub(super) fn question(&self, now: Instant) -> Question {
        Question { now, since: self.since, asked: self.asked, forced: false }
    }
}

impl<C> Holds<C> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, now: Instant, key: Key, caller: Caller, call: C, look: Option<Instant>) {
        let asked = 1 + self.0.iter().filter(|h| h.key == key).map(|h| h.asked).max().unwrap_or(0);
        self.count(&key);
        self.0.push(Hold { key, caller, call, look, since: now, asked });
    }

    /// Notes that a call that is held came again on its connection; false if none is held there.
    pub(super) fn repeated(&mut self, key: &Key, conn: ConnectionId) -> bool {
        let held = self.0.iter().any(|h| h.key == *key && h.caller.conn == conn);
        if held {
            self.count(key);
        }
        held
    }

    fn count(&mut self, key: &Key) {
        self.0.iter_mut().filter(|h| h.key == *key).for_each(|h| h.asked = h.asked.saturating_add(1));
    }

    /// The reply is there: what was asked while it was not is no evidence.
    pub(super) fn begin_anew(&mut self, now: Instant, key: &Key) {
        for hold in self.0.iter_mut().filter(|h| h.key == *key) {
            (hold.since, hold.asked) = (now, 1);
        }
    }

    /// The next time at which one is to be looked at.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.0.iter().filter_map(|h| h.look).min()
    }

    /// Keys of the calls that `wanted` picks, the longest held first.
    pub(super) fn keys(&self, wanted: impl Fn(&Hold<C>) -> bool) -> Vec<Key> {
        let mut keys: Vec<Key> = Vec::new();
        for hold in self.0.iter().filter(|h| wanted(h)) {
            if !keys.contains(&hold.key) {
                keys.push(hold.key);
            }
        }
        keys
    }

    /// The longest held call with this key.
    pub(super) fn first(&mut self, key: &Key) -> Option<&mut Hold<C>> {
        self.0.iter_mut().find(|h| h.key == *key)
    }

    /// Takes the longest held call with this key.
    pub(super) fn take(&mut self, key: &Key) -> Option<Hold<C>> {
        let at = self.0.iter().position(|h| h.key == *key)?;
        Some(self.0.remove(at))
    }

    /// Sets when the calls with this key are looked at again.
    pub(super) fn look_again(&mut self, key: &Key, at: Option<Instant>) {
        self.0.iter_mut().filter(|h| h.key == *key).for_each(|h| h.look = at);
    }

    /// Nobody waits on this connection any more.
    pub(super) fn forget(&mut self, conn: ConnectionId) {
        self.0.retain(|h| h.caller.conn != conn);
    }
}
