//! The machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::{Config, MAX_TWINS};
use super::counters::{Counters, Replayed};
use super::entry::{Entry, EntryId, Owners, State};
use super::hold::{Hold, Holds};
use super::key::{ClientId, Key};
use super::rule::{ConnectionId, End, Judgement, Question, Standing, judge};
use super::shelf::Shelf;

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The connection.
    pub conn: ConnectionId,
    /// The client's port, which decides nothing and is only counted.
    pub port: u16,
}

/// An entry of the cache. Of no effect once the entry is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) EntryId);

impl Ticket {
    /// As a number, below 2^56 for as long as a server lives.
    pub fn number(self) -> u64 {
        self.0
    }

    /// From [`Ticket::number`].
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// What to do with a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<C> {
    /// Execute it, then [`ReplyCache::finish`] or [`ReplyCache::abandon`].
    Execute(Ticket, C),
    /// Send this on the connection the call came on, then [`ReplyCache::sent`].
    Replay(Ticket, Bytes),
    /// Nothing: the call is answered by an [`Action`], unless its connection ends.
    Wait,
    /// Nothing: it came before on this connection, and the answer to that is on its way.
    Awaited,
    /// The cache is full of what it must not forget. Reset the connection, so that the client comes again.
    Refuse(C),
}

/// What to do with a call that had to wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<C> {
    /// As [`Verdict::Execute`].
    Execute(Ticket, C),
    /// Make the kernel ask this connection's peer whether it lives, as soon as it has been silent for
    /// [`super::PROBE_IDLE`] (Linux: `TCP_KEEPIDLE`).
    Probe(ConnectionId),
    /// Send this on this connection, then [`ReplyCache::sent`].
    Replay {
        /// The call that waited.
        call: C,
        /// Where to.
        conn: ConnectionId,
        /// For [`ReplyCache::sent`].
        ticket: Ticket,
        /// What.
        reply: Bytes,
    },
}

/// Replies to calls that must not be executed twice. `C` is what the driver needs to execute a call later.
#[derive(Debug)]
pub struct ReplyCache<C> {
    pub(super) config: Config,
    pub(super) entries: BTreeMap<EntryId, Entry>,
    /// Entries by key, the oldest first.
    index: BTreeSet<(Key, EntryId)>,
    pub(super) owners: Owners,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) shelf: Shelf,
    pub(super) reply_bytes: usize,
    pub(super) counters: Counters,
    /// Entries in progress.
    running: usize,
    holds: Holds<C>,
    actions: VecDeque<Action<C>>,
    next: EntryId,
}

/// A client that has entries.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) entries: usize,
    pub(super) shelf: Shelf,
}

/// What all entries with a call's key say of it.
enum Decision {
    /// In progress on this very connection.
    Awaited,
    Replay(EntryId, Replayed),
    New,
    Look(Option<Instant>),
}

/// What the kernel knows of a connection.
type Probe<'a> = &'a dyn Fn(ConnectionId) -> Standing;

impl<C> ReplyCache<C> {
    /// An empty cache.
    pub fn new(config: Config) -> Self {
        Self {
            config: config.sound(),
            running: 0,
            entries: BTreeMap::new(),
            index: BTreeSet::new(),
            owners: Owners::default(),
            clients: BTreeMap::new(),
            shelf: Shelf::default(),
            reply_bytes: 0,
            counters: Counters::default(),
            holds: Holds::default(),
            actions: VecDeque::new(),
            next: 0,
        }
    }

    /// A call came, of a procedure that [`super::is_kept`].
    pub fn call(&mut self, now: Instant, caller: Caller, key: Key, call: C, probe: Probe<'_>) -> Verdict<C> {
        if self.holds.len() > 0 && self.holds.repeated(&key, caller.conn) {
            self.review(now, &key, probe);
            return self.await_reply();
        }
        let question = Question { now, since: now, asked: 1, forced: false };
        match self.decide(question, caller, &key, probe) {
            Decision::Awaited => self.await_reply(),
            Decision::Replay(id, how) => self.answer_at_once(now, id, caller, how),
            Decision::New => self.begin_or_refuse(now, caller, key, call, probe),
            Decision::Look(at) => self.hold(now, caller, key, call, at, probe),
        }
    }

    /// A call was executed and its reply accepted at the RPC level. `sent` is where the reply ends in the stream of replies
    /// of the connection the call came on, if it was written there already.
    pub fn finish(
        &mut self,
        now: Instant,
        ticket: Ticket,
        reply: Bytes,
        sent: Option<u64>,
        probe: Probe<'_>,
    ) {
        let Some(entry) = self.entries.get_mut(&ticket.0) else { return };
        if !matches!(entry.state, State::Running) {
            return;
        }
        self.running -= 1;
        self.reply_bytes += reply.len();
        let key = entry.key;
        (entry.state, entry.end) = (State::Done(reply), sent);
        (entry.touched, entry.shelved) = (now, now);
        self.shelve(ticket.0, key.client());
        self.wake(now, &key, probe);
        self.limit_bytes(now, probe);
    }

