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

    /// As the kernel prints for a soft mount; once, until a call is answered again.
    pub(crate) fn call_failed(&mut self, error: CallFailure) {
        match error {
            CallFailure::Soft(_) | CallFailure::SoftErr(_) if !self.timed_out => {
                self.timed_out = true;
                self.standing.told().responding = false;
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

    /// A call was answered.
    pub(crate) fn call_answered(&mut self) {
        if std::mem::take(&mut self.timed_out) {
            self.standing.told().responding = true;
            tracing::warn!("nfs: server {} OK", self.addresses.name());
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
        told.state = name(machine.state()).into();
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

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::target::Target;

    /// What is logged, line by line.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(tell: impl FnOnce(&mut Report)) -> (String, Arc<Standing>) {
        let address = "192.0.2.1:2049".parse().unwrap();
        let addresses = Arc::new(Addresses::new(Target::of("filer", vec![address]).unwrap()));
        let (standing, log) = (Arc::new(Standing::default()), Log::default());
        let (failures, _) = watch::channel(Failures::default());
        let (stats, told) = (Arc::new(Stats::new()), Arc::clone(&standing));
        let mut report = Report::new(0, addresses, stats, told, failures, Arc::new(|_, _| {}));
        report.trying(address);
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || tell(&mut report));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (text, standing)
    }

    #[test]
    fn a_hard_mount_says_what_the_kernel_says() {
        let (text, standing) = logged(|report| report.tell(Instant::now(), &Notice::NotResponding, None));
        assert!(text.contains("nfs: server filer not responding, still trying"), "{text}");
        assert!(text.contains("192.0.2.1:2049") && !standing.told().responding, "{text}");
        let (text, standing) = logged(|report| report.tell(Instant::now(), &Notice::Ok, None));
        assert!(text.contains("nfs: server filer OK") && standing.told().responding, "{text}");
    }

    #[test]
    fn a_soft_mount_says_once_that_it_gave_up_and_once_that_it_is_over() {
        let (text, standing) = logged(|report| {
            for _ in 0..3 {
                report.call_failed(CallFailure::Soft(Duration::from_secs(180)));
            }
            report.call_answered();
            report.call_answered();
        });
        assert_eq!(text.matches("nfs: server filer not responding, timed out").count(), 1, "{text}");
        assert_eq!(text.matches("nfs: server filer OK").count(), 1, "{text}");
        assert!(standing.told().responding);
    }

    #[test]
    fn only_what_the_peer_or_the_network_says_counts_as_no() {
        let address = "192.0.2.1:2049".parse().unwrap();
        let addresses = Arc::new(Addresses::new(Target::of("filer", vec![address]).unwrap()));
        let (failed, failures) = watch::channel(Failures::default());
        let (stats, standing) = (Arc::new(Stats::new()), Arc::new(Standing::default()));
        let mut report = Report::new(0, addresses, stats, standing, failed, Arc::new(|_, _| {}));
        let mut tell = |notice: &Notice| report.tell(Instant::now(), notice, None);
        let retry_in = Duration::ZERO;
        let refused = AttemptError::Connect(remoor_nfs::reconnect::ConnectError::Refused);
        let in_use = AttemptError::Connect(remoor_nfs::reconnect::ConnectError::PortInUse);
        tell(&Notice::AttemptFailed { port: 1, error: refused, retry_in });
        tell(&Notice::AttemptFailed { port: 2, error: in_use, retry_in });
        tell(&Notice::AttemptTimedOut { port: 3, waited: Duration::from_secs(1) });
        assert_eq!(failures.borrow().told, 1);
        assert!(failures.borrow().last.as_deref().unwrap().contains("1.0s"));
        tell(&Notice::Mounted { port: 4, attempts: 4 });
        assert!(failures.borrow().connected && failures.borrow().last.is_none());
    }
}
