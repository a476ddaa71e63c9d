//! The calls a client waits for: transaction id to outstanding call.
//!
//! A transaction id stays with a call through every retransmission and every connection (RFC 5531 section 9), so
//! the table belongs to the transport and outlives each connection. It holds three orders of the same calls: by
//! xid (a reply arrives), by insertion (everything is sent again on a new connection) and by deadline. Each is a
//! tree, so one call among [`MAX_OUTSTANDING`] costs a few steps in each and no operation scans the table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Calls one table holds at most. Linux lets one transport hold 65536 (`RPC_MAX_SLOT_TABLE`); a FUSE mount has a
/// few dozen requests in flight, and each entry pins its record.
pub const MAX_OUTSTANDING: usize = 4096;

/// Why a call was not taken into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The table is full.
    #[error(
        "call {xid:#010x} not sent: {MAX_OUTSTANDING} calls are already outstanding; wait for replies first"
    )]
    Full {
        /// The call that was refused.
        xid: u32,
    },
    /// The xid belongs to a call that is still outstanding.
    #[error("call {xid:#010x} not sent: a call with this xid is outstanding; take xids from next_xid")]
    DuplicateXid {
        /// The call that was refused.
        xid: u32,
    },
}

#[derive(Debug)]
struct Entry<T> {
    order: u64,
    deadline: Option<Instant>,
    payload: T,
}

/// Outstanding calls with a payload `T` each.
///
/// ```
/// # use remoor_rpc::call_table::CallTable;
/// # use std::time::{Duration, Instant};
/// # let now = Instant::now();
/// let mut calls = CallTable::new(7);
/// let xid = calls.next_xid();
/// calls.insert(xid, "GETATTR", now + Duration::from_secs(60))?;
/// assert_eq!(calls.take(xid), Some("GETATTR"));
/// assert_eq!(calls.take(xid), None, "a reply is delivered once");
/// # Ok::<(), remoor_rpc::call_table::InsertError>(())
/// ```
#[derive(Debug)]
pub struct CallTable<T> {
    next_xid: u32,
    next_order: u64,
    calls: BTreeMap<u32, Entry<T>>,
    order: BTreeMap<u64, u32>,
    deadlines: BTreeSet<(Instant, u32)>,
}

