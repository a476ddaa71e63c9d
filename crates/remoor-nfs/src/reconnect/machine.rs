//! The machine's face: calls in, replies out, and the dispatch of events and timers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use remoor_rpc::call_table::{CallTable, InsertError, MAX_OUTSTANDING};
use remoor_rpc::record::Record;

use super::attempt::{Candidate, Phase};
use super::config::{Config, ConfigError, Recovery};
use super::event::{Action, Call, CallFailure, CloseReason, ConnId, Event, Terminal, Transmit};
use super::notice::{MoveReason, Notice};
use super::pace::Pace;
use super::port::Ports;
use super::suspect::Health;
use super::timer::{Timer, TimerTable};

/// A connection that ends sooner than this without answering a call was no success: the next attempt backs off, so
/// that a server that accepts, proves and closes is not called in a tight loop.
const LASTING: Duration = Duration::from_secs(1);
/// Entries of the send queue before those of cancelled calls are cleared out.
const MAX_SEND_QUEUE: usize = 2 * MAX_OUTSTANDING;

/// Where a mount's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not connected and not trying.
    Idle,
    /// An attempt waits for the handshake; nothing carries calls.
    Connecting,
    /// A new connection waits for the reply to NULL; nothing carries calls.
    Proving,
    /// Waiting for the next attempt; nothing carries calls.
    BackingOff,
    /// A connection carries calls.
    Ready,
    /// The connection that carries calls is silent; with fresh ports another races it.
    Suspect,
    /// The connection is being left; what it received is read first.
    Draining,
    /// No retry can help.
    Failed,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connection attempts.
    pub attempts: u64,
    /// Times outstanding calls went to another connection.
    pub moves: u64,
    /// Times a connection was suspected.
    pub suspicions: u64,
    /// Suspicions that the connection itself ended by speaking.
    pub false_alarms: u64,
    /// Calls sent again on another connection.
    pub resent: u64,
    /// Calls sent again on the same connection after `timeo`.
    pub retransmitted: u64,
    /// Replies to no outstanding call: duplicates, cancelled calls, unknown xids.
    pub stray_replies: u64,
    /// Events of connections that were abandoned before.
    pub stale_events: u64,
}

/// An outstanding call.
#[derive(Debug)]
pub(super) struct Pending {
    record: Record,
    idempotent: bool,
    queued: bool,
    sends: u32,
    /// When it could first be sent on the present connection.
    since: Instant,
    wait: Duration,
    major_at: Instant,
}

/// The connection that carries calls.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) port: u16,
    pub(super) since: Instant,
    pub(super) last_received: Instant,
    /// Since when it owes a reply, if it does.
    pub(super) owed_since: Instant,
    pub(super) answered: bool,
    /// The xid of an in-band NULL that is not answered yet.
    pub(super) inband: Option<u32>,
    pub(super) health: Health,
}

impl Link {
    /// Since when it has been silent although it owes a reply.
    pub(super) fn silent_since(&self) -> Instant {
        self.last_received.max(self.owed_since)
    }
}

/// The connection left last, until another carries its calls.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) port: u16,
    pub(super) reason: MoveReason,
    pub(super) silent_since: Instant,
}

/// The reconnect machine of one mount and one server address. See the [module](super) for how to drive it.
#[derive(Debug)]
pub struct Machine {
    pub(super) config: Config,
    pub(super) ports: Ports,
    pub(super) pace: Pace,
    pub(super) timers: TimerTable,
    pub(super) calls: CallTable<Pending>,
    pub(super) current: Option<Link>,
    pub(super) candidate: Candidate,
    pub(super) departed: Option<Departed>,
    pub(super) next_conn: u64,
    pub(super) attempts: u32,
    pub(super) ports_in_use: u32,
    pub(super) ever_connected: bool,
    pub(super) counters: Counters,
    /// The server has answered a call before one that was sent earlier on the same connection.
    overtakes: bool,
    terminal: Option<Terminal>,
    not_responding: bool,
    non_idempotent: usize,
    send: VecDeque<u32>,
    probes: VecDeque<Transmit>,
    actions: VecDeque<Action>,
}

