//! Calls in flight: which procedures, since when. A fixed table of words, claimed and freed without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// Calls in flight that are told one by one; those beyond are only counted.
pub const MAX_TOLD: usize = 1024;
/// Words tried before a call is only counted, so that a full table costs little.
const TRIES: usize = 8;
/// Bits of a word that hold the procedure's row, plus one so that no word in use is 0.
const ROW_BITS: u32 = 8;

#[derive(Debug)]
pub(super) struct Flights {
    words: Box<[AtomicU64]>,
    next: AtomicUsize,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self { words: (0..MAX_TOLD).map(|_| AtomicU64::new(0)).collect(), next: AtomicUsize::new(0) }
    }

    /// Notes a call of `row` that began `micros` after the client did.
    pub(super) fn enter(&self, row: usize, micros: u64) -> Option<usize> {
        let word = (micros << ROW_BITS) | (row as u64 + 1);
        let at = self.next.fetch_add(1, Relaxed);
        (at..at.wrapping_add(TRIES)).map(|at| at % MAX_TOLD).find(|at| {
            let free = &self.words[*at];
            free.load(Relaxed) == 0 && free.compare_exchange(0, word, Relaxed, Relaxed).is_ok()
        })
    }

    pub(super) fn leave(&self, at: usize) {
        self.words[at].store(0, Relaxed);
    }

    /// Row, and microseconds after the client began, of each; the oldest first.
    pub(super) fn list(&self) -> Vec<(usize, u64)> {
        let words = self.words.iter().map(|word| word.load(Relaxed)).filter(|word| *word != 0);
        let mask = (1 << ROW_BITS) - 1;
        let mut told: Vec<_> = words.map(|word| ((word & mask) as usize - 1, word >> ROW_BITS)).collect();
        told.sort_by_key(|(_, micros)| *micros);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_the_oldest_first_until_they_leave() {
        let flights = Flights::new();
        let late = flights.enter(3, 900).unwrap();
        let early = flights.enter(0, 0).unwrap();
        assert_eq!(flights.list(), [(0, 0), (3, 900)]);
        flights.leave(early);
        assert_eq!(flights.list(), [(3, 900)]);
        flights.leave(late);
        assert!(flights.list().is_empty());
    }

    #[test]
    fn a_full_table_takes_no_more_until_one_leaves() {
        let flights = Flights::new();
        let held: Vec<_> = (0..MAX_TOLD).map(|n| flights.enter(1, n as u64).unwrap()).collect();
        assert_eq!(flights.enter(1, 0), None);
        flights.leave(held[7]);
        assert!((0..MAX_TOLD).any(|_| flights.enter(1, 0).is_some()));
    }
}
