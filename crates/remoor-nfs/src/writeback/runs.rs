//! Which ranges are dirty, and which are long enough for a full WRITE: found without looking at every piece.

use std::collections::{BTreeMap, BTreeSet};

/// Disjoint ranges that do not touch.
#[derive(Debug)]
pub(super) struct Runs {
    /// Start to end.
    runs: BTreeMap<u64, u64>,
    /// Starts of those of at least `full` bytes.
    long: BTreeSet<u64>,
    full: u64,
}

impl Runs {
    pub(super) fn new(full: u64) -> Self {
        Self { runs: BTreeMap::new(), long: BTreeSet::new(), full }
    }

    fn put(&mut self, start: u64, end: u64) {
        if start < end {
            self.runs.insert(start, end);
            if end - start >= self.full {
                self.long.insert(start);
            }
        }
    }

    fn take(&mut self, start: u64) -> Option<u64> {
        self.long.remove(&start);
        self.runs.remove(&start)
    }

    /// Adds a range that overlaps none, and joins it with those it touches.
    pub(super) fn insert(&mut self, start: u64, end: u64) {
        let before = self.runs.range(..start).next_back().filter(|run| *run.1 == start).map(|run| *run.0);
        let end = self.take(end).unwrap_or(end);
        if let Some(before) = before {
            self.take(before);
        }
        self.put(before.unwrap_or(start), end);
    }

    /// Takes out a range that lies in one run.
    pub(super) fn remove(&mut self, start: u64, end: u64) {
        let Some(run) = self.runs.range(..=start).next_back().map(|run| *run.0) else { return };
        if let Some(run_end) = self.take(run) {
            self.put(run, start);
            self.put(end, run_end);
        }
    }

    /// All, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|(start, end)| (*start, *end))
    }

    /// Those of at least a full WRITE, in order.
    pub(super) fn long(&self) -> impl Iterator<Item = (u64, u64)> {
        self.long.iter().filter_map(|start| Some((*start, *self.runs.get(start)?)))
    }

    /// The run, if there is exactly one.
    pub(super) fn only(&self) -> Option<(u64, u64)> {
        self.all().next().filter(|_| self.runs.len() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(runs: &Runs) -> Vec<(u64, u64)> {
        runs.all().collect()
    }

    #[test]
    fn neighbours_join_and_part_again() {
        let mut runs = Runs::new(10);
        runs.insert(0, 4);
        runs.insert(8, 12);
        assert_eq!((all(&runs), runs.only()), (vec![(0, 4), (8, 12)], None));
        assert_eq!(runs.long().count(), 0);
        runs.insert(4, 8);
        assert_eq!(runs.only(), Some((0, 12)));
        assert_eq!(runs.long().collect::<Vec<_>>(), [(0, 12)]);
        runs.remove(5, 6);
        assert_eq!(all(&runs), [(0, 5), (6, 12)]);
        assert_eq!(runs.long().count(), 0);
        runs.remove(0, 5);
        runs.remove(6, 12);
        assert_eq!(runs.all().count(), 0);
    }
}
