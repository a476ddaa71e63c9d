//! The table of flows and the decision on each segment.

use std::collections::BTreeSet;
use std::time::Instant;

use lru::LruCache;
use serde::Serialize;

use crate::config::{
    Config, IdleAction, OnAllDown, OnBackendDown, RefreshOn, ReplyWithoutEntry, SynOnEntry, WhenFull,
    WithoutEntry,
};
use crate::packet::{BackendId, Direction, FiveTuple, Reset, Segment, TcpFlags};
use crate::pool::{Health, Pool};
use crate::track::{Connection, Effect, TcpState};

/// What to do with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Send it to this backend.
    Forward {
        /// Where to.
        backend: BackendId,
    },
    /// Send it to the client.
    ToClient,
    /// Forget it.
    Drop(DropReason),
    /// Forget it and send this RST to its sender.
    Reset(Reset),
}

/// Why a segment is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// No backend can take a new flow.
    NoBackend,
    /// The table is full ([`WhenFull::DropNew`]).
    TableFull,
    /// The tracking finds that it fits no connection.
    Invalid,
    /// It is no SYN and its flow is not in the table.
    NoEntry,
    /// [`SynOnEntry::Drop`].
    SynOnEntry,
    /// [`OnBackendDown::Drop`] or [`OnAllDown::Drop`].
    BackendDown,
    /// It came from a backend that does not have this flow.
    NotItsBackend,
}

/// One flow, for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView {
    /// The flow.
    pub flow: FiveTuple,
    /// Where its segments go.
    pub backend: BackendId,
    /// State of the connection.
    pub state: TcpState,
    /// Initial sequence number of the SYN that made the entry; of another first segment, its number.
    pub isn: u32,
    /// When the idle timer last started.
    pub idle_since: Instant,
    /// When the entry frees unless it is refreshed.
    pub expires_at: Instant,
}

/// What a table did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Segments sent to a backend.
    pub forwarded: u64,
    /// Segments sent to a client.
    pub to_client: u64,
    /// Segments dropped, for any reason.
    pub dropped: u64,
    /// Resets made, at both ends.
    pub resets: u64,
    /// Entries made.
    pub new_flows: u64,
    /// SYNs that followed a live entry.
    pub syn_followed: u64,
    /// Entries replaced by a new decision.
    pub reselected: u64,
    /// Entries that expired.
    pub expired: u64,
    /// Entries that made room for another.
    pub evicted: u64,
}

#[derive(Debug)]
struct Entry {
    backend: BackendId,
    connection: Connection,
    isn: u32,
    idle_since: Instant,
    /// Its time in `FlowTable::queue`; never later than `expires_at`.
    queued_at: Instant,
}

impl Entry {
    fn expires_at(&self) -> Instant {
        self.idle_since + self.connection.timeout
    }
}

/// A stateful L4 balancer's table of flows.
///
/// Drive it as a machine: give it every segment and every change of health; when [`poll_timeout`] has
/// come, call [`handle_timeout`] and send what it returns. `now` must not go backwards.
///
/// [`poll_timeout`]: Self::poll_timeout
/// [`handle_timeout`]: Self::handle_timeout
#[derive(Debug)]
pub struct FlowTable {
    config: Config,
    pool: Pool,
    /// Ordered by last refresh, for [`WhenFull::EvictLongestIdle`].
    entries: LruCache<FiveTuple, Entry>,
    /// One element for each entry. A refresh leaves its element behind; it is moved when it comes up.
    queue: BTreeSet<(Instant, FiveTuple)>,
    /// Resets of entries that were found expired before `handle_timeout`; at most `entry_limit` pairs.
    pending: Vec<Reset>,
    /// When the first of `pending` was due.
    pending_since: Option<Instant>,
    counters: Counters,
}

impl FlowTable {
    /// An empty table. `backends` are all up and in order of preference; `seed` keys [`Selection::Hash`].
    ///
    /// [`Selection::Hash`]: crate::Selection::Hash
    pub fn new(config: Config, backends: &[BackendId], seed: u64) -> Self {
        Self {
            config,
            pool: Pool::new(backends, seed),
            entries: LruCache::unbounded(),
            queue: BTreeSet::new(),
            pending: Vec::new(),
            pending_since: None,
            counters: Counters::default(),
        }
    }

