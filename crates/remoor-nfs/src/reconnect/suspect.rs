//! Doubt: telling a dead path, a stuck server and a slow one apart, and leaving the first two.

use std::time::{Duration, Instant};

use super::config::{INTERVAL_MIN, Rebind};
use super::event::{AckState, Action};
use super::machine::{Machine, State};
use super::notice::{MoveReason, Notice};
use super::timer::Timer;

/// Least time between two looks at a suspect connection.
const EVIDENCE_MIN: Duration = Duration::from_millis(100);
/// Longest time between two looks at a suspect connection.
const EVIDENCE_MAX: Duration = Duration::from_secs(1);
/// What the driver may take to read what has already arrived.
const DRAIN_LIMIT: Duration = Duration::from_millis(250);

/// How far the connection in use is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Good,
    /// Asked in-band at `asked_at`, no byte since.
    Suspect {
        asked_at: Instant,
    },
    /// Condemned; `heard` says whether reading what had arrived found anything.
    Draining {
        reason: MoveReason,
        heard: bool,
    },
}

impl Health {
    pub(super) fn state(self) -> State {
        match self {
            Self::Good => State::Ready,
            Self::Suspect { .. } => State::Suspect,
            Self::Draining { .. } => State::Draining,
        }
    }

    pub(super) fn is_draining(self) -> bool {
        matches!(self, Self::Draining { .. })
    }

    pub(super) fn verdict(self) -> Option<MoveReason> {
        if let Self::Draining { reason, .. } = self { Some(reason) } else { None }
    }
}

impl Machine {
    /// The first outstanding call was made: the connection owes a reply from now on.
    pub(super) fn owe_from(&mut self, now: Instant) {
        if let Some(link) = &mut self.current {
            link.owed_since = now;
            self.watch(now);
        }
    }

    /// Keeps [`Timer::Suspicion`] at the end of the silence that is allowed.
    pub(super) fn watch(&mut self, now: Instant) {
        let Some(link) = self.current.as_ref().filter(|link| link.health == Health::Good) else { return };
        if self.calls.is_empty() {
            return self.timers.stop(Timer::Suspicion);
        }
        let due = link.silent_since() + self.pace.suspect_after(&self.config);
        self.timers.set(Timer::Suspicion, due.max(now + INTERVAL_MIN));
    }

    /// Bytes arrived on the connection in use.
    pub(super) fn heard(&mut self, now: Instant) {
        let Some(link) = &mut self.current else { return };
        let silent_since = link.silent_since();
        link.last_received = now;
        match &mut link.health {
            Health::Good => self.watch(now),
            Health::Suspect { .. } => self.clear(now, silent_since),
            Health::Draining { heard, .. } => *heard = true,
        }
    }

    pub(super) fn suspect(&mut self, now: Instant) {
        let Some(link) = &mut self.current else { return };
        link.health = Health::Suspect { asked_at: now };
        let (conn, port, asked) = (link.conn, link.port, link.inband.is_some());
        let silent_for = now.saturating_duration_since(link.silent_since());
        self.counters.suspicions += 1;
        self.notice(Notice::Suspected { port, silent_for });
        if !asked {
            let xid = self.probe(conn);
            self.set_inband(xid);
        }
        self.look_again(now);
        if self.config.rebind == Rebind::Fresh {
            self.start_attempt(now);
        }
    }

    /// Asks for evidence, now and again later; sooner if the stuck rule ends sooner.
    pub(super) fn look_again(&mut self, now: Instant) {
        let Some(link) = &self.current else { return };
        let Health::Suspect { asked_at } = link.health else { return };
        let conn = link.conn;
        let pause = (now.saturating_duration_since(asked_at) / 2).clamp(EVIDENCE_MIN, EVIDENCE_MAX);
        let stuck_at = asked_at + self.pace.stuck_after(&self.config, self.may_leave_stuck());
        let next = if stuck_at > now { stuck_at.min(now + pause) } else { now + pause };
        self.timers.set(Timer::Evidence, next);
        self.push(Action::QueryAck { conn });
    }

    /// Decides on fresh evidence whether the suspect connection is to be left. With fresh ports only a proven
    /// connection is worth leaving for; with the same port there is none before the old one is gone.
    pub(super) fn weigh(&mut self, now: Instant, ack: AckState) {
        let Some(link) = &self.current else { return };
        let Health::Suspect { asked_at } = link.health else { return };
        let Some(reason) = self.verdict(now, asked_at, ack) else { return };
        if self.config.rebind == Rebind::Same || self.candidate.is_proven() {
            self.condemn(now, reason);
        }
    }

    /// The driver has read what had arrived, or did not say so in time.
    pub(super) fn drained(&mut self, now: Instant) {
        let Some(link) = &self.current else { return };
        let Health::Draining { reason, heard } = link.health else { return self.stale() };
        let alive_after_all = heard && reason == MoveReason::Stuck;
        let raced_in_vain = self.config.rebind == Rebind::Fresh && !self.candidate.is_proven();
        self.timers.stop(Timer::Drain);
        if alive_after_all {
            let silent_since = link.silent_since();
            self.clear(now, silent_since);
        } else if raced_in_vain {
            self.doubt_again(now);
        } else {
            self.abandon(now, reason);
        }
    }

    fn verdict(&self, now: Instant, asked_at: Instant, ack: AckState) -> Option<MoveReason> {
        let stuck_after = self.pace.stuck_after(&self.config, self.may_leave_stuck());
        let dead_after = self.pace.path_dead_after(&self.config);
        match ack.unacked_for {
            Some(age) => (age >= dead_after && ack.retransmits > 0).then_some(MoveReason::PathDead),
            None => (now.saturating_duration_since(asked_at) >= stuck_after).then_some(MoveReason::Stuck),
        }
    }

    fn condemn(&mut self, now: Instant, reason: MoveReason) {
        let Some(link) = &mut self.current else { return };
        link.health = Health::Draining { reason, heard: false };
        let conn = link.conn;
        self.timers.stop(Timer::Evidence);
        self.timers.set(Timer::Drain, now + DRAIN_LIMIT);
        self.push(Action::Drain { conn });
    }

    /// The connection spoke: it stays, and the next suspicion takes longer to arise.
    fn clear(&mut self, now: Instant, silent_since: Instant) {
        let Some(link) = &mut self.current else { return };
        link.health = Health::Good;
        let port = link.port;
        self.timers.stop(Timer::Evidence);
        self.call_off_attempt(now);
        self.attempts = 0;
        self.pace.false_alarm();
        self.counters.false_alarms += 1;
        self.notice(Notice::Cleared { port, silent_for: now.saturating_duration_since(silent_since) });
        self.watch(now);
    }

    /// The proven connection was lost while the old one was drained.
    fn doubt_again(&mut self, now: Instant) {
        if let Some(link) = &mut self.current {
            link.health = Health::Suspect { asked_at: now };
        }
        self.look_again(now);
    }

    fn abandon(&mut self, now: Instant, reason: MoveReason) {
        self.pace.left(reason);
        let Some(link) = self.leave(now, reason) else { return };
        self.push(Action::Abandon { conn: link.conn, how: self.config.abandon });
        self.go_on(now, true);
    }

    fn set_inband(&mut self, xid: u32) {
        if let Some(link) = &mut self.current {
            link.inband = Some(xid);
        }
    }
}
