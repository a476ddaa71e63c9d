//! A call that is executing or was executed, and the connections of entries.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::config::MAX_ASKERS;
use super::key::Key;
use super::rule::{ConnectionId, End, Standing};

/// In the order in which their calls came.
pub(super) type EntryId = u64;

#[derive(Debug)]
pub(super) enum State {
    /// In progress: made before the call executes.
    Running,
    /// Done, with the reply.
    Done(Bytes),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) state: State,
    /// The connection the call came on last, which gets the reply.
    pub(super) owner: ConnectionId,
    /// The client's port there.
    pub(super) port: u16,
    /// Where the reply ends in the owner's stream of replies; `None` until it is known to have been written.
    pub(super) end: Option<u64>,
    /// When it was last answered.
    pub(super) touched: Instant,
    /// When its age was last counted from.
    pub(super) shelved: Instant,
    /// Connections before the owner.
    pub(super) earlier: Vec<ConnectionId>,
}

impl Entry {
    pub(super) fn new(now: Instant, key: Key, owner: ConnectionId, port: u16) -> Self {
        let (state, end, earlier) = (State::Running, None, Vec::new());
        Self { key, state, owner, port, end, touched: now, shelved: now, earlier }
    }

    /// Whether the call came on this connection before.
    pub(super) fn knows(&self, conn: ConnectionId) -> bool {
        self.owner == conn || self.earlier.contains(&conn)
    }

    /// The reply goes to this connection now; the one it was sent to before.
    pub(super) fn hand_over(&mut self, now: Instant, conn: ConnectionId, port: u16) -> ConnectionId {
        let before = std::mem::replace(&mut self.owner, conn);
        if before != conn {
            self.end = None;
            self.earlier.retain(|c| *c != conn);
            self.earlier.push(before);
            self.earlier.drain(..self.earlier.len().saturating_sub(MAX_ASKERS));
        }
        (self.port, self.touched) = (port, now);
        before
    }

    /// Bytes of the reply.
    pub(super) fn bytes(&self) -> usize {
        match &self.state {
            State::Running => 0,
            State::Done(reply) => reply.len(),
        }
    }
}

/// A connection that owns entries.
#[derive(Debug, Default)]
struct Owner {
    entries: usize,
    /// What was last heard, so that the kernel is not asked for what it has said already.
    acked: u64,
    ended: Option<End>,
}

/// The connections that own entries. One that owns none is forgotten: nothing depends on it.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<ConnectionId, Owner>);

impl Owners {
    pub(super) fn add(&mut self, conn: ConnectionId) {
        self.0.entry(conn).or_default().entries += 1;
    }

    pub(super) fn remove(&mut self, conn: ConnectionId) {
        if let Some(owner) = self.0.get_mut(&conn) {
            owner.entries -= 1;
            if owner.entries == 0 {
                self.0.remove(&conn);
            }
        }
    }

    pub(super) fn ended(&mut self, conn: ConnectionId, end: End) {
        if let Some(owner) = self.0.get_mut(&conn) {
            owner.ended.get_or_insert(end);
        }
    }

    /// What is known of a connection, from its end or from the kernel.
    pub(super) fn standing(
        &mut self,
        conn: ConnectionId,
        probe: &dyn Fn(ConnectionId) -> Standing,
    ) -> Standing {
        let Some(owner) = self.0.get_mut(&conn) else { return probe(conn) };
        if let Some(end) = owner.ended {
            return Standing::Ended(end);
        }
        let standing = probe(conn);
        if let Standing::Open { acked: Some(acked), .. } = standing {
            owner.acked = owner.acked.max(acked);
        }
        standing
    }

    /// Whether the connection, as last seen, was open and had acknowledged so many bytes.
    pub(super) fn had_acked(&self, conn: ConnectionId, end: u64) -> bool {
        self.0.get(&conn).is_some_and(|owner| owner.ended.is_none() && owner.acked >= end)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::key::ClientId;
    use super::super::rule::How;
    use super::super::tests::epoch;
    use super::*;

    fn entry() -> Entry {
        let client = ClientId::new([192, 0, 2, 1].into(), b"host", 0);
        Entry::new(epoch(), Key::new(0, client, 1, [100_003, 3, 12], None, b""), ConnectionId(1), 700)
    }

    #[test]
    fn an_entry_knows_the_last_connections_that_asked() {
        let mut entry = entry();
        entry.end = Some(100);
        for n in 2..=20 {
            assert_eq!(entry.hand_over(epoch(), ConnectionId(n), 700), ConnectionId(n - 1));
        }
        assert!(!entry.knows(ConnectionId(11)) && (12..=20).all(|n| entry.knows(ConnectionId(n))));
        assert_eq!((entry.end, entry.earlier.len()), (None, MAX_ASKERS));
        entry.hand_over(epoch(), ConnectionId(15), 700);
        assert_eq!((entry.owner, entry.earlier.len()), (ConnectionId(15), MAX_ASKERS), "none twice");
    }

    #[test]
    fn answering_again_on_one_connection_keeps_the_first_end() {
        let mut entry = entry();
        entry.end = Some(100);
        entry.hand_over(epoch(), ConnectionId(1), 700);
        assert_eq!(entry.end, Some(100), "who acknowledged the first has the reply");
    }

    #[test]
    fn the_first_end_counts_and_is_forgotten_with_the_last_entry() {
        let (mut owners, conn) = (Owners::default(), ConnectionId(1));
        let open = Standing::Open { acked: Some(7), retransmits: 0, silent: Duration::ZERO };
        let end = |how| End { how, acked: 7 };
        owners.add(conn);
        owners.add(conn);
        assert_eq!(owners.standing(conn, &|_| open), open);
        assert!(owners.had_acked(conn, 7) && !owners.had_acked(conn, 8));
        owners.ended(conn, end(How::Reset));
        owners.ended(conn, end(How::Clean));
        assert_eq!(owners.standing(conn, &|_| open), Standing::Ended(end(How::Reset)));
        assert!(!owners.had_acked(conn, 7));
        owners.remove(conn);
        assert_eq!(owners.len(), 1);
        owners.remove(conn);
        owners.ended(conn, end(How::Reset));
        assert_eq!((owners.len(), owners.standing(conn, &|_| open)), (0, open));
    }
}
