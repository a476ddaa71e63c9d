//! What a client counts while it works: relaxed atomics where calls pass, a lock only where connections change.
//!
//! | module | subject |
//! |---|---|
//! | `snapshot` | what is told, as Rust and as JSON |
//! | `histogram` | times in buckets |
//! | `flight` | calls in flight |

mod flight;
mod histogram;
mod snapshot;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use remoor_nfs::{mnt, v3};
use remoor_rpc::message::peek_xid;
use remoor_rpc::program::{Procedure as _, Program};
use remoor_rpc::record::{HEADER, Record};
use tokio::time::Instant;

use flight::Flights;
use histogram::Histogram;

pub use flight::MAX_TOLD;
pub use histogram::BUCKETS;
pub use snapshot::{Connection, InFlight, Latency, Procedure, Reconnect, Snapshot};

/// Reconnects that are remembered.
pub const MAX_RECONNECTS: usize = 64;
/// Where MOUNT's rows begin, behind those of NFS.
const MNT_ROWS: usize = 22;
/// The row of every other procedure.
const OTHER: usize = MNT_ROWS + 6;
const ROWS: usize = OTHER + 1;

/// One client's counts, for all its connections.
#[derive(Debug)]
pub(crate) struct Stats {
    began: Instant,
    rows: Box<[Row]>,
    flights: Flights,
    reconnects: Mutex<VecDeque<Reconnect>>,
}

#[derive(Debug)]
struct Row {
    calls: AtomicU64,
    answered: AtomicU64,
    errors: AtomicU64,
    given_up: AtomicU64,
    retransmissions: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    latency: Histogram,
}

impl Row {
    const fn new() -> Self {
        Self {
            calls: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            retransmissions: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            latency: Histogram::new(),
        }
    }

    /// Calls that have not ended. Loads are not of one moment, so the difference may be below 0 for an instant.
    fn open(&self) -> u64 {
        let ended = [&self.answered, &self.errors, &self.given_up].map(|count| count.load(Relaxed));
        self.calls.load(Relaxed).saturating_sub(ended.iter().sum())
    }

    fn snapshot(&self, row: usize) -> Procedure {
        let (program, name) = names(row);
        Procedure {
            program: program.into(),
            name: name.into(),
            calls: self.calls.load(Relaxed),
            answered: self.answered.load(Relaxed),
            errors: self.errors.load(Relaxed),
            given_up: self.given_up.load(Relaxed),
            retransmissions: self.retransmissions.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            latency: self.latency.snapshot(),
        }
    }
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            rows: (0..ROWS).map(|_| Row::new()).collect(),
            flights: Flights::new(),
            reconnects: Mutex::default(),
        }
    }

    /// A call of `P` begins; its end is told to the [`Flight`].
    pub(crate) fn begin<P: remoor_rpc::program::Procedure>(&self) -> Flight<'_> {
        let (row, began) = (row(P::PROGRAM, P::NUMBER), Instant::now());
        self.rows[row].calls.fetch_add(1, Relaxed);
        let since = began.saturating_duration_since(self.began);
        let at = self.flights.enter(row, since.as_micros() as u64);
        Flight { stats: self, row, at, began, ended: false }
    }

    /// `record` goes out, `again` if it did before.
    pub(crate) fn sent(&self, record: &Record, again: bool) {
        let Some(Header { program, procedure, .. }) = Header::of(record) else { return };
        let row = &self.rows[row(program, procedure)];
        row.sent_bytes.fetch_add(record.len() as u64, Relaxed);
        if again {
            row.retransmissions.fetch_add(1, Relaxed);
        }
    }

    /// How often calls of `P` were sent again.
    pub(crate) fn sent_again<P: remoor_rpc::program::Procedure>(&self) -> u64 {
        self.rows[row(P::PROGRAM, P::NUMBER)].retransmissions.load(Relaxed)
    }

    pub(crate) fn reconnected(&self, reconnect: Reconnect) {
        let mut kept = self.reconnects.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_RECONNECTS {
            kept.pop_front();
        }
        kept.push_back(reconnect);
    }

    pub(crate) fn snapshot(
        &self,
        server: &str,
        addresses: Vec<String>,
        connections: Vec<Connection>,
    ) -> Snapshot {
        let age = self.began.elapsed();
        let in_flight = self.flights.list().into_iter().map(|(row, micros)| {
            let (program, name) = names(row);
            InFlight {
                program: program.into(),
                name: name.into(),
                age_secs: age.saturating_sub(Duration::from_micros(micros)).as_secs_f64(),
            }
        });
        let called = self.rows.iter().enumerate().filter(|(_, row)| row.calls.load(Relaxed) > 0);
        Snapshot {
            server: server.to_owned(),
            addresses,
            age_secs: age.as_secs_f64(),
            connections,
            procedures: called.map(|(at, row)| row.snapshot(at)).collect(),
            in_flight_calls: self.rows.iter().map(Row::open).sum(),
            in_flight: in_flight.collect(),
            reconnects: {
                let kept = self.reconnects.lock().unwrap_or_else(PoisonError::into_inner);
                kept.iter().cloned().collect()
            },
        }
    }
}

/// A call under way. Dropped without an end, its caller has stopped waiting.
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    stats: &'a Stats,
    row: usize,
    at: Option<usize>,
    began: Instant,
    ended: bool,
}

