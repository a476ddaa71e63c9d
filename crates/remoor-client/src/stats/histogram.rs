//! Times in buckets of powers of two, counted with relaxed atomics.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bucket 0 counts times under 1 µs, bucket `i` those from 2^(i-1) µs up to 2^i µs; the last has all beyond, from 76 h on.
pub const BUCKETS: usize = 40;

/// Counts of times.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    max_micros: AtomicU64,
}

impl Histogram {
    pub(super) const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], max_micros: AtomicU64::new(0) }
    }

    pub(super) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Relaxed);
        if micros > self.max_micros.load(Relaxed) {
            self.max_micros.fetch_max(micros, Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> Latency {
        let buckets: Vec<u64> = self.buckets.iter().map(|count| count.load(Relaxed)).collect();
        let max_us = self.max_micros.load(Relaxed);
        let part = |part| quantile(&buckets, part).min(max_us as f64);
        Latency { p50_us: part(0.5), p99_us: part(0.99), max_us, buckets }
    }
}

/// How long calls of one procedure took, from the call to its reply, waiting for a connection included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the calls took at most this, microseconds; interpolated within its bucket.
    pub p50_us: f64,
    /// 99 of 100 calls took at most this, microseconds; interpolated within its bucket.
    pub p99_us: f64,
    /// The longest, microseconds.
    pub max_us: u64,
    /// Calls by their time, in [`BUCKETS`] buckets: the first has those under 1 µs, bucket `i` those from 2^(i-1) µs up
    /// to 2^i µs.
    pub buckets: Vec<u64>,
}

fn bucket(micros: u64) -> usize {
    ((u64::BITS - micros.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// The time within which this part of the calls ended, microseconds; 0 if there were none.
fn quantile(buckets: &[u64], part: f64) -> f64 {
    let wanted = buckets.iter().sum::<u64>() as f64 * part;
    let mut below = 0.0;
    for (i, count) in buckets.iter().map(|count| *count as f64).enumerate() {
        if count > 0.0 && below + count >= wanted {
            let (low, high) = bounds(i);
            return low + (high - low) * ((wanted - below) / count).clamp(0.0, 1.0);
        }
        below += count;
    }
    0.0
}

fn bounds(bucket: usize) -> (f64, f64) {
    match bucket {
        0 => (0.0, 1.0),
        i => ((1u64 << (i - 1)) as f64, (1u64 << i) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_bucket_that_holds_it() {
        assert_eq!([0, 1, 2, 3, 4, 1023, 1024].map(bucket), [0, 1, 2, 2, 3, 10, 11]);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for micros in [1u64, 5, 700, 1 << 30] {
            let (low, high) = bounds(bucket(micros));
            assert!(low <= micros as f64 && (micros as f64) < high, "{micros}");
        }
    }

    #[test]
    fn quantiles_lie_in_the_bucket_of_their_call() {
        let histogram = Histogram::new();
        (0..98).for_each(|_| histogram.record(Duration::from_micros(100)));
        histogram.record(Duration::from_millis(3));
        histogram.record(Duration::from_millis(40));
        let told = histogram.snapshot();
        assert!((64.0..128.0).contains(&told.p50_us), "{told:?}");
        assert!((2048.0..=4096.0).contains(&told.p99_us), "{told:?}");
        assert_eq!((told.max_us, told.buckets.iter().sum::<u64>()), (40_000, 100));
    }

    #[test]
    fn no_quantile_exceeds_the_longest_time_and_none_is_told_of_nothing() {
        let histogram = Histogram::new();
        assert_eq!(histogram.snapshot().p99_us, 0.0);
        histogram.record(Duration::from_micros(65));
        assert_eq!(histogram.snapshot().p99_us, 65.0);
    }
}
