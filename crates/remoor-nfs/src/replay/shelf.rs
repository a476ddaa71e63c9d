//! The order in which replies are forgotten: the oldest first, those that nobody asks for again before the others.

use std::collections::VecDeque;

use super::entry::EntryId;

/// Gone entries a queue may name before it is swept, beyond as many as there are live ones.
const SLACK: usize = 64;

/// Done entries by age. An entry that was found unsettled moves, once, to `kept`, so that finding one to forget is cheap.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    recent: VecDeque<EntryId>,
    kept: VecDeque<EntryId>,
}

/// An entry to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) id: EntryId,
    pub(super) settled: bool,
}

impl Shelf {
    pub(super) fn push(&mut self, id: EntryId) {
        self.recent.push_back(id);
    }

    /// The oldest settled entry, else the oldest of all. `settled` says `None` of an entry that is gone.
    pub(super) fn victim(&mut self, mut settled: impl FnMut(EntryId) -> Option<bool>) -> Option<Victim> {
        while let Some(id) = self.recent.pop_front() {
            match settled(id) {
                Some(true) => return Some(Victim { id, settled: true }),
                Some(false) => self.kept.push_back(id),
                None => {}
            }
        }
        while let Some(id) = self.kept.pop_front() {
            if let Some(settled) = settled(id) {
                return Some(Victim { id, settled });
            }
        }
        None
    }

    /// The front of each queue, after dropping what is gone there.
    pub(super) fn oldest(&mut self, lives: impl Fn(EntryId) -> bool) -> [Option<EntryId>; 2] {
        [&mut self.recent, &mut self.kept].map(|queue| {
            while queue.front().is_some_and(|id| !lives(*id)) {
                queue.pop_front();
            }
            queue.front().copied()
        })
    }

    /// Puts an entry that is the front of its queue behind all others of that queue.
    pub(super) fn rotate(&mut self, id: EntryId) {
        for queue in [&mut self.recent, &mut self.kept] {
            if queue.front() == Some(&id) {
                queue.rotate_left(1);
            }
        }
    }

    /// Drops what is gone if that is most of it. `live` is how many entries there are.
    pub(super) fn sweep(&mut self, live: usize, lives: impl Fn(EntryId) -> bool) {
        if self.len() > 2 * live + SLACK {
            self.recent.retain(|id| lives(*id));
            self.kept.retain(|id| lives(*id));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(ids: std::ops::Range<EntryId>) -> Shelf {
        Shelf { recent: ids.collect(), kept: VecDeque::new() }
    }

    fn victims(shelf: &mut Shelf, settled: impl Fn(EntryId) -> Option<bool>) -> Vec<(EntryId, bool)> {
        std::iter::from_fn(|| shelf.victim(&settled)).map(|v| (v.id, v.settled)).collect()
    }

    #[test]
    fn settled_entries_go_first_and_the_oldest_of_each() {
        let settled = |id| Some(id % 2 == 1);
        let order = [(1, true), (3, true), (0, false), (2, false)];
        assert_eq!(victims(&mut shelf(0..4), settled), order);
    }

    #[test]
    fn what_settles_later_is_told_when_its_turn_comes() {
        let mut shelf = shelf(0..3);
        assert_eq!(shelf.victim(|id| Some(id == 2)), Some(Victim { id: 2, settled: true }));
        assert_eq!(victims(&mut shelf, |_| Some(true)), [(0, true), (1, true)]);
    }

    #[test]
    fn what_is_gone_is_nobodys_victim() {
        let mut shelf = shelf(0..10);
        assert_eq!(shelf.oldest(|id| id > 3), [Some(4), None]);
        assert_eq!(victims(&mut shelf, |id| (id == 7).then_some(false)), [(7, false)]);
        assert_eq!(shelf.len(), 0);
    }

    #[test]
    fn a_shelf_of_gone_entries_is_swept() {
        let mut shelf = shelf(0..1000);
        shelf.sweep(1000, |id| id >= 990);
        assert_eq!(shelf.len(), 1000);
        shelf.sweep(10, |id| id >= 990);
        assert_eq!(shelf.len(), 10);
        shelf.rotate(990);
        shelf.rotate(990);
        assert_eq!(shelf.oldest(|_| true), [Some(991), None]);
    }
}
