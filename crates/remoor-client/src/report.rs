//! What a driver tells of its connection: the log, the observer, the standing and the list of reconnects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use remoor_nfs::reconnect::{AttemptError, CallFailure, Machine, Notice, State};
use tokio::sync::watch;

use crate::lane::{Failures, Standing};
use crate::stats::{Reconnect, Stats, unix_ms};
use crate::target::Addresses;

/// Is told everything the machine notices, with the time.
pub type Observer = Arc<dyn Fn(Instant, &Notice) + Send + Sync>;

/// How a connection came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The server's address.
    pub(crate) address: SocketAddr,
    /// Attempts until then, 1 for the first.
    pub(crate) attempt: u32,
}

pub(crate) struct Report {
    /// Which connection of the client, from 0.
    index: usize,
    addresses: Arc<Addresses>,
    stats: Arc<Stats>,
    standing: Arc<Standing>,
    failures: watch::Sender<Failures>,
    observer: Observer,
    /// Where the connection that carries calls goes, or the last that did.
    address: Option<SocketAddr>,
    /// A soft mount's calls have failed, and none was answered since.
    timed_out: bool,
    /// The standing is to be told anew.
    news: bool,
}

impl Report {
    pub(crate) fn new(
        index: usize,
        addresses: Arc<Addresses>,
        stats: Arc<Stats>,
        standing: Arc<Standing>,
        failures: watch::Sender<Failures>,
        observer: Observer,
    ) -> Self {
        standing.told().responding = true;
        Self {
            index,
            addresses,
            stats,
            standing,
            failures,
            observer,
            address: None,
            timed_out: false,
            news: true,
        }
    }

    /// Something happened that [`Report::publish`] has to tell.
    pub(crate) fn mark(&mut self) {
        self.news = true;
    }

    /// An attempt to connect to `dest` begins.
    pub(crate) fn trying(&mut self, dest: SocketAddr) {
        let mut told = self.standing.told();
        if told.source_port.is_none() {
            told.server_address = Some(dest.to_string());
        }
    }

    /// As the kernel prints for a soft mount; once, until a connection is made again.
    pub(crate) fn call_failed(&mut self, error: CallFailure) {
        match error {
            CallFailure::Soft(_) | CallFailure::SoftErr(_) if !self.timed_out => {
                self.timed_out = true;
                tracing::warn!("nfs: server {} not responding, timed out", self.addresses.name());
            }
            CallFailure::Terminal(terminal) => {
                self.failures.send_if_modified(|failures| {
                    failures.last = Some(terminal.to_string());
                    false
                });
            }
            _ => {}
        }
    }

    /// Tells `notice`; `carrying` is the connection that now carries calls.
    pub(crate) fn tell(&mut self, now: Instant, notice: &Notice, carrying: Option<Origin>) {
        self.log(notice);
        match notice {
            Notice::NotResponding => self.standing.told().responding = false,
            Notice::Ok => self.standing.told().responding = true,
            Notice::Mounted { .. } => self.connected(carrying),
            Notice::Moved { .. } => {
                self.moved(notice, carrying);
                self.connected(carrying);
            }
            Notice::AttemptFailed { error, .. } => self.attempt_failed(*error, error.to_string()),
            Notice::AttemptTimedOut { waited, .. } => {
                self.attempt_ran_out(format!("no answer in {waited:.1?}"))
            }
            _ => {}
        }
        (self.observer)(now, notice);
    }

    fn log(&self, notice: &Notice) {
        let server = self.addresses.name();
        let address = self.standing.told().server_address.clone().unwrap_or_default();
        match notice {
            Notice::NotResponding => {
                tracing::warn!(address, "nfs: server {server} not responding, still trying")
            }
            Notice::Ok => tracing::warn!(address, "nfs: server {server} OK"),
            other => tracing::info!(server, address, connection = self.index, "{other}"),
        }
    }

    fn connected(&mut self, carrying: Option<Origin>) {
        self.timed_out = false;
        self.failures.send_replace(Failures { connected: true, ..Failures::default() });
        let Some(Origin { address, .. }) = carrying else { return };
        self.addresses.proven(address);
        self.address = Some(address);
        let mut told = self.standing.told();
        told.server_address = Some(address.to_string());
        told.connected_unix_ms = Some(unix_ms());
    }

    fn moved(&self, notice: &Notice, carrying: Option<Origin>) {
        let Notice::Moved { from_port, to_port, reason, gap, resent } = notice else { return };
        let text =
            |address: Option<SocketAddr>| address.map(|address| address.to_string()).unwrap_or_default();
        self.stats.reconnected(Reconnect {
            unix_ms: unix_ms(),
            connection: self.index,
            reason: reason.to_string(),
            from_port: *from_port,
            to_port: *to_port,
            from_address: text(self.address),
            to_address: text(carrying.map(|origin| origin.address)),
            gap_ms: gap.as_secs_f64() * 1e3,
            resent_calls: *resent,
            attempts: carrying.map_or(0, |origin| origin.attempt),
        });
    }

    /// A port that another program holds says nothing about the server.
    fn attempt_failed(&self, error: AttemptError, why: String) {
        let of_port = matches!(error, AttemptError::WrongPort(_))
            || error == AttemptError::Connect(remoor_nfs::reconnect::ConnectError::PortInUse);
        self.failed(!of_port, why);
    }

    fn attempt_ran_out(&self, why: String) {
        self.failed(false, why);
    }

    /// `definite`: the peer or the network has said no.
    fn failed(&self, definite: bool, why: String) {
        self.addresses.refresh();
        {
            let mut told = self.standing.told();
            told.failed_attempts += 1;
            told.last_failure = Some(why.clone());
        }
        self.failures.send_modify(|failures| {
            failures.told += usize::from(definite);
            failures.last = Some(why);
        });
    }

    /// Tells the standing, if anything happened to it.
    pub(crate) fn publish(&mut self, connected: bool, machine: &Machine) {
        if !std::mem::take(&mut self.news) {
            return;
        }
        self.standing.set_ready(connected);
        let counters = machine.counters();
        let mut told = self.standing.told();
        told.state = name(machine.state());
        told.source_port = machine.port();
        told.attempts = counters.attempts;
        told.reconnects = counters.moves;
        told.suspicions = counters.suspicions;
        told.false_alarms = counters.false_alarms;
        told.resent_calls = counters.resent;
        told.retransmitted_calls = counters.retransmitted;
        told.stray_replies = counters.stray_replies;
        told.reply_time_us = machine.reply_time().map(|time| time.as_micros() as u64);
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Connecting => "connecting",
        State::Proving => "proving",
        State::BackingOff => "backing-off",
        State::Ready => "ready",
        State::Suspect => "suspect",
        State::Draining => "draining",
        State::Failed => "failed",
    }
}