    /// Decides on a segment from the client.
    pub fn from_client(&mut self, segment: &Segment, now: Instant) -> Decision {
        self.handle(Direction::FromClient, segment, now)
    }

    /// Decides on a segment from a backend. `segment.flow` is the client's view, see [`FiveTuple`].
    pub fn from_backend(&mut self, backend: BackendId, segment: &Segment, now: Instant) -> Decision {
        self.handle(Direction::FromBackend(backend), segment, now)
    }

    /// Decides on a segment from either side.
    pub fn handle(&mut self, from: Direction, segment: &Segment, now: Instant) -> Decision {
        self.expire_flow(&segment.flow, now);
        let decision = match from {
            Direction::FromClient => self.decide_client(segment, now),
            Direction::FromBackend(backend) => self.decide_backend(backend, segment, now),
        };
        self.count(decision);
        decision
    }

    /// Marks a backend up or down; one that is not in the table's list is ignored. Returns the resets to
    /// send at once ([`OnBackendDown::RstNow`], and those of entries that expired).
    pub fn set_health(&mut self, backend: BackendId, health: Health, now: Instant) -> Vec<Reset> {
        let mut resets = self.handle_timeout(now);
        self.pool.set_health(backend, health);
        if self.rule_for(backend) == OnBackendDown::RstNow {
            resets.extend(self.reset_flows_of(backend));
        }
        resets
    }

    /// The health of a backend; `None` if it is not in the table's list.
    pub fn health(&self, backend: BackendId) -> Option<Health> {
        self.pool.health(backend)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.pending_since.or_else(|| self.next_expiry())
    }

    /// Frees the entries that expired by `now`. Returns the resets to send ([`IdleAction::RstBoth`]).
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Reset> {
        while let Some(at) = self.next_expiry()
            && at <= now
        {
            if let Some(&(_, flow)) = self.queue.first() {
                self.expire_flow(&flow, now);
            }
        }
        self.pending_since = None;
        std::mem::take(&mut self.pending)
    }

    /// The entry of a flow.
    pub fn entry(&self, flow: &FiveTuple) -> Option<EntryView> {
        self.entries.peek(flow).map(|entry| view(flow, entry))
    }

    /// All entries, the one refreshed last first.
    pub fn entries(&self) -> impl Iterator<Item = EntryView> {
        self.entries.iter().map(|(flow, entry)| view(flow, entry))
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Removes the entry of a flow, as `conntrack -D` does. Nobody is told.
    pub fn remove(&mut self, flow: &FiveTuple) -> Option<EntryView> {
        let entry = self.take(flow)?;
        Some(view(flow, &entry))
    }

    /// What the table did so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The balancer this table models.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn decide_client(&mut self, segment: &Segment, now: Instant) -> Decision {
        let Some(entry) = self.entries.peek(&segment.flow) else {
            return self.decide_without_entry(segment, now);
        };
        if !segment.flags.is_lone_syn() {
            return self.follow(Direction::FromClient, segment, now);
        }
        let backend = entry.backend;
        if entry.connection.reopens(&self.config) {
            return self.open(segment, now);
        }
        let down = self.is_down(backend);
        let same_flow = self.config.hash.isn && entry.isn == segment.seq && !down;
        match self.config.syn_on_entry {
            _ if same_flow => self.follow_syn(segment, now),
            SynOnEntry::Follow => self.follow_syn(segment, now),
            SynOnEntry::ReselectIfUnhealthy if !down => self.follow_syn(segment, now),
            SynOnEntry::Reselect | SynOnEntry::ReselectIfUnhealthy => self.open(segment, now),
            SynOnEntry::Drop => Decision::Drop(DropReason::SynOnEntry),
            SynOnEntry::Rst => Decision::Reset(Reset::answering(segment, Direction::FromClient)),
        }
    }

    fn decide_backend(&mut self, backend: BackendId, segment: &Segment, now: Instant) -> Decision {
        let from = Direction::FromBackend(backend);
        match self.entries.peek(&segment.flow).map(|entry| entry.backend) {
            Some(owner) if owner == backend => self.follow(from, segment, now),
            Some(_) => Decision::Drop(DropReason::NotItsBackend),
            None => match self.config.reply_without_entry {
                ReplyWithoutEntry::Pass => Decision::ToClient,
                ReplyWithoutEntry::Drop => Decision::Drop(DropReason::NoEntry),
                ReplyWithoutEntry::Rst => answer_with_rst(segment, from, DropReason::NoEntry),
            },
        }
    }

