//! Calls, latencies, bytes and errors of each procedure. A call costs four additions in a part of memory that its thread
//! has mostly for itself.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use remoor_nfs::mnt::MountStat;
use remoor_nfs::v3::NfsStat;
use remoor_nfs::{mnt, v3};
use remoor_rpc::program::{ProcedureRow, Program};

use super::outcome::Outcome;

/// Upper bounds of the classes of latency, in microseconds; a last class has no bound.
pub const BUCKETS_MICROS: [u64; 19] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];
/// With the last class.
const BUCKETS: usize = BUCKETS_MICROS.len() + 1;
/// Programs that are counted.
const PROGRAMS: [&Program; 2] = [&v3::PROGRAM, &mnt::PROGRAM];
/// Procedures of all [`PROGRAMS`].
const SLOTS: usize = 28;
/// Statuses that are told apart: those of RFC 1813 sections 2.6 and 5.1.5, which share their numbers.
const STATUSES: [u32; 30] = [
    1,
    2,
    5,
    6,
    13,
    17,
    18,
    19,
    20,
    21,
    22,
    27,
    28,
    30,
    31,
    63,
    66,
    69,
    70,
    71,
    10001,
    10002,
    10003,
    10004,
    10005,
    10006,
    10007,
    10008,
    GARBAGE_ARGS,
    SYSTEM_ERR,
];
/// Stand for what the RPC layer answers; no status of NFS is as large.
const GARBAGE_ARGS: u32 = u32::MAX - 1;
const SYSTEM_ERR: u32 = u32::MAX;
/// Parts of memory that threads count in. More threads than these share.
const SHARDS: usize = 16;

/// Counts of one procedure, made in one shard. Aligned so that threads do not share a cache line.
#[derive(Default)]
#[repr(align(64))]
struct Slot {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
}

/// Errors of one procedure: one count for each of [`STATUSES`], the last one for others.
#[derive(Default)]
struct Errors([AtomicU64; STATUSES.len() + 1]);

/// Counts of every procedure.
pub(crate) struct Procedures {
    shards: Box<[[Slot; SLOTS]]>,
    errors: [Errors; SLOTS],
}

/// What is known of one procedure.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcedureStats {
    /// Name of the program, as in its RFC.
    pub program: String,
    /// Name of the procedure, as in its RFC.
    pub procedure: String,
    /// Calls that were answered.
    pub calls: u64,
    /// Time from a call's record to its reply's, summed, in nanoseconds.
    pub nanos: u64,
    /// Calls in each class of latency: one for each of [`BUCKETS_MICROS`] and one for longer ones.
    pub buckets: Vec<u64>,
    /// Bytes of the calls, RPC headers included.
    pub request_bytes: u64,
    /// Bytes of the replies, RPC headers included.
    pub reply_bytes: u64,
    /// Calls that failed, by status.
    pub errors: BTreeMap<String, u64>,
}

impl Procedures {
    pub(super) fn new() -> Self {
        let shard = |_| std::array::from_fn(|_| Slot::default());
        Self { shards: (0..SHARDS).map(shard).collect(), errors: std::array::from_fn(|_| Errors::default()) }
    }

    /// Counts a call of `(program, procedure)`, if that is one of those that are served.
    pub(super) fn count(
        &self,
        call: (u32, u32),
        outcome: Outcome,
        (request_bytes, reply_bytes): (usize, usize),
        elapsed: Duration,
    ) {
        let Some(n) = slot(call) else { return };
        let slot = &self.shards[shard()][n];
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        slot.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        slot.nanos.fetch_add(nanos, Relaxed);
        slot.request_bytes.fetch_add(request_bytes as u64, Relaxed);
        slot.reply_bytes.fetch_add(reply_bytes as u64, Relaxed);
        if let Some(status) = error(n, outcome) {
            let at = STATUSES.iter().position(|s| *s == status).unwrap_or(STATUSES.len());
            self.errors[n].0[at].fetch_add(1, Relaxed);
        }
    }

