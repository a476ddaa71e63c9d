//! Attempts: from a port to a connection that has answered NULL.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::config::{Abandon, Rebind};
use super::event::{Action, AttemptError, CloseReason, ConnId, ConnectError, Terminal};
use super::machine::{Link, Machine};
use super::notice::Notice;
use super::suspect::Health;
use super::timer::Timer;

/// Attempts in a row that may find their port in use before the machine backs off.
const PORTS_IN_USE_IN_A_ROW: u32 = 32;
/// Times `rebind=same` tries its port again, with back-off, before it takes another of the range. With
/// net.ipv4.tcp_timestamps=0 the port stays unusable for the 60 s of TIME_WAIT, which is not worth waiting for.
const SAME_PORT_RETRIES: u32 = 5;

/// The connection that may take over.
#[derive(Debug)]
pub(super) enum Candidate {
    None,
    /// The next attempt starts at [`Timer::Retry`].
    Waiting,
    Attempt(Attempt),
}

/// One SYN series from one port, and the connection it makes.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) conn: ConnId,
    pub(super) port: u16,
    /// When the present phase began.
    pub(super) since: Instant,
    pub(super) phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    /// NULL with this xid is not answered yet.
    Proving {
        xid: u32,
    },
    /// Usable, while the suspect connection is still given its chance.
    Proven,
}