    /// A call was not executed, or failed at the RPC level: it is not kept, and whoever waits for it is next.
    pub fn abandon(&mut self, now: Instant, ticket: Ticket, probe: Probe<'_>) {
        if let Some(entry) = self.remove(ticket.0) {
            self.counters.abandoned += 1;
            self.wake(now, &entry.key, probe);
        }
    }

    /// A reply was written to this connection and ends here in its stream of replies.
    pub fn sent(&mut self, ticket: Ticket, conn: ConnectionId, end: u64) {
        if let Some(entry) = self.entries.get_mut(&ticket.0)
            && entry.owner == conn
        {
            entry.end.get_or_insert(end);
        }
    }

    /// A connection ended. Calls that wait on it are dropped.
    pub fn ended(&mut self, now: Instant, conn: ConnectionId, end: End, probe: Probe<'_>) {
        self.owners.ended(conn, end);
        self.holds.forget(conn);
        for key in self.holds.keys(|_| true) {
            self.review(now, &key, probe);
        }
    }

    /// When [`ReplyCache::handle_timeout`] is to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.holds.next_look().into_iter().chain(self.next_expiry()).min()
    }

    /// Looks at held calls whose time has come, and forgets old replies.
    pub fn handle_timeout(&mut self, now: Instant, probe: Probe<'_>) {
        for key in self.holds.keys(|h| h.look.is_some_and(|at| at <= now)) {
            self.review(now, &key, probe);
        }
        self.expire(now);
    }

    /// The next thing to do for a call that had to wait.
    pub fn poll(&mut self) -> Option<Action<C>> {
        self.actions.pop_front()
    }

    /// Counts so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Entries now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Calls held now.
    pub fn held(&self) -> usize {
        self.holds.len()
    }

    fn await_reply(&mut self) -> Verdict<C> {
        self.counters.in_progress += 1;
        Verdict::Awaited
    }

    fn refuse(&mut self, call: C) -> Verdict<C> {
        self.counters.refused += 1;
        Verdict::Refuse(call)
    }

    fn hold(
        &mut self,
        now: Instant,
        caller: Caller,
        key: Key,
        call: C,
        look: Option<Instant>,
        probe: Probe<'_>,
    ) -> Verdict<C> {
        if self.holds.len() >= self.config.held_calls.max(1) && !self.force_one(now, probe) {
            return self.refuse(call);
        }
        self.counters.held += 1;
        self.holds.push(now, key, caller, call, look);
        Verdict::Wait
    }

    /// Decides the longest held call that can be decided; false if each waits for a call in progress.
    fn force_one(&mut self, now: Instant, probe: Probe<'_>) -> bool {
        let held = self.holds.len();
        for key in self.holds.keys(|_| true) {
            self.review_as(now, &key, true, probe);
            if self.holds.len() < held {
                self.counters.forced += 1;
                return true;
            }
        }
        false
    }

    /// Entries with this key, the newest first.
    fn twins(&self, key: &Key) -> impl Iterator<Item = EntryId> {
        self.index.range((*key, 0)..=(*key, EntryId::MAX)).rev().map(|(_, id)| *id)
    }

    fn decide(&mut self, question: Question, caller: Caller, key: &Key, probe: Probe<'_>) -> Decision {
        let twins: Vec<EntryId> = self.twins(key).collect();
        let known = twins.iter().find(|id| self.entries[id].knows(caller.conn));
        if let Some(id) = known {
            return match self.entries[id].state {
                State::Running => Decision::Awaited,
                State::Done(_) => Decision::Replay(*id, Replayed::SameConnection),
            };
        }
        let (mut decision, apart) = (Decision::New, !twins.is_empty());
        for id in twins {
            match self.judge(question, id, probe) {
                Judgement::Replay { inferred } => return self.replay_to(id, caller, inferred),
                Judgement::Look(at) => decision = sooner(decision, at),
                Judgement::Probe(at) => {
                    self.actions.push_back(Action::Probe(self.entries[&id].owner));
                    decision = sooner(decision, Some(at));
                }
                Judgement::New { settled: true } => drop(self.remove(id)),
                Judgement::New { settled: false } => {}
            }
        }
        self.counters.told_apart += u64::from(apart && matches!(decision, Decision::New));
        decision
    }

    fn judge(&mut self, question: Question, id: EntryId, probe: Probe<'_>) -> Judgement {
        let entry = &self.entries[&id];
        let standing = match entry.state {
            State::Running => Standing::Open { acked: None, retransmits: 0, silent: Duration::ZERO },
            State::Done(_) => self.owners.standing(entry.owner, probe),
        };
        judge(&self.config, entry, standing, question)
    }

    fn replay_to(&self, id: EntryId, caller: Caller, inferred: bool) -> Decision {
        let how = match self.entries[&id].port == caller.port {
            _ if inferred => Replayed::Inferred,
            true => Replayed::SamePort,
            false => Replayed::OtherPort,
        };
        Decision::Replay(id, how)
    }

    fn begin_or_refuse(
        &mut self,
        now: Instant,
        caller: Caller,
        key: Key,
        call: C,
        probe: Probe<'_>,
    ) -> Verdict<C> {
        match self.begin(now, caller, key, probe) {
            Some(ticket) => Verdict::Execute(ticket, call),
            None => self.refuse(call),
        }
    }

    /// Makes the entry before the call executes, so that its twin finds it.
    fn begin(&mut self, now: Instant, caller: Caller, key: Key, probe: Probe<'_>) -> Option<Ticket> {
        let twins: Vec<EntryId> = self.twins(&key).collect();
        twins.get(MAX_TWINS - 1..).unwrap_or_default().iter().for_each(|id| drop(self.remove(*id)));
        if !self.make_room(now, key.client(), probe) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.index.insert((key, id));
        self.owners.add(caller.conn);
        self.clients.entry(key.client()).or_default().entries += 1;
        self.entries.insert(id, Entry::new(now, key, caller.conn, caller.port));
        self.running += 1;
        self.counters.executed += 1;
        Some(Ticket(id))
    }

    /// Hands an entry over to the connection the call came on now, and to those that waited for the same.
    fn answer_at_once(&mut self, now: Instant, id: EntryId, caller: Caller, how: Replayed) -> Verdict<C> {
        let key = self.entries[&id].key;
        if how != Replayed::SameConnection {
            self.answer_held(now, id, &key, how);
        }
        match self.hand_over(now, id, caller, how) {
            Some(reply) => Verdict::Replay(Ticket(id), reply),
            None => self.await_reply(),
        }
    }

    fn hand_over(&mut self, now: Instant, id: EntryId, caller: Caller, how: Replayed) -> Option<Bytes> {
        let entry = self.entries.get_mut(&id)?;
        let State::Done(reply) = &entry.state else { return None };
        let reply = reply.clone();
        let before = entry.hand_over(now, caller.conn, caller.port);
        self.owners.add(caller.conn);
        self.owners.remove(before);
        self.counters.replayed(how);
        Some(reply)
    }

    /// The newest connection comes last, and so becomes the entry's owner.
    fn answer_held(&mut self, now: Instant, id: EntryId, key: &Key, how: Replayed) {
        while let Some(hold) = self.holds.take(key) {
            let Some(reply) = self.hand_over(now, id, hold.caller, how) else { return };
            let Hold { caller: Caller { conn, .. }, call, .. } = hold;
            self.actions.push_back(Action::Replay { call, conn, ticket: Ticket(id), reply });
        }
    }

    /// A call is over: what waited for it is judged from now on.
    fn wake(&mut self, now: Instant, key: &Key, probe: Probe<'_>) {
        if self.holds.len() > 0 {
            self.holds.begin_anew(now, key);
            self.review(now, key, probe);
        }
    }

    /// Looks at the calls held with a key. The longest held is executed first if it is new work: if it is a client's
    /// forsaken connection, the reply that stays unacknowledged there shows it before a newer one is executed too.
    fn review(&mut self, now: Instant, key: &Key, probe: Probe<'_>) {
        self.review_as(now, key, false, probe);
    }

    fn review_as(&mut self, now: Instant, key: &Key, forced: bool, probe: Probe<'_>) {
        let Some(hold) = self.holds.first(key) else { return };
        let (question, caller) = (Question { forced, ..hold.question(now) }, hold.caller);
        match self.decide(question, caller, key, probe) {
            Decision::Replay(id, how) => self.answer_held(now, id, key, how),
            Decision::New => self.execute_held(now, key, probe),
            Decision::Look(at) => self.holds.look_again(key, at),
            Decision::Awaited => self.holds.look_again(key, None),
        }
    }

    fn execute_held(&mut self, now: Instant, key: &Key, probe: Probe<'_>) {
        let Some(caller) = self.holds.first(key).map(|hold| hold.caller) else { return };
        // Else one of those in progress will end; see `Config::least_entries`.
        let begins = self.running < self.config.most_begun();
        let Some(ticket) = begins.then(|| self.begin(now, caller, *key, probe)).flatten() else {
            return self.holds.look_again(key, Some(now + super::HOLD_LOOK));
        };
        self.holds.look_again(key, None);
        if let Some(hold) = self.holds.take(key) {
            self.actions.push_back(Action::Execute(ticket, hold.call));
        }
    }

    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.running -= usize::from(matches!(entry.state, State::Running));
        self.index.remove(&(entry.key, id));
        self.owners.remove(entry.owner);
        self.reply_bytes -= entry.bytes();
        self.leave(entry.key.client());
        Some(entry)
    }

    fn leave(&mut self, id: ClientId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.entries -= 1;
        if client.entries == 0 {
            self.clients.remove(&id);
        }
    }
}

/// A call waits until all its twins have been judged; it is looked at when the first of them may have changed.
fn sooner(decision: Decision, at: Option<Instant>) -> Decision {
    match decision {
        Decision::Look(other) => Decision::Look(other.into_iter().chain(at).min()),
        _ => Decision::Look(at),
    }
}
