//! What a server has done, in numbers: counted where calls are answered, told as Prometheus text and as JSON.
//!
//! | module | subject |
//! |---|---|
//! | `procedures` | calls, latencies, bytes and errors of each procedure |
//! | `clients` | calls and bytes of each client |
//! | `outcome` | how a call ended, read from its reply |
//! | `families` | every metric: name, unit, meaning |
//! | `text` | the text format of Prometheus |

mod clients;
mod families;
mod outcome;
mod procedures;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

pub use clients::ClientCalls;
use clients::Clients;
pub(crate) use families::{ExportFacts, Facts, render};
pub(crate) use outcome::HEAD;
use outcome::Outcome;
use procedures::Procedures;
pub use procedures::{BUCKETS_MICROS, ProcedureStats};

/// What a server counts.
pub(crate) struct Metrics {
    pub(crate) began: Instant,
    /// The same, by the calendar.
    pub(crate) began_at: SystemTime,
    pub(crate) procedures: Procedures,
    pub(crate) clients: Clients,
    pub(crate) refused: RefusedCalls,
}

/// Calls answered without being given to a procedure, by reason.
#[derive(Debug, Default)]
pub(crate) struct RefusedCalls([AtomicU64; outcome::REFUSALS.len()]);

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            began_at: SystemTime::now(),
            procedures: Procedures::new(),
            clients: Clients::new(),
            refused: RefusedCalls::default(),
        }
    }

    /// Counts a call of `(program, procedure)` that was answered. `head` is the beginning of the reply, from its xid on, at least the
    /// [`HEAD`] bytes that tell how the call ended; `bytes` are those of the call and of the reply.
    pub(crate) fn answered(
        &self,
        client: IpAddr,
        call: (u32, u32),
        head: &[u8],
        bytes: (usize, usize),
        received: Instant,
    ) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(received);
        self.clients.count(client, now.saturating_duration_since(self.began), bytes);
        match Outcome::of(head) {
            Outcome::Refused(n) => _ = self.refused.0[n].fetch_add(1, Relaxed),
            outcome => self.procedures.count(call, outcome, bytes, elapsed),
        }
    }
}

impl RefusedCalls {
    /// Reason and number.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        outcome::REFUSALS.iter().zip(&self.0).map(|(reason, n)| (*reason, n.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_without_losing_anything() {
        let metrics = Metrics::new();
        let (call, head) = ((remoor_nfs::v3::PROGRAM.number, 1), [0; HEAD]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let client = IpAddr::from([192, 0, 2, 7]);
                    (0..1000).for_each(|_| metrics.answered(client, call, &head, (3, 5), metrics.began));
                });
            }
        });
        let rows = metrics.procedures.stats();
        let getattr = rows.iter().find(|row| row.procedure == "GETATTR").unwrap();
        assert_eq!((getattr.calls, getattr.request_bytes, getattr.reply_bytes), (2000, 6000, 10000));
        assert_eq!(metrics.clients.list()[0].calls, 2000);
    }
}
