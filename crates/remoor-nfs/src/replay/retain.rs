//! What is forgotten, and when.

use std::time::{Duration, Instant};

use super::cache::ReplyCache;
use super::config::MIN_KEEP;
use super::entry::{Entry, EntryId, Owners, State};
use super::key::ClientId;
use super::rule::{ConnectionId, Standing, has_reached, is_settled};
use super::shelf::Victim;

impl<C> ReplyCache<C> {
    /// Makes room for one more entry of this client; false if everything is in progress.
    pub(super) fn make_room(
        &mut self,
        now: Instant,
        client: ClientId,
        probe: &dyn Fn(ConnectionId) -> Standing,
    ) -> bool {
        let full = self.clients.get(&client).is_some_and(|c| c.entries >= self.config.client_entries);
        (!full || self.evict_of(now, client, probe))
            && (self.entries.len() < self.config.entries || self.evict(now, probe))
    }

    /// Forgets replies until their bytes are within the limit.
    pub(super) fn limit_bytes(&mut self, now: Instant, probe: &dyn Fn(ConnectionId) -> Standing) {
        while self.reply_bytes > self.config.reply_bytes && self.evict(now, probe) {}
    }

    /// Forgets replies that are older than they are kept.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((id, at)) = self.oldest()
            && at <= now
        {
            self.expire_or_rotate(now, id);
        }
    }

    /// An entry that was asked for again since it was put on the shelf is as old as that.
    fn expire_or_rotate(&mut self, now: Instant, id: EntryId) {
        let keep = self.keep();
        match self.entries.get_mut(&id) {
            Some(entry) if entry.touched + keep > now => {
                entry.shelved = entry.touched;
                self.shelf.rotate(id);
            }
            _ => {
                self.counters.expired += 1;
                self.remove(id);
            }
        }
    }

    fn keep(&self) -> Duration {
        self.config.keep.max(MIN_KEEP)
    }

    /// When the next reply is to be forgotten because of its age, or looked at because it was asked for again since.
    pub(super) fn next_expiry(&mut self) -> Option<Instant> {
        self.oldest().map(|(_, at)| at)
    }

    fn oldest(&mut self) -> Option<(EntryId, Instant)> {
        let keep = self.keep();
        let fronts = self.shelf.oldest(|id| self.entries.contains_key(&id));
        let fronts = fronts.into_iter().flatten();
        fronts.filter_map(|id| Some((id, self.entries.get(&id)?.shelved + keep))).min_by_key(|(_, at)| *at)
    }

    /// Puts a done entry on its shelves.
    pub(super) fn shelve(&mut self, id: EntryId, client: ClientId) {
        let entries = &self.entries;
        self.shelf.push(id);
        self.shelf.sweep(entries.len(), |id| entries.contains_key(&id));
        if let Some(client) = self.clients.get_mut(&client) {
            client.shelf.push(id);
            client.shelf.sweep(client.entries, |id| entries.contains_key(&id));
        }
    }

    fn evict(&mut self, now: Instant, probe: &dyn Fn(ConnectionId) -> Standing) -> bool {
        let (entries, owners) = (&self.entries, &mut self.owners);
        let victim = self.shelf.victim(|id| entries.get(&id).map(|entry| is_read(entry, owners, probe)));
        self.forget(now, victim)
    }

    fn evict_of(&mut self, now: Instant, client: ClientId, probe: &dyn Fn(ConnectionId) -> Standing) -> bool {
        let (entries, owners) = (&self.entries, &mut self.owners);
        let Some(client) = self.clients.get_mut(&client) else { return false };
        let victim = client.shelf.victim(|id| entries.get(&id).map(|entry| is_read(entry, owners, probe)));
        self.forget(now, victim)
    }

    fn forget(&mut self, now: Instant, victim: Option<Victim>) -> bool {
        let Some(Victim { id, settled }) = victim else { return false };
        let Some(entry) = self.remove(id) else { return false };
        let young = now.saturating_duration_since(entry.touched) < MIN_KEEP;
        self.counters.evicted_settled += u64::from(settled);
        self.counters.evicted_unsettled += u64::from(!settled);
        self.counters.evicted_young += u64::from(!settled && young);
        true
    }
}

/// Whether the client has the reply, as far as acknowledgements tell. A client may still ask again if it leaves the
/// connection without having read, which is why such an entry is kept while there is room.
fn is_read(entry: &Entry, owners: &mut Owners, probe: &dyn Fn(ConnectionId) -> Standing) -> bool {
    if matches!(entry.state, State::Running) {
        return false;
    }
    if entry.end.is_some_and(|end| owners.had_acked(entry.owner, end)) {
        return true;
    }
    match owners.standing(entry.owner, probe) {
        Standing::Open { acked, .. } => has_reached(entry, acked),
        Standing::Ended(end) => is_settled(entry, end),
        Standing::Gone => false,
    }
}

#[cfg(test)]
impl<C> ReplyCache<C> {
    /// Limits hold, and the parts agree on what there is.
    pub(super) fn assert_consistent(&self, config: &super::Config) {
        assert!(self.entries.len() <= config.entries && self.held() <= config.held_calls);
        assert!(self.clients.values().all(|client| client.entries <= config.client_entries));
        assert_eq!(self.clients.values().map(|client| client.entries).sum::<usize>(), self.entries.len());
        assert_eq!(self.reply_bytes, self.entries.values().map(Entry::bytes).sum::<usize>());
        assert!(self.reply_bytes <= config.reply_bytes);
        let owners: std::collections::BTreeSet<_> = self.entries.values().map(|entry| entry.owner).collect();
        assert_eq!(self.owners.len(), owners.len());
        assert!(self.shelf.len() <= 2 * config.entries + 64 + 1);
    }
}
