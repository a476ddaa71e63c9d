//! What is read before it is asked for, for one open file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fetch::Fetch;

/// Most bytes read ahead for one open file.
const MAX_WINDOW: u64 = 8 << 20;
/// READs ahead for one open file.
const MAX_FETCHES: usize = 128;

/// A read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Of the file's bytes: what was read in another one is not true any more.
    pub(super) generation: u64,
    pub(super) now: Instant,
    /// How long what was read ahead is good for.
    pub(super) keep: Duration,
    /// Where the file ends, as far as is known.
    pub(super) file_end: u64,
    /// Bytes of one READ.
    pub(super) rsize: u64,
}

/// Where a part of a read comes from.
#[derive(Debug)]
pub(super) enum Part {
    /// Read ahead, or being read.
    Ahead(Arc<Fetch>, u64, u64),
    /// To be read now.
    Now(u64, u64),
}

/// What is read ahead for one open file.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// By their starts.
    fetches: BTreeMap<u64, Arc<Fetch>>,
    generation: u64,
    /// Where a sequential reader goes on.
    expected: u64,
    /// Bytes it has read in sequence.
    run: u64,
}

impl Ahead {
    /// Where the parts of a read come from.
    pub(super) fn parts(&mut self, ask: &Ask) -> Vec<Part> {
        self.follow(ask);
        self.forget(ask);
        let mut parts = Vec::new();
        let mut at = ask.start;
        let first = self.fetches.range(..=ask.start).next_back().map_or(0, |(start, _)| *start);
        for fetch in self.fetches.range(first..ask.end).map(|(_, fetch)| fetch) {
            if fetch.end <= at {
                continue;
            }
            if at < fetch.start {
                parts.push(Part::Now(at, fetch.start));
            }
            let (from, to) = (at.max(fetch.start), ask.end.min(fetch.end));
            parts.push(Part::Ahead(fetch.clone(), from, to));
            at = to;
        }
        if at < ask.end {
            parts.push(Part::Now(at, ask.end));
        }
        parts
    }

    /// Learns whether the reader goes on where it was. The kernel may have several reads in flight, and they may come in
    /// another order.
    fn follow(&mut self, ask: &Ask) {
        if ask.start.abs_diff(self.expected) <= ask.rsize && (self.run > 0 || ask.start == 0) {
            self.run += ask.end.saturating_sub(self.expected);
            self.expected = self.expected.max(ask.end);
        } else {
            self.run = if ask.start == self.expected { ask.end - ask.start } else { 0 };
            self.expected = ask.end;
            self.fetches.clear();
        }
    }

    /// Forgets what is not true any more, what is too old, and what was passed.
    fn forget(&mut self, ask: &Ask) {
        if self.generation != ask.generation {
            self.generation = ask.generation;
            self.fetches.clear();
        }
        let young = |fetch: &Fetch| ask.now.saturating_duration_since(fetch.asked) < ask.keep;
        self.fetches.retain(|_, fetch| fetch.end + ask.rsize > ask.start && young(fetch));
    }

    /// How far ahead: twice as far as was read in sequence.
    fn window(&self, ask: &Ask) -> u64 {
        let len = ask.end - ask.start;
        let large = ask.start == 0 && len >= ask.rsize;
        if self.run > len || large { (2 * self.run).clamp(ask.rsize, MAX_WINDOW) } else { 0 }
    }

    /// The ranges to read ahead now: whole READs, aligned, and the end of the file.
    pub(super) fn wanted(&self, ask: &Ask) -> Vec<(u64, u64)> {
        let known = self.fetches.last_key_value().map_or(0, |(_, fetch)| fetch.end);
        let mut at = known.max(ask.end);
        let limit = ask.end.saturating_add(self.window(ask)).min(ask.file_end);
        let mut wanted = Vec::new();
        while at < limit && self.fetches.len() + wanted.len() < MAX_FETCHES {
            let stop = ((at / ask.rsize + 1) * ask.rsize).min(ask.file_end);
            if stop > limit {
                break;
            }
            wanted.push((at, stop));
            at = stop;
        }
        wanted
    }

    /// A wanted range is being read.
    pub(super) fn add(&mut self, fetch: Fetch) {
        self.fetches.insert(fetch.start, Arc::new(fetch));
    }