    /// Calls answered so far.
    pub(crate) fn calls(&self) -> u64 {
        let slots = self.shards.iter().flatten();
        slots.flat_map(|slot| &slot.buckets).map(|n| n.load(Relaxed)).sum()
    }

    /// Calls answered so far: program, procedure, number.
    pub(crate) fn counts(&self) -> Vec<(&'static str, &'static str, u64)> {
        let rows = PROGRAMS.iter().flat_map(|p| p.procedures.iter().map(|row| (p.name, row.name)));
        let calls = |n: usize| {
            let slots = self.shards.iter().map(|shard| &shard[n]);
            slots.flat_map(|slot| &slot.buckets).map(|n| n.load(Relaxed)).sum()
        };
        rows.enumerate().map(|(n, (program, procedure))| (program, procedure, calls(n))).collect()
    }

    /// All that was counted, in the order of the programs' tables.
    pub(crate) fn stats(&self) -> Vec<ProcedureStats> {
        let rows = PROGRAMS.iter().flat_map(|p| p.procedures.iter().map(move |row| (*p, row)));
        rows.enumerate().map(|(n, (program, row))| self.stats_of(n, program, row)).collect()
    }

    fn stats_of(&self, n: usize, program: &Program, row: &ProcedureRow) -> ProcedureStats {
        let sum = |of: &dyn Fn(&Slot) -> &AtomicU64| {
            self.shards.iter().map(|shard| of(&shard[n]).load(Relaxed)).sum::<u64>()
        };
        let buckets: Vec<u64> = (0..BUCKETS).map(|b| sum(&|slot| &slot.buckets[b])).collect();
        ProcedureStats {
            program: program.name.to_owned(),
            procedure: row.name.to_owned(),
            calls: buckets.iter().sum(),
            nanos: sum(&|slot| &slot.nanos),
            buckets,
            request_bytes: sum(&|slot| &slot.request_bytes),
            reply_bytes: sum(&|slot| &slot.reply_bytes),
            errors: self.errors_of(n),
        }
    }

    fn errors_of(&self, n: usize) -> BTreeMap<String, u64> {
        let statuses = STATUSES.iter().map(Some).chain([None]);
        let counts = statuses.zip(&self.errors[n].0).map(|(status, count)| (status, count.load(Relaxed)));
        counts
            .filter(|(_, n)| *n > 0)
            .map(|(status, count)| (status_name(n, status.copied()), count))
            .collect()
    }
}

impl ProcedureStats {
    /// Upper bound of the class in which this share of the calls is reached, in microseconds; `None` if that is the
    /// class without bound, or nobody called.
    pub fn quantile_micros(&self, share: f64) -> Option<u64> {
        let wanted = (self.calls as f64 * share).ceil().max(1.0) as u64;
        let mut reached = 0;
        let at = self.buckets.iter().position(|n| {
            reached += n;
            reached >= wanted
        })?;
        BUCKETS_MICROS.get(at).copied()
    }

    /// Mean latency, in microseconds; 0 if nobody called.
    pub fn mean_micros(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.nanos as f64 / self.calls as f64 / 1000.0 }
    }
}

fn slot((program, procedure): (u32, u32)) -> Option<usize> {
    let mut first = 0;
    for served in PROGRAMS {
        let count = served.procedures.len();
        if served.number == program {
            let n = procedure as usize;
            return (n < count).then_some(first + n);
        }
        first += count;
    }
    None
}

/// The thread's part of memory.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: usize = NEXT.fetch_add(1, Relaxed) % SHARDS);
    SHARD.with(|shard| *shard)
}

fn bucket(nanos: u64) -> usize {
    BUCKETS_MICROS.partition_point(|micros| micros * 1000 < nanos)
}

/// The status of a call that failed.
fn error(slot: usize, outcome: Outcome) -> Option<u32> {
    match outcome {
        Outcome::Done(0) | Outcome::Refused(_) => None,
        Outcome::Done(status) => has_status(slot).then_some(status),
        Outcome::GarbageArgs => Some(GARBAGE_ARGS),
        Outcome::SystemErr => Some(SYSTEM_ERR),
    }
}