impl<T> CallTable<T> {
    /// An empty table whose first xid is `first_xid`. A random start keeps a restarted client from meeting its
    /// predecessor's entries in the server's reply cache.
    pub fn new(first_xid: u32) -> Self {
        Self {
            next_xid: first_xid,
            next_order: 0,
            calls: BTreeMap::new(),
            order: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// An xid no outstanding call has.
    pub fn next_xid(&mut self) -> u32 {
        while self.calls.contains_key(&self.next_xid) {
            self.next_xid = self.next_xid.wrapping_add(1);
        }
        let xid = self.next_xid;
        self.next_xid = xid.wrapping_add(1);
        xid
    }

    /// Adds a call that is due at `deadline`.
    pub fn insert(&mut self, xid: u32, payload: T, deadline: Instant) -> Result<(), InsertError> {
        if self.calls.contains_key(&xid) {
            return Err(InsertError::DuplicateXid { xid });
        }
        if self.calls.len() >= MAX_OUTSTANDING {
            return Err(InsertError::Full { xid });
        }
        let order = self.next_order;
        self.next_order += 1;
        self.calls.insert(xid, Entry { order, deadline: Some(deadline), payload });
        self.order.insert(order, xid);
        self.deadlines.insert((deadline, xid));
        Ok(())
    }

    /// Takes a call out, so that nothing can be delivered for it again.
    pub fn take(&mut self, xid: u32) -> Option<T> {
        let entry = self.calls.remove(&xid)?;
        self.order.remove(&entry.order);
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, xid));
        }
        Some(entry.payload)
    }

    /// The payload of an outstanding call.
    pub fn get(&self, xid: u32) -> Option<&T> {
        self.calls.get(&xid).map(|entry| &entry.payload)
    }

    /// The payload of an outstanding call, to change it.
    pub fn get_mut(&mut self, xid: u32) -> Option<&mut T> {
        self.calls.get_mut(&xid).map(|entry| &mut entry.payload)
    }

    /// Gives an outstanding call a new deadline; an unknown xid is ignored.
    pub fn set_deadline(&mut self, xid: u32, deadline: Instant) {
        let Some(entry) = self.calls.get_mut(&xid) else { return };
        if let Some(old) = entry.deadline.replace(deadline) {
            self.deadlines.remove(&(old, xid));
        }
        self.deadlines.insert((deadline, xid));
    }

    /// When the next call is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// A call that is due at `now`. It has no deadline from here on: give it a new one or take it.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let (deadline, xid) = *self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.deadlines.pop_first();
        if let Some(entry) = self.calls.get_mut(&xid) {
            entry.deadline = None;
        }
        Some(xid)
    }

    /// The xids of all outstanding calls in the order they were inserted.
    pub fn in_order(&self) -> impl Iterator<Item = u32> + '_ {
        self.order.values().copied()
    }

    /// Calls outstanding.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no call is outstanding.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn epoch() -> Instant {
        Instant::now()
    }

    #[test]
    fn xids_wrap_and_skip_those_outstanding() {
        let mut calls = CallTable::new(u32::MAX);
        calls.insert(0, (), epoch()).unwrap();
        assert_eq!(calls.next_xid(), u32::MAX);
        assert_eq!(calls.next_xid(), 1);
    }

    #[test]
    fn a_call_is_delivered_once() {
        let mut calls = CallTable::new(1);
        calls.insert(9, "first", epoch()).unwrap();
        assert_eq!(calls.insert(9, "second", epoch()), Err(InsertError::DuplicateXid { xid: 9 }));
        assert_eq!(calls.take(9), Some("first"));
        assert_eq!(calls.take(9), None);
        assert_eq!(calls.next_deadline(), None);
    }

    #[test]
    fn a_full_table_refuses_and_recovers() {
        let mut calls = CallTable::new(0);
        for _ in 0..MAX_OUTSTANDING {
            let xid = calls.next_xid();
            calls.insert(xid, (), epoch()).unwrap();
        }
        assert_eq!(calls.insert(u32::MAX, (), epoch()), Err(InsertError::Full { xid: u32::MAX }));
        calls.take(5);
        assert_eq!(calls.insert(u32::MAX, (), epoch()), Ok(()));
    }

    #[test]
    fn an_expired_call_is_reported_once_until_it_gets_a_new_deadline() {
        let (start, second) = (epoch(), Duration::from_secs(1));
        let mut calls = CallTable::new(0);
        calls.insert(1, (), start + 2 * second).unwrap();
        calls.insert(2, (), start + second).unwrap();
        assert_eq!(calls.next_deadline(), Some(start + second));
        assert_eq!(calls.pop_expired(start), None);
        assert_eq!(calls.pop_expired(start + second), Some(2));
        assert_eq!(calls.pop_expired(start + second), None);
        calls.set_deadline(2, start + 3 * second);
        assert_eq!(calls.pop_expired(start + 3 * second), Some(1));
        assert_eq!(calls.pop_expired(start + 3 * second), Some(2));
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_insertion(xids in prop::collection::vec(0..64u32, 0..200)) {
            let mut calls = CallTable::new(0);
            let mut model: Vec<u32> = Vec::new();
            for xid in xids {
                if model.contains(&xid) {
                    prop_assert_eq!(calls.take(xid), Some(xid));
                    model.retain(|known| *known != xid);
                } else {
                    calls.insert(xid, xid, epoch()).unwrap();
                    model.push(xid);
                }
                prop_assert_eq!(calls.in_order().collect::<Vec<_>>(), model.clone());
                prop_assert_eq!(calls.len(), model.len());
            }
        }
    }
}