    /// A range could not be read as expected.
    pub(super) fn remove(&mut self, fetch: &Fetch) {
        self.fetches.remove(&fetch.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn ask(start: u64, len: u64) -> Ask {
        Ask {
            start,
            end: start + len,
            generation: 0,
            now: Instant::now(),
            keep: Duration::from_secs(3),
            file_end: 100 * MIB,
            rsize: MIB,
        }
    }

    /// Reads, and has what is wanted answered.
    fn read(ahead: &mut Ahead, ask: &Ask) -> (bool, Vec<(u64, u64)>) {
        let parts = ahead.parts(ask);
        let wanted = ahead.wanted(ask);
        wanted.iter().for_each(|range| ahead.add(Fetch::done(*range, ask.now)));
        (parts.iter().all(|part| matches!(part, Part::Ahead(..))), wanted)
    }

    #[tokio::test]
    async fn a_sequential_reader_is_read_ahead_for_more_and_more() {
        let mut ahead = Ahead::default();
        let mut most = 0;
        for n in 0..32 {
            let (hit, _) = read(&mut ahead, &ask(n * MIB, MIB));
            assert_eq!(hit, n > 0, "read {n}");
            most = most.max(ahead.fetches.len());
        }
        assert_eq!(most as u64, MAX_WINDOW / MIB + 2, "with the one being read and the one before it");
    }

    #[tokio::test]
    async fn the_head_of_a_file_and_random_places_are_not_read_ahead() {
        let mut ahead = Ahead::default();
        for at in [0, 50 * MIB, 7 * MIB, 90 * MIB, 4 * KIB] {
            assert_eq!(read(&mut ahead, &ask(at, 4 * KIB)), (false, vec![]), "{at}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_goes_on_after_a_seek_is_read_ahead_for() {
        let mut ahead = Ahead::default();
        read(&mut ahead, &ask(50 * MIB + 4 * KIB, 128 * KIB));
        let mut wanted = Vec::new();
        for n in 1..4 {
            wanted.extend(read(&mut ahead, &ask(50 * MIB + 4 * KIB + n * 128 * KIB, 128 * KIB)).1);
        }
        assert_eq!(wanted, [(50 * MIB + 388 * KIB, 51 * MIB)]);
    }

    #[tokio::test]
    async fn reads_in_another_order_are_still_a_sequence() {
        let mut ahead = Ahead::default();
        for n in [0, 2, 1, 3, 5, 4, 6] {
            read(&mut ahead, &ask(n * 128 * KIB, 128 * KIB));
        }
        assert_eq!(ahead.run, 7 * 128 * KIB);
    }

    #[tokio::test]
    async fn the_end_of_the_file_is_not_passed() {
        let mut ahead = Ahead::default();
        let end = Ask { file_end: MIB + 10, ..ask(0, MIB) };
        assert_eq!(read(&mut ahead, &end).1, [(MIB, MIB + 10)]);
    }

    #[tokio::test]
    async fn what_was_written_over_or_is_old_is_read_again() {
        let mut ahead = Ahead::default();
        read(&mut ahead, &ask(0, MIB));
        let next = ask(MIB, 4 * KIB);
        assert!(read(&mut ahead, &next).0);
        assert!(!read(&mut ahead, &Ask { generation: 1, ..next }).0);
        let mut ahead = Ahead::default();
        read(&mut ahead, &ask(0, MIB));
        assert!(!read(&mut ahead, &Ask { now: next.now + Duration::from_secs(4), ..next }).0);
    }

    #[tokio::test]
    async fn a_read_may_lie_over_several_fetches_and_beyond() {
        let mut ahead = Ahead::default();
        read(&mut ahead, &ask(0, MIB));
        let parts = ahead.parts(&ask(MIB + 5, 5 * MIB));
        let shape: Vec<_> = parts
            .iter()
            .map(|part| match part {
                Part::Ahead(_, from, to) => ("ahead", *from, *to),
                Part::Now(from, to) => ("now", *from, *to),
            })
            .collect();
        assert_eq!(
            shape,
            [("ahead", MIB + 5, 2 * MIB), ("ahead", 2 * MIB, 3 * MIB), ("now", 3 * MIB, 6 * MIB + 5)]
        );
    }
}