/// Of NFS all but NULL; of MOUNT only MNT.
fn has_status(slot: usize) -> bool {
    let nfs = v3::PROGRAM.procedures.len();
    (1..nfs).contains(&slot) || slot == nfs + 1
}

fn status_name(slot: usize, status: Option<u32>) -> String {
    match status {
        None => "other".to_owned(),
        Some(GARBAGE_ARGS) => "GARBAGE_ARGS".to_owned(),
        Some(SYSTEM_ERR) => "SYSTEM_ERR".to_owned(),
        Some(status) if slot < v3::PROGRAM.procedures.len() => NfsStat::from(status).to_string(),
        Some(status) => MountStat::from(status).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFS: u32 = 100_003;
    const MOUNT: u32 = 100_005;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn every_procedure_has_its_slot_and_every_status_its_name() {
        assert_eq!(PROGRAMS.iter().map(|p| p.procedures.len()).sum::<usize>(), SLOTS);
        let mut slots: Vec<_> = PROGRAMS
            .iter()
            .flat_map(|p| p.procedures.iter().map(|row| slot((p.number, row.number))))
            .collect();
        slots.dedup();
        assert_eq!(slots, (0..SLOTS).map(Some).collect::<Vec<_>>());
        assert_eq!([slot((NFS, 22)), slot((MOUNT, 6)), slot((100_021, 0))], [None; 3]);
        let names: Vec<_> = STATUSES.iter().map(|s| status_name(1, Some(*s))).collect();
        assert!(names.iter().all(|name| !name.contains("NfsStat")), "{names:?}");
        assert!(STATUSES.is_sorted());
    }

    #[test]
    fn latencies_fall_into_their_class() {
        assert_eq!(bucket(0), 0);
        assert_eq!((bucket(10_000), bucket(10_001)), (0, 1), "a bound is inclusive, as in Prometheus");
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        let procedures = Procedures::new();
        for (n, elapsed) in [(98, micros(20)), (1, micros(4_000)), (1, Duration::MAX)] {
            (0..n).for_each(|_| procedures.count((NFS, 6), Outcome::Done(0), (100, 1000), elapsed));
        }
        let read = &procedures.stats()[6];
        assert_eq!((read.calls, read.procedure.as_str(), read.buckets[1]), (100, "READ", 98));
        assert_eq!(
            [0.5, 0.98, 0.99, 1.0].map(|share| read.quantile_micros(share)),
            [Some(25), Some(25), Some(5_000), None]
        );
        assert_eq!((read.request_bytes, read.reply_bytes), (10_000, 100_000));
        assert_eq!(procedures.calls(), 100);
        assert_eq!(procedures.stats()[7].quantile_micros(0.5), None);
    }

    #[test]
    fn errors_are_told_by_status() {
        let procedures = Procedures::new();
        let count = |call, outcome| procedures.count(call, outcome, (0, 0), micros(1));
        count((NFS, 3), Outcome::Done(2));
        count((NFS, 3), Outcome::Done(2));
        count((NFS, 3), Outcome::Done(4711));
        count((NFS, 3), Outcome::GarbageArgs);
        count((NFS, 3), Outcome::Done(0));
        count((MOUNT, 1), Outcome::Done(13));
        // The first word of a list that is not empty.
        count((MOUNT, 2), Outcome::Done(1));
        count((NFS, 99), Outcome::Done(1));
        let stats = procedures.stats();
        let errors = |n: usize| stats[n].errors.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>();
        assert_eq!(errors(3), ["GARBAGE_ARGS 1", "NFS3ERR_NOENT 2", "other 1"]);
        assert_eq!(errors(23), ["MNT3ERR_ACCES 1"]);
        assert_eq!(errors(24), [""; 0]);
        assert_eq!(stats.iter().map(|row| row.calls).sum::<u64>(), 7);
        assert_eq!(procedures.counts()[3], ("NFS", "LOOKUP", 5));
    }
}