impl Machine {
    /// A machine that is not connected. `seed` decides ports, jitter and the first xid; give every mount another.
    /// `excluded_ports` are never used: those in /etc/services and bindresvport.blacklist.
    pub fn new(config: Config, seed: u64, excluded_ports: &[u16]) -> Result<Self, ConfigError> {
        config.validate()?;
        let mut seeds = StdRng::seed_from_u64(seed);
        Ok(Self {
            ports: Ports::new(&config, excluded_ports, seeds.random())?,
            pace: Pace::new(seeds.random()),
            calls: CallTable::new(seeds.random()),
            config,
            timers: TimerTable::default(),
            current: None,
            candidate: Candidate::None,
            departed: None,
            next_conn: 0,
            attempts: 0,
            ports_in_use: 0,
            ever_connected: false,
            counters: Counters::default(),
            overtakes: false,
            terminal: None,
            not_responding: false,
            non_idempotent: 0,
            send: VecDeque::new(),
            probes: VecDeque::new(),
            actions: VecDeque::new(),
        })
    }

    /// Starts connecting; without effect unless [`State::Idle`]. The machine then keeps a connection until
    /// [`Machine::disconnect`], with or without calls.
    pub fn connect(&mut self, now: Instant) {
        if self.state() == State::Idle {
            self.start_attempt(now);
        }
    }

    /// Closes every connection with a FIN and fails what is outstanding.
    pub fn disconnect(&mut self, now: Instant) {
        self.call_off_attempt(now);
        if let Some(link) = self.current.take() {
            self.ports.release(link.port, now);
            self.push(Action::Abandon { conn: link.conn, how: super::Abandon::Fin });
        }
        self.departed = None;
        self.reset_queues();
        self.fail_all(CallFailure::Disconnected);
    }

    /// An xid for the next [`Machine::call`].
    pub fn next_xid(&mut self) -> u32 {
        self.calls.next_xid()
    }

    /// Takes a call; it is sent as soon as a connection carries calls, and again with the same bytes on every
    /// connection that takes over, until it is answered.
    pub fn call(&mut self, now: Instant, call: Call) -> Result<(), InsertError> {
        if let Some(terminal) = self.terminal {
            self.push(Action::Failed { xid: call.xid, error: terminal.into() });
            return Ok(());
        }
        let owed_nothing = self.calls.is_empty();
        let pending = Pending {
            record: call.record,
            idempotent: call.idempotent,
            queued: false,
            sends: 0,
            since: now,
            wait: self.config.timeo,
            major_at: now + self.config.major_timeout(),
        };
        self.calls.insert(call.xid, pending, now + self.config.timeo)?;
        self.non_idempotent += usize::from(!call.idempotent);
        if self.current.is_some() {
            self.enqueue(call.xid);
        }
        if owed_nothing {
            self.owe_from(now);
        }
        Ok(())
    }

    /// Forgets a call; a reply to it is counted and dropped.
    pub fn cancel(&mut self, xid: u32) {
        self.take(xid);
    }