impl Flight<'_> {
    /// A reply of so many bytes came, without its record mark; `ok` if it has a result.
    pub(crate) fn answered(mut self, bytes: usize, ok: bool) {
        let row = &self.stats.rows[self.row];
        row.received_bytes.fetch_add((bytes + HEADER) as u64, Relaxed);
        row.latency.record(self.began.elapsed());
        if ok { &row.answered } else { &row.errors }.fetch_add(1, Relaxed);
        self.ended = true;
    }

    /// No reply will come.
    pub(crate) fn failed(mut self) {
        self.stats.rows[self.row].errors.fetch_add(1, Relaxed);
        self.ended = true;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            self.stats.flights.leave(at);
        }
        if !self.ended {
            self.stats.rows[self.row].given_up.fetch_add(1, Relaxed);
        }
    }
}

/// What a call's record says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) xid: u32,
    pub(crate) program: u32,
    pub(crate) procedure: u32,
}

impl Header {
    /// RFC 5531 section 9: xid, message type, RPC version, program, version, procedure. They are in one segment: that is
    /// how calls are encoded here.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        let message = record.segments().get(1)?;
        let word = |at: usize| message.get(at * 4..).and_then(peek_xid);
        Some(Self { xid: word(0)?, program: word(3)?, procedure: word(5)? })
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn row(program: u32, procedure: u32) -> usize {
    let procedure = procedure as usize;
    match program {
        v3::Null::PROGRAM if procedure < MNT_ROWS => procedure,
        mnt::Null::PROGRAM if procedure < OTHER - MNT_ROWS => MNT_ROWS + procedure,
        _ => OTHER,
    }
}

fn names(row: usize) -> (&'static str, &'static str) {
    let named = |program: &'static Program, number: usize| {
        let row = program.procedure(number as u32);
        (program.name, row.map_or("other", |row| row.name))
    };
    match row {
        ..MNT_ROWS => named(&v3::PROGRAM, row),
        MNT_ROWS..OTHER => named(&mnt::PROGRAM, row - MNT_ROWS),
        _ => ("other", "other"),
    }
}

#[cfg(test)]
mod tests {
    use remoor_rpc::auth::OpaqueAuth;
    use remoor_rpc::message::encode_call;

    use super::*;

    #[test]
    fn every_procedure_has_a_row_with_its_name() {
        assert_eq!(
            (v3::PROGRAM.procedures.len(), mnt::PROGRAM.procedures.len()),
            (MNT_ROWS, OTHER - MNT_ROWS)
        );
        assert_eq!(names(row(v3::PROGRAM.number, 21)), ("NFS", "COMMIT"));
        assert_eq!(names(row(mnt::PROGRAM.number, 3)), ("MOUNT", "UMNT"));
        for stranger in [row(v3::PROGRAM.number, 22), row(mnt::PROGRAM.number, u32::MAX), row(7, 1)] {
            assert_eq!(names(stranger), ("other", "other"));
        }
    }

    #[test]
    fn a_call_is_told_from_its_beginning_to_its_end() {
        let stats = Stats::new();
        let told = || stats.snapshot("server", Vec::new(), Vec::new());
        let (answered, refused) = (stats.begin::<v3::Read>(), stats.begin::<v3::Read>());
        let (failed, given_up) = (stats.begin::<v3::Read>(), stats.begin::<v3::Read>());
        assert_eq!(
            (told().in_flight_calls, told().in_flight.len(), told().in_flight[0].name.clone()),
            (4, 4, "READ".into())
        );
        answered.answered(100, true);
        refused.answered(50, false);
        failed.failed();
        drop(given_up);
        let [read] = &told().procedures[..] else { panic!("one procedure was called") };
        assert_eq!((read.calls, read.answered, read.errors, read.given_up), (4, 1, 2, 1));
        assert_eq!((read.received_bytes, read.latency.buckets.iter().sum::<u64>()), (158, 2));
        assert_eq!((told().in_flight_calls, told().in_flight.len()), (0, 0));
    }

    #[test]
    fn sendings_are_counted_by_what_the_record_says() {
        let stats = Stats::new();
        let record = encode_call::<v3::Null>(7, &OpaqueAuth::none(), &());
        assert_eq!(Header::of(&record), Some(Header { xid: 7, program: 100_003, procedure: 0 }));
        stats.begin::<v3::Null>().failed();
        stats.sent(&record, false);
        stats.sent(&record, true);
        let null = &stats.snapshot("server", Vec::new(), Vec::new()).procedures[0];
        assert_eq!((null.sent_bytes, null.retransmissions), (2 * record.len() as u64, 1));
        assert_eq!((stats.sent_again::<v3::Null>(), stats.sent_again::<v3::Rename>()), (1, 0));
    }

    #[test]
    fn only_the_last_reconnects_are_kept() {
        let stats = Stats::new();
        for n in 0..MAX_RECONNECTS as u64 + 3 {
            let of = |unix_ms| Reconnect {
                unix_ms,
                connection: 0,
                reason: "path dead".to_owned(),
                from_port: 1,
                to_port: 2,
                from_address: String::new(),
                to_address: String::new(),
                gap_ms: 0.0,
                resent_calls: 0,
                attempts: 1,
            };
            stats.reconnected(of(n));
        }
        let kept = stats.snapshot("server", Vec::new(), Vec::new()).reconnects;
        assert_eq!((kept.len(), kept[0].unix_ms), (MAX_RECONNECTS, 3));
    }
}
