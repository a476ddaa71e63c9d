//! How long calls take, so that a worker knows before it executes one whether others should be let past. No clock here:
//! durations come in. Threads share it without a lock; a lost update costs a guess, no more.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::limits::{LONGEST_SAMPLE, MOVED_BYTES_PER_NANO, SLOW_CALL, SUSPECT_CALLS};

/// Kinds of calls told apart; a service that has more lets some share.
pub(crate) const CLASSES: usize = 32;
/// A sample counts an eighth.
const WEIGHT: u32 = 8;

/// Times of the calls of one connection, by class.
#[derive(Debug, Default)]
pub(super) struct Pace([Class; CLASSES]);

#[derive(Debug, Default)]
struct Class {
    /// Moving average, in nanoseconds.
    average: AtomicU32,
    /// Calls that are thought to be slow because one was stuck.
    suspect: AtomicU32,
}

impl Pace {
    /// Whether a call is expected to take longer than it takes to let another worker go on.
    pub(super) fn is_slow(&self, class: u8) -> bool {
        let class = self.class(class);
        class.average.load(Relaxed) > SLOW_CALL.as_nanos() as u32 || class.suspect.load(Relaxed) > 0
    }

    /// A call of so many bytes, its reply's among them, took this long. The time it takes to move them is no waiting: others
    /// would not be done sooner, and would find the caches of their processor cold.
    pub(super) fn note(&self, class: u8, nanos: u64, bytes: usize) {
        let of = self.class(class);
        let nanos = nanos.saturating_sub(bytes as u64 / MOVED_BYTES_PER_NANO);
        // Bounded, because a thread that had no turn for some milliseconds says little of its call.
        let sample = nanos.min(LONGEST_SAMPLE.as_nanos() as u64) as u32;
        let before = of.average.load(Relaxed);
        of.average.store(before - before / WEIGHT + sample / WEIGHT, Relaxed);
        let suspect = of.suspect.load(Relaxed);
        if suspect > 0 {
            of.suspect.store(suspect - 1, Relaxed);
        }
    }

    /// A call waits, and has not ended yet.
    pub(super) fn suspect(&self, class: u8) {
        self.class(class).suspect.store(SUSPECT_CALLS, Relaxed);
    }

    fn class(&self, class: u8) -> &Class {
        &self.0[usize::from(class) % CLASSES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: u64 = 10_000;

    #[test]
    fn calls_that_take_long_are_expected_to() {
        let pace = Pace::default();
        let slow = SLOW_CALL.as_nanos() as u64 * 3 / 2;
        (0..100).for_each(|_| pace.note(7, slow, 0));
        assert!(pace.is_slow(7) && !pace.is_slow(6), "others are not");
        (0..100).for_each(|_| pace.note(7, QUICK, 0));
        assert!(!pace.is_slow(7));
    }

    #[test]
    fn moving_bytes_is_not_waiting() {
        let (pace, bytes) = (Pace::default(), 1 << 20);
        let moving = bytes as u64 / MOVED_BYTES_PER_NANO;
        (0..100).for_each(|_| pace.note(7, moving + QUICK, bytes));
        assert!(!pace.is_slow(7));
        (0..100).for_each(|_| pace.note(7, moving + 2 * SLOW_CALL.as_nanos() as u64, bytes));
        assert!(pace.is_slow(7), "the disk");
    }

    #[test]
    fn a_stuck_call_makes_its_class_suspect_for_a_while() {
        let pace = Pace::default();
        pace.suspect(1);
        for _ in 0..SUSPECT_CALLS {
            assert!(pace.is_slow(1));
            pace.note(1, QUICK, 0);
        }
        assert!(!pace.is_slow(1));
        pace.note(1, u64::MAX, 0);
        assert!(!pace.is_slow(1), "its thread may only have had no turn");
    }

    #[test]
    fn quick_calls_are_never_slow() {
        let pace = Pace::default();
        for n in 0..1000 {
            pace.note(255, n * 100, 0);
            assert!(!pace.is_slow(255));
        }
    }
}