    fn decide_without_entry(&mut self, segment: &Segment, now: Instant) -> Decision {
        match self.config.without_entry {
            _ if segment.flags.is_lone_syn() => self.open(segment, now),
            WithoutEntry::Pickup => self.open(segment, now),
            WithoutEntry::Drop => Decision::Drop(DropReason::NoEntry),
            WithoutEntry::Rst => answer_with_rst(segment, Direction::FromClient, DropReason::NoEntry),
        }
    }

    /// Makes an entry, in place of the one the flow has, if any.
    fn open(&mut self, segment: &Segment, now: Instant) -> Decision {
        let Some(backend) = self.pool.select(&self.config, segment) else {
            return match self.config.on_all_down {
                OnAllDown::Rst => answer_with_rst(segment, Direction::FromClient, DropReason::NoBackend),
                _ => Decision::Drop(DropReason::NoBackend),
            };
        };
        let mut connection = Connection::new();
        match connection.observe(&self.config, segment, Direction::FromClient) {
            Effect::Invalid => return Decision::Drop(DropReason::Invalid),
            Effect::Free => return Decision::Forward { backend },
            Effect::Pass { .. } => {}
        }
        if self.take(&segment.flow).is_some() {
            self.counters.reselected += 1;
        } else if !self.make_room() {
            return Decision::Drop(DropReason::TableFull);
        }
        let queued_at = now + connection.timeout;
        let entry = Entry { backend, connection, isn: segment.seq, idle_since: now, queued_at };
        self.entries.put(segment.flow, entry);
        self.queue.insert((queued_at, segment.flow));
        self.counters.new_flows += 1;
        Decision::Forward { backend }
    }

    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.config.entry_limit.get() {
            return true;
        }
        if self.config.when_full == WhenFull::DropNew {
            return false;
        }
        if let Some((flow, entry)) = self.entries.pop_lru() {
            self.queue.remove(&(entry.queued_at, flow));
            self.counters.evicted += 1;
        }
        true
    }

    fn follow_syn(&mut self, segment: &Segment, now: Instant) -> Decision {
        self.counters.syn_followed += 1;
        self.follow(Direction::FromClient, segment, now)
    }

    /// Treats a segment by the entry of its flow, which must exist.
    fn follow(&mut self, from: Direction, segment: &Segment, now: Instant) -> Decision {
        let Some(owner) = self.entries.peek(&segment.flow).map(|entry| entry.backend) else {
            return Decision::Drop(DropReason::NoEntry);
        };
        match self.rule_for(owner) {
            OnBackendDown::Keep => self.pass(from, segment, now),
            OnBackendDown::Drop => Decision::Drop(DropReason::BackendDown),
            OnBackendDown::RstNow | OnBackendDown::RstOnPacket => {
                self.take(&segment.flow);
                answer_with_rst(segment, from, DropReason::BackendDown)
            }
            OnBackendDown::Divert if from == Direction::FromClient => self.divert(segment, now),
            OnBackendDown::Divert => self.pass(from, segment, now),
        }
    }

    fn divert(&mut self, segment: &Segment, now: Instant) -> Decision {
        let Some(backend) = self.pool.select(&self.config, segment) else {
            return Decision::Drop(DropReason::NoBackend);
        };
        if let Some(entry) = self.entries.peek_mut(&segment.flow) {
            entry.backend = backend;
            self.counters.reselected += 1;
        }
        self.pass(Direction::FromClient, segment, now)
    }

    /// Lets the tracking take note of a segment and forwards it.
    fn pass(&mut self, from: Direction, segment: &Segment, now: Instant) -> Decision {
        let Some(entry) = self.entries.peek_mut(&segment.flow) else {
            return Decision::Drop(DropReason::NoEntry);
        };
        let backend = entry.backend;
        match entry.connection.observe(&self.config, segment, from) {
            Effect::Invalid => return Decision::Drop(DropReason::Invalid),
            Effect::Free => drop(self.take(&segment.flow)),
            Effect::Pass { refresh } => {
                let restarts = refresh && refreshes(self.config.refresh_on, segment, from);
                if restarts {
                    entry.idle_since = now;
                }
                let sooner = entry.expires_at() < entry.queued_at;
                if restarts {
                    self.entries.promote(&segment.flow);
                }
                if sooner {
                    self.requeue(&segment.flow);
                }
            }
        }
        match from {
            Direction::FromClient => Decision::Forward { backend },
            Direction::FromBackend(_) => Decision::ToClient,
        }
    }

    fn is_down(&self, backend: BackendId) -> bool {
        self.pool.health(backend) != Some(Health::Up)
    }

    /// The rule for the flows of a backend, as things stand.
    fn rule_for(&self, backend: BackendId) -> OnBackendDown {
        match self.config.on_all_down {
            _ if !self.is_down(backend) => OnBackendDown::Keep,
            _ if !self.pool.all_down() => self.config.on_backend_down,
            OnAllDown::FailOpen | OnAllDown::Continue => OnBackendDown::Keep,
            OnAllDown::Drop => OnBackendDown::Drop,
            OnAllDown::Rst => OnBackendDown::RstOnPacket,
        }
    }

    fn reset_flows_of(&mut self, backend: BackendId) -> Vec<Reset> {
        let of_backend = |(flow, entry): (&FiveTuple, &Entry)| (entry.backend == backend).then_some(*flow);
        let flows: Vec<FiveTuple> = self.entries.iter().filter_map(of_backend).collect();
        let resets: Vec<Reset> = flows
            .iter()
            .filter_map(|flow| Some(self.take(flow)?.connection.resets(*flow, backend)))
            .flatten()
            .collect();
        self.counters.resets += resets.len() as u64;
        resets
    }

    fn next_expiry(&mut self) -> Option<Instant> {
        while let Some(&(at, flow)) = self.queue.first() {
            let Some(entry) = self.entries.peek(&flow).filter(|entry| entry.queued_at == at) else {
                self.queue.pop_first();
                continue;
            };
            if entry.expires_at() <= at {
                return Some(at);
            }
            self.requeue(&flow);
        }
        None
    }

    fn expire_flow(&mut self, flow: &FiveTuple, now: Instant) {
        if self.entries.peek(flow).is_none_or(|entry| entry.expires_at() > now) {
            return;
        }
        let Some(entry) = self.take(flow) else { return };
        self.counters.expired += 1;
        let room = self.pending.len() / 2 < self.config.entry_limit.get();
        if self.config.idle_action == IdleAction::RstBoth && room {
            self.pending.extend(entry.connection.resets(*flow, entry.backend));
            self.pending_since.get_or_insert(entry.expires_at());
            self.counters.resets += 2;
        }
    }

    fn take(&mut self, flow: &FiveTuple) -> Option<Entry> {
        let entry = self.entries.pop(flow)?;
        self.queue.remove(&(entry.queued_at, *flow));
        Some(entry)
    }

    fn requeue(&mut self, flow: &FiveTuple) {
        if let Some(entry) = self.entries.peek_mut(flow) {
            self.queue.remove(&(entry.queued_at, *flow));
            entry.queued_at = entry.expires_at();
            self.queue.insert((entry.queued_at, *flow));
        }
    }

    fn count(&mut self, decision: Decision) {
        match decision {
            Decision::Forward { .. } => self.counters.forwarded += 1,
            Decision::ToClient => self.counters.to_client += 1,
            Decision::Drop(_) => self.counters.dropped += 1,
            Decision::Reset(_) => self.counters.resets += 1,
        }
    }
}

fn view(flow: &FiveTuple, entry: &Entry) -> EntryView {
    EntryView {
        flow: *flow,
        backend: entry.backend,
        state: entry.connection.state,
        isn: entry.isn,
        idle_since: entry.idle_since,
        expires_at: entry.expires_at(),
    }
}

/// A RST is never answered with a RST (RFC 9293 section 3.5.2).
fn answer_with_rst(segment: &Segment, from: Direction, otherwise: DropReason) -> Decision {
    match segment.flags.contains(TcpFlags::RST) {
        true => Decision::Drop(otherwise),
        false => Decision::Reset(Reset::answering(segment, from)),
    }
}

fn refreshes(rule: RefreshOn, segment: &Segment, from: Direction) -> bool {
    match rule {
        RefreshOn::Any => true,
        RefreshOn::NonSyn => !segment.flags.is_lone_syn(),
        RefreshOn::Replied => matches!(from, Direction::FromBackend(_)),
    }
}

#[cfg(test)]
mod tests;