impl Machine {
    pub(super) fn start_attempt(&mut self, now: Instant) {
        let Some(choice) = self.ports.choose(now) else {
            self.wait_for_retry(now);
            return;
        };
        if let Some(unused_for) = choice.reused_after {
            self.notice(Notice::PortExhausted { port: choice.port, unused_for });
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.attempts = self.attempts.saturating_add(1);
        self.counters.attempts += 1;
        self.candidate =
            Candidate::Attempt(Attempt { conn, port: choice.port, since: now, phase: Phase::Connecting });
        self.timers.set(Timer::Attempt, now + self.pace.attempt_timeout(&self.config));
        self.push(Action::Connect { conn, port: choice.port, attempt: self.attempts });
    }

    pub(super) fn connected(&mut self, now: Instant, conn: ConnId, local_port: u16) {
        let Some(attempt) = self.candidate.attempt(conn).filter(|attempt| attempt.phase == Phase::Connecting)
        else {
            return self.stale();
        };
        if attempt.port != local_port {
            self.push(Action::Abandon { conn, how: Abandon::Reset });
            return self.attempt_failed(now, conn, AttemptError::WrongPort(local_port));
        }
        let round_trip = now.saturating_duration_since(attempt.since);
        self.pace.connected(round_trip);
        self.timers.set(Timer::Attempt, now + self.pace.attempt_timeout(&self.config));
        let xid = self.probe(conn);
        if let Some(attempt) = self.candidate.attempt(conn) {
            attempt.since = now;
            attempt.phase = Phase::Proving { xid };
        }
    }

    pub(super) fn connect_failed(&mut self, now: Instant, conn: ConnId, error: ConnectError) {
        let Some(attempt) = self.candidate.attempt(conn).filter(|attempt| attempt.phase == Phase::Connecting)
        else {
            return self.stale();
        };
        let port = attempt.port;
        match error {
            ConnectError::PermissionDenied if self.config.range.is_reserved() && !self.ever_connected => {
                self.take_attempt(now);
                self.fail(Terminal::NoReservedPort { port });
            }
            ConnectError::PortInUse => self.port_in_use(now, conn),
            _ => self.attempt_failed(now, conn, error.into()),
        }
    }

    pub(super) fn received_by_candidate(&mut self, now: Instant, conn: ConnId, xid: u32, reply: Bytes) {
        match self.candidate.attempt(conn) {
            Some(attempt) if attempt.phase == (Phase::Proving { xid }) => self.answered(now, conn, reply),
            Some(_) => self.counters.stray_replies += 1,
            None => self.stale(),
        }
    }

    pub(super) fn candidate_closed(&mut self, now: Instant, conn: ConnId, how: CloseReason) {
        match self.candidate.attempt(conn) {
            Some(_) => self.attempt_failed(now, conn, how.into()),
            None => self.stale(),
        }
    }

    /// The attempt is given up and the next begins at once: the time it had is pause enough.
    pub(super) fn attempt_timed_out(&mut self, now: Instant) {
        let waited = self.pace.attempt_timeout(&self.config);
        let Some(attempt) = self.take_attempt(now) else { return };
        self.pace.attempt_timed_out();
        self.push(Action::Abandon { conn: attempt.conn, how: self.config.abandon });
        self.notice(Notice::AttemptTimedOut { port: attempt.port, waited });
        self.start_attempt(now);
    }

    /// Ends the race, or the attempt to connect, without prejudice to the server.
    pub(super) fn call_off_attempt(&mut self, now: Instant) {
        if let Some(attempt) = self.take_attempt(now) {
            self.push(Action::Abandon { conn: attempt.conn, how: Abandon::Fin });
        }
        self.timers.stop(Timer::Retry);
        self.candidate = Candidate::None;
    }

    /// With no connection in use: takes the proven one, lets a running attempt run, or starts one.
    pub(super) fn go_on(&mut self, now: Instant, at_once: bool) {
        match &self.candidate {
            Candidate::Attempt(attempt) if attempt.phase == Phase::Proven => self.adopt(now),
            Candidate::Attempt(_) | Candidate::Waiting => {}
            Candidate::None if at_once => self.start_attempt(now),
            Candidate::None => {
                self.wait_for_retry(now);
            }
        }
    }

    /// The proven candidate carries calls from here on, beginning with all that are outstanding.
    pub(super) fn adopt(&mut self, now: Instant) {
        let Candidate::Attempt(attempt) = std::mem::replace(&mut self.candidate, Candidate::None) else {
            return;
        };
        self.current = Some(Link {
            conn: attempt.conn,
            port: attempt.port,
            since: now,
            last_received: now,
            owed_since: now,
            answered: false,
            inband: None,
            health: Health::Good,
        });
        let resent = self.requeue_all(now);
        self.announce(now, attempt.port, resent);
        self.attempts = 0;
        self.ever_connected = true;
        self.watch(now);
    }

    fn announce(&mut self, now: Instant, to_port: u16, resent: usize) {
        let Some(left) = self.departed.take() else {
            return self.notice(Notice::Mounted { port: to_port, attempts: self.attempts });
        };
        self.counters.moves += 1;
        let gap = now.saturating_duration_since(left.silent_since);
        self.notice(Notice::Moved { from_port: left.port, to_port, reason: left.reason, gap, resent });
    }

    fn answered(&mut self, now: Instant, conn: ConnId, reply: Bytes) {
        if !super::probe::proves(reply) {
            self.push(Action::Abandon { conn, how: Abandon::Fin });
            return self.attempt_failed(now, conn, AttemptError::NotServed);
        }
        self.timers.stop(Timer::Attempt);
        self.ports_in_use = 0;
        if let Some(attempt) = self.candidate.attempt(conn) {
            let sample = now.saturating_duration_since(attempt.since);
            attempt.phase = Phase::Proven;
            self.pace.proven(sample);
        }
        match &self.current {
            None => self.adopt(now),
            Some(link) => {
                let conn = link.conn;
                self.push(Action::QueryAck { conn });
            }
        }
    }

    fn attempt_failed(&mut self, now: Instant, conn: ConnId, error: AttemptError) {
        self.forget_probes(conn);
        let Some(attempt) = self.take_attempt(now) else { return };
        let retry_in = self.wait_for_retry(now);
        self.notice(Notice::AttemptFailed { port: attempt.port, error, retry_in });
    }

    /// A port that somebody else holds says nothing about the server. `fresh` takes the next; `same` insists on a
    /// port that a reply cache may know, but not on one it never used.
    fn port_in_use(&mut self, now: Instant, conn: ConnId) {
        self.ports_in_use += 1;
        let insists = self.config.rebind == Rebind::Same && self.ever_connected;
        match (insists, self.ports_in_use) {
            (true, ..=SAME_PORT_RETRIES) => self.attempt_failed(now, conn, ConnectError::PortInUse.into()),
            (false, ..=PORTS_IN_USE_IN_A_ROW) => self.change_port(now),
            (true, _) => {
                self.ports_in_use = 0;
                self.change_port(now);
            }
            (false, _) => {
                self.ports_in_use = 0;
                self.ports.forget_kept();
                self.attempt_failed(now, conn, ConnectError::PortInUse.into());
            }
        }
    }

    fn change_port(&mut self, now: Instant) {
        let Some(attempt) = self.take_attempt(now) else { return };
        self.ports.forget_kept();
        self.start_attempt(now);
        if let Candidate::Attempt(next) = &self.candidate {
            let (from_port, to_port) = (attempt.port, next.port);
            self.notice(Notice::PortChanged { from_port, to_port });
        }
    }

    fn wait_for_retry(&mut self, now: Instant) -> Duration {
        let delay = self.pace.next_backoff(&self.config);
        self.candidate = Candidate::Waiting;
        self.timers.set(Timer::Retry, now + delay);
        delay
    }

    /// Ends the attempt in the books; the caller says what becomes of its socket.
    fn take_attempt(&mut self, now: Instant) -> Option<Attempt> {
        let Candidate::Attempt(_) = self.candidate else { return None };
        let Candidate::Attempt(attempt) = std::mem::replace(&mut self.candidate, Candidate::None) else {
            return None;
        };
        self.timers.stop(Timer::Attempt);
        self.ports.release(attempt.port, now);
        self.forget_probes(attempt.conn);
        Some(attempt)
    }
}

impl Candidate {
    pub(super) fn attempt(&mut self, conn: ConnId) -> Option<&mut Attempt> {
        match self {
            Self::Attempt(attempt) if attempt.conn == conn => Some(attempt),
            _ => None,
        }
    }

    pub(super) fn is_proven(&self) -> bool {
        matches!(self, Self::Attempt(attempt) if attempt.phase == Phase::Proven)
    }
}