    /// Takes note of what happened on a connection.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Connected { conn, local_port } => self.connected(now, conn, local_port),
            Event::ConnectFailed { conn, error } => self.connect_failed(now, conn, error),
            Event::Received { conn, xid, reply } => self.received(now, conn, xid, reply),
            Event::Progress { conn } if self.is_current(conn) => self.heard(now),
            Event::Closed { conn, how } => self.closed(now, conn, how),
            Event::AckState { conn, ack } if self.is_current(conn) => self.weigh(now, ack),
            Event::Drained { conn } if self.is_current(conn) => self.drained(now),
            Event::Progress { .. } | Event::AckState { .. } | Event::Drained { .. } => self.stale(),
        }
    }

    /// Fires what is due at `now`. Afterwards [`Machine::poll_timeout`] is later than `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_expired(now) {
            match timer {
                Timer::Retry => self.start_attempt(now),
                Timer::Attempt => self.attempt_timed_out(now),
                Timer::Suspicion => self.suspect(now),
                Timer::Evidence => self.look_again(now),
                Timer::Drain => self.drained(now),
            }
        }
        while let Some(xid) = self.calls.pop_expired(now) {
            self.call_timed_out(now, xid);
        }
    }

    /// When [`Machine::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.calls.next_deadline()].into_iter().flatten().min()
    }

    /// The next record to write. A driver takes all there are and queues them per connection, so that a full
    /// socket does not hold up the proof of the connection that is to replace it.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(probe) = self.probes.pop_front() {
            return Some(probe);
        }
        let link = self.current.as_ref().filter(|link| !link.health.is_draining())?;
        while let Some(xid) = self.send.pop_front() {
            if let Some(pending) = self.calls.get_mut(xid).filter(|pending| pending.queued) {
                pending.queued = false;
                pending.sends += 1;
                return Some(Transmit { conn: link.conn, record: pending.record.clone() });
            }
        }
        None
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        match (&self.current, &self.candidate) {
            _ if self.terminal.is_some() => State::Failed,
            (Some(link), _) => link.health.state(),
            (None, Candidate::None) => State::Idle,
            (None, Candidate::Waiting) => State::BackingOff,
            (None, Candidate::Attempt(attempt)) => match attempt.phase {
                Phase::Connecting => State::Connecting,
                Phase::Proving { .. } | Phase::Proven => State::Proving,
            },
        }
    }

    /// Source port of the connection that carries calls.
    pub fn port(&self) -> Option<u16> {
        self.current.as_ref().map(|link| link.port)
    }

    /// The connection that carries calls.
    pub fn conn(&self) -> Option<ConnId> {
        self.current.as_ref().map(|link| link.conn)
    }

    /// Takes `timeo`, `retrans`, `recovery`, `suspect_after`, `suspect_max` and `stuck` from `config`, as a remount does;
    /// ports and the way to leave stay. Outstanding calls begin their timeouts anew.
    pub fn reconfigure(&mut self, now: Instant, config: &Config) -> Result<(), ConfigError> {
        config.validate()?;
        self.config = Config {
            timeo: config.timeo,
            retrans: config.retrans,
            recovery: config.recovery,
            suspect_after: config.suspect_after,
            suspect_max: config.suspect_max,
            stuck: config.stuck,
            ..self.config.clone()
        };
        let (timeo, major_at) = (self.config.timeo, now + self.config.major_timeout());
        let xids: Vec<u32> = self.calls.in_order().collect();
        for xid in xids {
            if let Some(pending) = self.calls.get_mut(xid) {
                (pending.wait, pending.major_at) = (timeo, major_at);
            }
            self.calls.set_deadline(xid, now + timeo);
        }
        self.watch(now);
        Ok(())
    }

    /// Calls not answered yet.
    pub fn outstanding(&self) -> usize {
        self.calls.len()
    }

    /// Smoothed time from call to reply.
    pub fn reply_time(&self) -> Option<Duration> {
        self.pace.reply_time()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.push(Action::Notice(notice));
    }

    pub(super) fn probe(&mut self, conn: ConnId) -> u32 {
        let xid = self.calls.next_xid();
        let record = super::probe::null_call(self.config.program, xid);
        self.probes.push_back(Transmit { conn, record });
        xid
    }

    /// Drops probes that were not written to a connection that is no more.
    pub(super) fn forget_probes(&mut self, conn: ConnId) {
        self.probes.retain(|probe| probe.conn != conn);
    }

    pub(super) fn is_current(&self, conn: ConnId) -> bool {
        self.current.as_ref().is_some_and(|link| link.conn == conn)
    }

    pub(super) fn stale(&mut self) {
        self.counters.stale_events += 1;
    }

    /// Whether an unanswered NULL is reason enough to leave: no outstanding call can do harm by being executed twice, or
    /// the server is known not to keep a NULL waiting for the call before it.
    pub(super) fn may_leave_stuck(&self) -> bool {
        self.config.server_replays || self.non_idempotent == 0 || self.overtakes
    }

    /// Queues every outstanding call, in the order they were made, for the connection that has just taken over.
    /// Returns how many of them were sent before.
    pub(super) fn requeue_all(&mut self, now: Instant) -> usize {
        self.send = self.calls.in_order().collect();
        let mut resent = 0;
        for xid in &self.send {
            if let Some(pending) = self.calls.get_mut(*xid) {
                pending.queued = true;
                pending.since = now;
                resent += usize::from(pending.sends > 0);
            }
        }
        self.counters.resent += resent as u64;
        resent
    }

    /// Gives up for good.
    pub(super) fn fail(&mut self, terminal: Terminal) {
        self.terminal = Some(terminal);
        self.reset_queues();
        self.fail_all(terminal.into());
    }

    fn received(&mut self, now: Instant, conn: ConnId, xid: u32, reply: Bytes) {
        if !self.is_current(conn) {
            return self.received_by_candidate(now, conn, xid, reply);
        }
        match &mut self.current {
            Some(link) if link.inband == Some(xid) => link.inband = None,
            _ => {
                self.overtakes |= self.overtook(xid);
                self.complete(now, xid, reply);
            }
        }
        self.heard(now);
    }

    /// Whether an older call than `xid` was sent and is not answered. Calls are first sent in the order they were made, on
    /// every connection, so a server of one call at a time never answers like this.
    fn overtook(&self, xid: u32) -> bool {
        let oldest = self.calls.in_order().next().filter(|oldest| *oldest != xid);
        let sent = |pending: &Pending| pending.sends > 0 && !pending.queued;
        self.calls.get(xid).is_some() && oldest.and_then(|oldest| self.calls.get(oldest)).is_some_and(sent)
    }

    fn complete(&mut self, now: Instant, xid: u32, reply: Bytes) {
        let Some(pending) = self.take(xid) else {
            self.counters.stray_replies += 1;
            return;
        };
        let sample = (pending.sends == 1).then(|| now.saturating_duration_since(pending.since));
        self.pace.replied(sample);
        if let Some(link) = &mut self.current {
            link.answered = true;
        }
        if std::mem::take(&mut self.not_responding) {
            self.notice(Notice::Ok);
        }
        self.push(Action::Completed { xid, reply });
    }

    fn closed(&mut self, now: Instant, conn: ConnId, how: CloseReason) {
        if !self.is_current(conn) {
            return self.candidate_closed(now, conn, how);
        }
        let Some(link) = self.leave(now, MoveReason::Closed(how)) else { return };
        let lasted = link.answered || now.saturating_duration_since(link.since) >= LASTING;
        if lasted {
            self.pace.lasted();
        }
        self.go_on(now, lasted);
    }

    /// Stops counting on the current connection and remembers why.
    pub(super) fn leave(&mut self, now: Instant, reason: MoveReason) -> Option<Link> {
        let link = self.current.take()?;
        for timer in [Timer::Suspicion, Timer::Evidence, Timer::Drain] {
            self.timers.stop(timer);
        }
        self.forget_probes(link.conn);
        self.send.clear();
        self.ports.release(link.port, now);
        let reason = link.health.verdict().unwrap_or(reason);
        self.departed = Some(Departed { port: link.port, reason, silent_since: link.silent_since() });
        Some(link)
    }

    fn take(&mut self, xid: u32) -> Option<Pending> {
        let pending = self.calls.take(xid)?;
        self.non_idempotent -= usize::from(!pending.idempotent);
        if self.calls.is_empty() {
            self.timers.stop(Timer::Suspicion);
        }
        Some(pending)
    }

    fn enqueue(&mut self, xid: u32) {
        let Some(pending) = self.calls.get_mut(xid).filter(|pending| !pending.queued) else { return };
        pending.queued = true;
        self.send.push_back(xid);
        if self.send.len() > MAX_SEND_QUEUE {
            let calls = &self.calls;
            self.send.retain(|xid| calls.get(*xid).is_some_and(|pending| pending.queued));
        }
    }

    /// nfs(5) over TCP: after `timeo` the call is sent again on the live connection with the same xid and the next
    /// wait is longer by `timeo`; after `timeo * (retrans + 1)` it fails, or a hard mount says so and starts over.
    fn call_timed_out(&mut self, now: Instant, xid: u32) {
        let timeo = self.config.timeo;
        let Some(pending) = self.calls.get_mut(xid) else { return };
        if pending.major_at <= now {
            return self.major_timeout(now, xid);
        }
        pending.wait += timeo;
        let deadline = (now + pending.wait).min(pending.major_at);
        self.calls.set_deadline(xid, deadline);
        self.retransmit(xid);
    }

    fn major_timeout(&mut self, now: Instant, xid: u32) {
        let major = self.config.major_timeout();
        match self.config.recovery {
            Recovery::Hard => self.keep_trying(now, xid),
            Recovery::Soft => self.give_up(xid, CallFailure::Soft(major)),
            Recovery::SoftErr => self.give_up(xid, CallFailure::SoftErr(major)),
        }
    }

    fn keep_trying(&mut self, now: Instant, xid: u32) {
        if !std::mem::replace(&mut self.not_responding, true) {
            self.notice(Notice::NotResponding);
        }
        if let Some(pending) = self.calls.get_mut(xid) {
            pending.wait = self.config.timeo;
            pending.major_at = now + self.config.major_timeout();
        }
        self.calls.set_deadline(xid, now + self.config.timeo);
        self.retransmit(xid);
    }

    fn give_up(&mut self, xid: u32, error: CallFailure) {
        self.take(xid);
        self.push(Action::Failed { xid, error });
    }

    /// Only a connection that is heard from is worth a second sending: a silent one has the first in its buffers
    /// still, and would fill them for ever.
    fn retransmit(&mut self, xid: u32) {
        if self.state() == State::Ready {
            self.counters.retransmitted += 1;
            self.enqueue(xid);
        }
    }

    fn reset_queues(&mut self) {
        self.timers.stop_all();
        self.send.clear();
        self.probes.clear();
    }

    fn fail_all(&mut self, error: CallFailure) {
        let xids: Vec<u32> = self.calls.in_order().collect();
        for xid in xids {
            self.give_up(xid, error);
        }
    }
}
